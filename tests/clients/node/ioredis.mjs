// ioredis with its defaults, RESP3 among them. Usage: ioredis.mjs PORT. See work.mjs.

import Redis from 'ioredis';
import { BLOCKING_SECONDS, LARGE_EVERY, LAST, Report, SCRIPT, largeValue, pause } from './work.mjs';

const report = new Report('ioredis, RESP3');
const connect = (work) => {
  const client = new Redis({ host: 'localhost', port: Number(process.argv[2]), connectionName: work });
  client.on('reconnecting', () => (report.reconnects[work] += 1));
  client.on('error', (error) => report.error(work, error));
  return client;
};
const client = connect('ordinary');
const subscriber = connect('pubsub');
const popper = connect('blocking');

// An array of [error, answer] is no exception.
const answers = (pairs) =>
  pairs.map(([error, answer]) => {
    if (error) throw error;
    return answer;
  });

function steps(worker, round, token) {
  const key = `ioredis:${token}`;
  const acknowledge = (...names) => names.forEach((name) => report.acknowledged.set(`${key}:${name}`, token));
  const list = [
    async () => {
      await client.set(`${key}:plain`, token);
      acknowledge('plain');
      report.expect(await client.get(`${key}:plain`), token);
    },
    async () => {
      const pipeline = client.pipeline().set(`${key}:p1`, token).set(`${key}:p2`, token).get(`${key}:p1`);
      const [, , value] = answers(await pipeline.exec());
      acknowledge('p1', 'p2');
      report.expect(value, token);
    },
    async () => {
      answers(await client.multi().set(`${key}:m1`, token).set(`${key}:m2`, token).exec());
      acknowledge('m1', 'm2');
    },
    async () => {
      report.expect(await client.eval(SCRIPT, 1, `${key}:lua`, token), token);
      acknowledge('lua');
    },
  ];
  if (round % LARGE_EVERY === 0) {
    list.push(async () => {
      await client.set(`ioredis:large:${worker}`, largeValue(token));
      report.expect(await client.get(`ioredis:large:${worker}`), largeValue(token));
    });
  }
  if (worker === 0) {
    list.push(async () => {
      await client.publish('ioredis:channel', token);
      await client.lpush('ioredis:queue', token);
    });
  }
  return list;
}

async function pop() {
  while (!report.recovered.blocking) {
    try {
      const popped = await popper.blpop('ioredis:queue', 'ioredis:last', BLOCKING_SECONDS);
      if (popped) report.arrived('blocking', popped[1]);
    } catch (error) {
      report.error('blocking', error);
      await pause();
    }
  }
}

subscriber.on('message', (_, message) => report.arrived('pubsub', message));
await subscriber.subscribe('ioredis:channel');
pop();
await report.run(steps, {
  last: async () => {
    await client.publish('ioredis:channel', LAST);
    await client.lpush('ioredis:last', LAST);
  },
  mget: (keys) => client.mget(keys),
  version: async () => /redis_version:(\S+)/.exec(await client.info('server'))[1],
});
