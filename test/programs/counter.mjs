// R01: a Node.js program (timers, promises, file handle, worker thread) goes on where it was.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';

const go = process.env.PROBE_GO ?? '/probe/go';
function* numbers() {
  let value = 1n;
  for (;;) yield (value = (value * 6364136223846793005n + 1n) & ((1n << 61n) - 1n));
}
const source = numbers();
const seen = new Map();
const digest = createHash('sha256');
const path = `/tmp/counter-${process.pid}`;
const file = await open(path, 'w+');
await rm(path);
let ticks = 0;
const interval = setInterval(() => ticks++, 5);
const worker = new Worker(
  `const { parentPort } = require('node:worker_threads');
   let count = 0; parentPort.on('message', (n) => parentPort.postMessage([n * 2, ++count]));`,
  { eval: true },
);
const ask = (n) => new Promise((resolve) => (worker.once('message', resolve), worker.postMessage(n)));

const failures = [];
await ask(0);
console.log('ready');
while (!existsSync(go)) {
  const value = source.next().value;
  const index = seen.size;
  seen.set(index, value);
  digest.update(String(value));
  await file.write(`${value}\n`);
  const [double, count] = await ask(index);
  if (double !== index * 2 || count !== index + 2)
    failures.push(`the worker answered ${double}, ${count} to ${index}`);
  await new Promise((resolve) => setTimeout(resolve, 2));
}
clearInterval(interval);
await worker.terminate();
if (process.env.PROBE_BREAK) seen.set(0, 0n);

const check = createHash('sha256');
const again = numbers();
let text = '';
for (let index = 0; index < seen.size; index++) {
  const value = again.next().value;
  check.update(String(value));
  text += `${value}\n`;
  if (seen.get(index) !== value) failures.push(`entry ${index} differs`);
}
if (check.digest('hex') !== digest.digest('hex')) failures.push('the running digest differs');
const buffer = Buffer.alloc(text.length + 16);
const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
if (buffer.toString('latin1', 0, bytesRead) !== text) failures.push('the temporary file differs');
if (ticks === 0) failures.push('the interval never fired');
for (const failure of failures) console.log(`FAIL: ${failure}`);
if (failures.length === 0) console.log('PASS');
process.exitCode = failures.length === 0 ? 0 : 1;
