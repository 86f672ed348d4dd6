import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { ChunkTable, claimResult } from './chunk-table.ts';

function randomKey(): Int32Array {
  return new Int32Array(new Uint8Array(randomBytes(16)).buffer);
}

test('of two threads that claim the same chunks, exactly one is told that each is new', async () => {
  const chunks = 20_000;
  const table = ChunkTable.create(chunks);
  const keys = new Int32Array(new Uint8Array(randomBytes(chunks * 16)).buffer);
  const start = new Int32Array(new SharedArrayBuffer(4));
  const code = `
    const { parentPort, workerData } = require('node:worker_threads');
    import(workerData.module).then(({ ChunkTable }) => {
      const table = new ChunkTable(workerData.memory);
      const won = [];
      Atomics.add(workerData.start, 0, 1);
      while (Atomics.load(workerData.start, 0) < 2);
      for (let i = 0; i < workerData.keys.length / 4; i++)
        if (table.claim(workerData.keys.subarray(4 * i, 4 * i + 4), 1) === 1) won.push(i);
      parentPort.postMessage(won);
    });`;
  const module = new URL('./chunk-table.ts', import.meta.url).href;
  const run = (): Promise<number[]> =>
    new Promise((resolve, reject) => {
      const workerData = { module, memory: table.memory, keys, start };
      const worker = new Worker(code, { eval: true, workerData });
      worker.once('message', resolve);
      worker.once('error', reject);
    });
  const [first, second] = await Promise.all([run(), run()]);
  assert.equal(first.length + second.length, chunks);
  assert.equal(new Set([...first, ...second]).size, chunks);
  assert.equal(table.used, chunks);
});

test('what a snapshot that is being taken has entered is known to itself only', () => {
  const table = ChunkTable.create(10);
  const key = randomKey();
  assert.equal(table.claim(key, 1), claimResult.added);
  assert.equal(table.claim(key, 1), claimResult.known);
  assert.equal(table.claim(key, 2), claimResult.added);
  assert.equal(table.rowOf(key), -1);
  assert.equal(table.setRow(key, 5, 2), true);
  assert.equal(table.claim(key, 3), claimResult.known);
  assert.equal(table.setRow(key, 6, 1), false);
  assert.equal(table.rowOf(key), 5);
});

test('a distrusted chunk is found but not known, until it is stored again', () => {
  const table = ChunkTable.create(10);
  const key = randomKey();
  table.setRow(key, 0);
  table.distrust(key, 0);
  assert.equal(table.rowOf(key), 0);
  assert.equal(table.trustedRowOf(key), -1);
  assert.equal(table.claim(key, 1), claimResult.added);
  assert.equal(table.setRow(key, 1, 1), true);
  assert.equal(table.rowOf(key), 1);
});

test('a full table still answers, and loses nothing it had', () => {
  const table = ChunkTable.create(1);
  const keys = Array.from({ length: table.capacity }, randomKey);
  const results = keys.map((key) => table.claim(key, 1));
  const added = results.filter((result) => result === claimResult.added).length;
  assert.ok(added < table.capacity && added > table.capacity * 0.85);
  for (const [i, key] of keys.entries())
    assert.equal(
      table.claim(key, 1),
      results[i] === claimResult.added ? claimResult.known : claimResult.tableFull,
    );
});
