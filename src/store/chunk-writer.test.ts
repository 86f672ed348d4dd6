import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { ChunkList, ChunkListBuilder } from './chunk-list.ts';
import { ChunkWriter, type SealedPacks, type WriterEnvironment } from './chunk-writer.ts';
import { compress, decompress, looksCompressible } from './compression.ts';
import { manifestOf, readSnapshot, scratchDirectory, takeSnapshot, testJob } from './scratch-store.ts';
import { StagingBudget, StagingMemory } from './staging.ts';
import { Store } from './store.ts';

/** A worker thread that stages shared memory chunk by chunk and answers with what its writer sealed. */
function stageInWorker(
  environment: WriterEnvironment,
  memory: SharedArrayBuffer,
): Promise<{ sealed: SealedPacks; list: Uint8Array }> {
  const code = `
    const { parentPort, workerData } = require('node:worker_threads');
    Promise.all([import(workerData.writer), import(workerData.list)]).then(([{ ChunkWriter }, { ChunkListBuilder }]) => {
      const writer = new ChunkWriter(workerData.environment, { stagingLimitBytes: 1 << 20 });
      const list = new ChunkListBuilder();
      const bytes = new Uint8Array(workerData.memory);
      for (let at = 0; at < bytes.length; at += 65536) writer.stage(bytes.subarray(at, at + 65536), list);
      const sealed = writer.seal();
      writer[Symbol.dispose]();
      parentPort.postMessage({ sealed, list: list.build().serialize() });
    });`;
  const workerData = {
    environment,
    memory,
    writer: new URL('./chunk-writer.ts', import.meta.url).href,
    list: new URL('./chunk-list.ts', import.meta.url).href,
  };
  return new Promise((resolve, reject) => {
    const worker = new Worker(code, { eval: true, workerData });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

test('several workers write one snapshot at once and store each chunk once', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const memories = [0, 1].map(() => Buffer.from(new SharedArrayBuffer(4 * 1024 * 1024)));
  const common = randomBytes(2 * 1024 * 1024);
  for (const memory of memories) {
    memory.set(common);
    memory.set(randomBytes(1024 * 1024), common.length);
  }
  await using writer = store.begin(testJob, 1);
  const environment = writer.writerEnvironment();
  const results = await Promise.all(
    memories.map((memory) => stageInWorker(environment, memory.buffer as unknown as SharedArrayBuffer)),
  );
  for (const { sealed } of results) writer.collect(sealed);
  assert.deepEqual(
    { ...writer.statistics, storedBytes: 0 },
    {
      seenBytes: 8 * 1024 * 1024,
      zeroBytes: 2 * 1024 * 1024,
      knownBytes: 2 * 1024 * 1024,
      newBytes: 4 * 1024 * 1024,
      storedBytes: 0,
    },
  );
  const streams = Object.fromEntries(
    results.map(({ list }, i) => [
      `memory-${i}`,
      { size: 4 * 1024 * 1024, chunks: ChunkList.deserialize(list) },
    ]),
  );
  await writer.publish(manifestOf(1, streams));
  const read = await readSnapshot(store, 1);
  for (const [i, memory] of memories.entries())
    assert.equal(Buffer.compare(read[`memory-${i}`] ?? Buffer.alloc(0), memory), 0);
  assert.deepEqual((await store.verify(testJob, 1)).damage, []);
});

test('a writer holds at most the staging limit, and writes out what comes beyond', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await using writer = store.begin(testJob, 1);
  const limit = 256 * 1024;
  const staging = new StagingMemory(limit);
  using chunks = new ChunkWriter(writer.writerEnvironment(), { staging });
  chunks.reserve(1024 * 1024 * 1024);
  assert.equal(staging.bytes, limit);
  const memory = randomBytes(2 * 1024 * 1024 + 5);
  const list = new ChunkListBuilder();
  for (let at = 0; at < memory.length; at += 65536) {
    chunks.stage(memory.subarray(at, at + 65536), list);
    assert.ok(chunks.stagedBytes <= limit);
  }
  assert.equal(staging.bytes, limit);
  assert.ok(chunks.statistics.storedBytes > memory.length - 2 * limit);
  writer.collect(chunks.seal());
  await writer.publish(manifestOf(1, { memory: { size: memory.length, chunks: list.build() } }));
  assert.equal(Buffer.compare((await readSnapshot(store, 1))['memory'] ?? Buffer.alloc(0), memory), 0);
  staging.release();
  assert.equal(staging.bytes, 0);
});

test('what several writers hold together is limited, and who needs more takes what others do not', () => {
  const own = 64 * 1024;
  const mebibyte = 1024 * 1024;
  const budget = StagingBudget.create(80 * mebibyte);
  const memories = [0, 1, 2].map(() => new StagingMemory(own, new StagingBudget(budget.memory)));
  const [greedy, modest, late] = memories as [StagingMemory, StagingMemory, StagingMemory];
  greedy.reserve(70 * mebibyte);
  assert.equal(greedy.bytes, own + 80 * mebibyte, 'a slab of 64 MiB, and the rest for the last 6');
  modest.reserve(mebibyte);
  late.reserve(1);
  assert.deepEqual([modest.bytes, late.bytes], [own, own], 'each always has its own');
  greedy.release();
  modest.reserve(mebibyte);
  assert.equal(modest.bytes, own + 64 * mebibyte);
  late.reserve(64 * mebibyte);
  assert.equal(late.bytes, own + 16 * mebibyte);
  for (const memory of memories) memory.release();
  assert.equal(budget.take(100 * mebibyte), 80 * mebibyte);
});

test('staging and direct writing may be mixed, and a writer may go on after sealing', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await using writer = store.begin(testJob, 1);
  using chunks = new ChunkWriter(writer.writerEnvironment(), { stagingLimitBytes: 1024 * 1024 });
  const parts = [randomBytes(65536), Buffer.alloc(50_000, 'text '), randomBytes(100), Buffer.alloc(65536)];
  const list = new ChunkListBuilder();
  for (const [i, part] of parts.entries()) {
    if (i % 2 === 0) chunks.stage(part, list);
    else chunks.write(part, list);
  }
  writer.collect(chunks.seal());
  const more = randomBytes(3_000_000);
  chunks.writeAll(more, list);
  writer.collect(chunks.seal());
  assert.deepEqual(chunks.seal().packs, []);
  const expected = Buffer.concat([...parts, more]);
  await writer.publish(manifestOf(1, { all: { size: expected.length, chunks: list.build() } }));
  assert.equal(Buffer.compare((await readSnapshot(store, 1))['all'] ?? Buffer.alloc(0), expected), 0);
});

test('packs are limited in size', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await using writer = store.begin(testJob, 1);
  const environment = { ...writer.writerEnvironment(), packLimitBytes: 600_000 };
  using chunks = new ChunkWriter(environment);
  const memory = randomBytes(2_000_000);
  const list = new ChunkListBuilder();
  chunks.writeAll(memory, list);
  const sealed = chunks.seal();
  assert.ok(sealed.packs.length >= 4);
  for (const pack of sealed.packs) assert.ok(pack.bytes < 610_000);
  writer.collect(sealed);
  await writer.publish(manifestOf(1, { memory: { size: memory.length, chunks: list.build() } }));
  assert.equal(Buffer.compare((await readSnapshot(store, 1))['memory'] ?? Buffer.alloc(0), memory), 0);
});

test('compression steps aside for noise, and is found to pay for text, code and sparse pages', () => {
  const noise = randomBytes(65536);
  assert.equal(looksCompressible(noise, 0, noise.length), false);
  assert.equal(compress(noise), undefined);
  const sparse = Buffer.alloc(65536);
  noise.copy(sparse, 4096, 0, 4096);
  for (const bytes of [
    Buffer.alloc(65536, 'all work and no play '),
    sparse,
    Buffer.from(compress.toString()),
  ]) {
    assert.equal(looksCompressible(bytes, 0, bytes.length), true);
    const frame = compress(bytes);
    assert.ok(frame !== undefined && frame.length < bytes.length);
    assert.deepEqual(decompress(frame, bytes.length), bytes);
    assert.equal(decompress(frame, bytes.length - 1), undefined);
    assert.equal(decompress(frame, bytes.length + 1), undefined);
    assert.equal(decompress(frame.subarray(0, -1), bytes.length), undefined);
  }
});

test('chunks that are known cost no more than their hash', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const noise = randomBytes(65536);
  await takeSnapshot(store, { noise });
  await using writer = store.begin(testJob, 2);
  using chunks = new ChunkWriter(writer.writerEnvironment());
  const list = new ChunkListBuilder();
  for (let i = 0; i < 100; i++) assert.equal(chunks.stage(noise, list), false);
  assert.equal(chunks.stagedBytes, 0);
  assert.deepEqual(chunks.seal().packs, []);
  assert.equal(chunks.stage(new Uint8Array(0), list), false);
  assert.throws(() => chunks.stage(new Uint8Array(65537), list), RangeError);
});
