// Runs a page's own block of ioredis or node-redis (docs/clients/nodejs.md), which defines `client`. Usage: page.mjs BLOCK NAME. See page.py.

import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const { client } = await import(pathToFileURL(process.argv[2]));
const name = process.argv[3];
const installed = name === 'node-redis' ? 'redis' : name;
const { version } = JSON.parse(readFileSync(new URL(`../node/node_modules/${installed}/package.json`, import.meta.url)));
const pause = () => new Promise((done) => setTimeout(done, 20));
const errors = {};
const acknowledged = new Map();
let wrong = 0;
let ended = false;
process.stdin.resume();
process.stdin.on('end', () => (ended = true));
const error = (work, { name, message }) => {
  const kind = `${work}: ${name}: ${message}`.slice(0, 200);
  errors[kind] = (errors[kind] ?? 0) + 1;
};
for (let number = 0; !ended; number += 1) {
  const [key, value] = [`page:${name}:${number}`, `value ${number}`];
  try {
    await client.set(key, value);
    acknowledged.set(key, value);
    if ((await client.get(key)) !== value) wrong += 1;
  } catch (e) {
    error('ordinary', e);
  }
  console.log('round');
  await pause();
}
let lost = 0;
for (const [key, value] of acknowledged) lost += (await client.get(key)) !== value;
const report = { library: `${name} ${version}`, errors, wrong_values: wrong, acknowledged: acknowledged.size, lost };
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
