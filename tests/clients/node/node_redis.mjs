// node-redis with its defaults, RESP3 among them. Usage: node_redis.mjs PORT. See work.mjs.

import { createClient } from 'redis';
import { BLOCKING_SECONDS, LARGE_EVERY, LAST, Report, SCRIPT, largeValue, pause } from './work.mjs';

const report = new Report('node-redis, RESP3');
const connect = async (work) => {
  const client = createClient({ url: `redis://localhost:${process.argv[2]}`, name: work });
  client.on('reconnecting', () => (report.reconnects[work] += 1));
  client.on('error', (error) => report.error(work, error));
  return client.connect();
};
const client = await connect('ordinary');
const subscriber = await connect('pubsub');
const popper = await connect('blocking');

function steps(worker, round, token) {
  const key = `node-redis:${token}`;
  const acknowledge = (...names) => names.forEach((name) => report.acknowledged.set(`${key}:${name}`, token));
  const list = [
    async () => {
      await client.set(`${key}:plain`, token);
      acknowledge('plain');
      report.expect(await client.get(`${key}:plain`), token);
    },
    async () => {
      const pipeline = client.multi().set(`${key}:p1`, token).set(`${key}:p2`, token).get(`${key}:p1`);
      const [, , value] = await pipeline.execAsPipeline();
      acknowledge('p1', 'p2');
      report.expect(value, token);
    },
    async () => {
      await client.multi().set(`${key}:m1`, token).set(`${key}:m2`, token).exec();
      acknowledge('m1', 'm2');
    },
    async () => {
      report.expect(await client.eval(SCRIPT, { keys: [`${key}:lua`], arguments: [token] }), token);
      acknowledge('lua');
    },
  ];
  if (round % LARGE_EVERY === 0) {
    list.push(async () => {
      await client.set(`node-redis:large:${worker}`, largeValue(token));
      report.expect(await client.get(`node-redis:large:${worker}`), largeValue(token));
    });
  }
  if (worker === 0) {
    list.push(async () => {
      await client.publish('node-redis:channel', token);
      await client.lPush('node-redis:queue', token);
    });
  }
  return list;
}

async function pop() {
  while (!report.recovered.blocking) {
    try {
      const popped = await popper.blPop(['node-redis:queue', 'node-redis:last'], BLOCKING_SECONDS);
      if (popped) report.arrived('blocking', popped.element);
    } catch (error) {
      report.error('blocking', error);
      await pause();
    }
  }
}

await subscriber.subscribe('node-redis:channel', (message) => report.arrived('pubsub', message));
pop();
await report.run(steps, {
  last: async () => {
    await client.publish('node-redis:channel', LAST);
    await client.lPush('node-redis:last', LAST);
  },
  mget: (keys) => client.mGet(keys),
  version: async () => /redis_version:(\S+)/.exec(await client.info('server'))[1],
});
