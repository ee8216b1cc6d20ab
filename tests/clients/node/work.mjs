// What the programs of the JavaScript libraries share: see ../work.py, whose report this is.

import { once } from 'node:events';

export const WORKERS = 3;
export const LARGE_EVERY = 25;
export const BLOCKING_SECONDS = 5;
export const SCRIPT = "redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]";
export const LAST = 'last';
const PAUSE_MS = 20;
const LARGE = 1024 * 1024;
const RECOVERY_MS = 20_000;
const KEYS_AT_ONCE = 200;

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
export const pause = () => sleep(PAUSE_MS);
export const largeValue = (token) => token.padEnd(LARGE, '.');

export class Report {
  errors = { ordinary: {}, pubsub: {}, blocking: {} };
  reconnects = { ordinary: 0, pubsub: 0, blocking: 0 };
  recovered = { pubsub: false, blocking: false };
  acknowledged = new Map();
  rounds = 0;
  wrongValues = 0;
  heard = 0;
  popped = 0;
  ended = false;

  constructor(library) {
    this.library = library;
  }

  error(work, error) {
    const kind = `${error.name}: ${error.message}`.slice(0, 160);
    this.errors[work][kind] = (this.errors[work][kind] ?? 0) + 1;
  }

  expect(what, expected) {
    // Null is a lost write, which is counted in the end: after a crash Redis itself may lose one.
    if (what !== null && what !== expected) this.wrongValues += 1;
  }

  // Messages and popped values alike; true when it was the last one.
  arrived(work, value) {
    this[work === 'pubsub' ? 'heard' : 'popped'] += 1;
    if (value === LAST) this.recovered[work] = true;
  }

  // Rounds of `steps`, functions of a library's own, until standard input ends.
  async worker(number, steps) {
    for (let round = 0; !this.ended; round += 1) {
      for (const step of steps(number, round, `${number}:${round}`)) {
        try {
          await step();
        } catch (error) {
          this.error('ordinary', error);
        }
      }
      if (number === 0) {
        this.rounds += 1;
        console.log('round');
      }
      await pause();
    }
  }

  async run(steps, { last, mget, version }) {
    const workers = Array.from({ length: WORKERS }, (_, number) => this.worker(number, steps));
    process.stdin.resume();
    await once(process.stdin, 'end');
    this.ended = true;
    await Promise.all(workers);
    const deadline = Date.now() + RECOVERY_MS;
    while (Date.now() < deadline && !(this.recovered.pubsub && this.recovered.blocking)) {
      await last();
      await sleep(100);
    }
    const keys = [...this.acknowledged.keys()];
    let lost = 0;
    for (let at = 0; at < keys.length; at += KEYS_AT_ONCE) {
      const some = keys.slice(at, at + KEYS_AT_ONCE);
      const values = await mget(some);
      some.forEach((key, i) => (lost += values[i] !== this.acknowledged.get(key)));
    }
    const report = {
      library: this.library,
      server: await version(),
      rounds: this.rounds,
      errors: this.errors,
      reconnects: this.reconnects,
      acknowledged: keys.length,
      lost,
      wrong_values: this.wrongValues,
      heard: this.heard,
      popped: this.popped,
      recovered: this.recovered,
    };
    process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
  }
}
