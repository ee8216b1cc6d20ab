// INCR by ioredis or node-redis, which are found from where the test puts this; see incr.py.

const [port, name] = [Number(process.argv[2]), process.argv[3]];
let client;
if (name.startsWith('ioredis')) {
  const { default: Redis } = await import('ioredis');
  client = new Redis({ port, maxRetriesPerRequest: 3 });
} else {
  const { createClient } = await import('redis');
  client = createClient({ url: `redis://127.0.0.1:${port}` });
}
client.on('error', () => {});
if (client.connect && !name.startsWith('ioredis')) await client.connect();
// The one library gives its errors a name, the other a class.
const named = ({ name, constructor }) => (name === 'Error' ? constructor.name : name);
const told = await client.incr('a').catch(named);
process.stdout.write(`${told}\n`, () => process.exit(0));
