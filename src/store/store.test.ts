import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ChunkListBuilder } from './chunk-list.ts';
import { ChunkWriter } from './chunk-writer.ts';
import {
  manifestOf,
  readSnapshot,
  scratchDirectory,
  storeStreams,
  takeSnapshot,
  testJob,
} from './scratch-store.ts';
import { Store } from './store.ts';

/** Bytes with zero runs, repetitions, text and noise, the same for the same seed. */
const content = fc
  .array(
    fc.record({
      kind: fc.constantFrom('zeros', 'noise', 'text'),
      length: fc.integer({ min: 0, max: 150_000 }),
      seed: fc.integer({ min: 0, max: 3 }),
    }),
    { maxLength: 5 },
  )
  .map((parts) => Buffer.concat(parts.map(({ kind, length, seed }) => piece(kind, length, seed))));

function piece(kind: string, length: number, seed: number): Buffer {
  if (kind === 'zeros') return Buffer.alloc(length);
  if (kind === 'text') return Buffer.alloc(length, `line ${seed} of a log\n`);
  const bytes = Buffer.alloc(length);
  let state = seed + 1;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

test('R23 whatever is stored comes back, also after opening again and from packs alone', async () => {
  using scratch = scratchDirectory();
  const taken: Record<string, Uint8Array>[] = [];
  await fc.assert(
    fc.asyncProperty(
      fc.dictionary(fc.stringMatching(/^[a-z]{1,5}$/), content, { maxKeys: 3 }),
      async (streams) => {
        await using store = await Store.open(scratch.options);
        const { sequence } = await takeSnapshot(store, streams);
        taken[sequence] = { ...streams };
        assert.deepEqual(plain(await readSnapshot(store, sequence)), plain(streams));
      },
    ),
    { numRuns: 15 },
  );
  rmSync(join(scratch.options.directory, 'index.cache'));
  await using store = await Store.open(scratch.options);
  for (const [sequence, streams] of taken.entries())
    if (sequence > 0) {
      assert.deepEqual(plain(await readSnapshot(store, sequence)), plain(streams));
      assert.deepEqual((await store.verify(testJob, sequence)).damage, []);
    }
});

function plain(streams: Record<string, Uint8Array>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(streams).map(([name, bytes]) => [name, Buffer.from(bytes).toString('base64')]),
  );
}

test('R06 zeros take no space, and what any earlier snapshot had is not stored again', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const noise = randomBytes(1024 * 1024);
  const first = await takeSnapshot(store, { memory: noise, empty: Buffer.alloc(64 * 1024 * 1024) });
  assert.ok(first.storedBytes < noise.length * 1.01);
  const changed = Buffer.from(noise);
  changed[5] = ~(changed[5] ?? 0);
  const second = await takeSnapshot(store, { memory: changed }, 'job-2');
  assert.ok(second.storedBytes > 65536 && second.storedBytes < 65536 * 1.2);
  const third = await takeSnapshot(store, { memory: noise, again: changed });
  assert.equal(third.storedBytes, 0);
  const text = await takeSnapshot(store, { text: Buffer.from('all work and no play\n'.repeat(50_000)) });
  assert.ok(text.storedBytes < text.logicalBytes / 20);
});

test('H06 files are 0600, directories 0700, and no content or name is readable in them', async () => {
  using scratch = scratchDirectory();
  const secret = 'the-secret-of-the-job';
  {
    await using store = await Store.open(scratch.options);
    await takeSnapshot(store, { [secret]: Buffer.alloc(100_000, secret) });
  }
  const entries = readdirSync(scratch.path, { recursive: true, withFileTypes: true });
  assert.ok(entries.length > 8);
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    assert.equal(statSync(path).mode & 0o777, entry.isDirectory() ? 0o700 : 0o600, path);
  }
  for (const file of filesBelow(scratch.path)) assert.ok(!readFileSync(file).includes(secret), file);
});

test('R19 a snapshot that is given up leaves no file, and its chunks are not taken as known', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const noise = randomBytes(300_000);
  const before = filesBelow(scratch.path);
  {
    await using writer = store.begin(testJob, 1);
    storeStreams(writer, { noise });
    using other = new ChunkWriter(writer.writerEnvironment());
    other.write(randomBytes(65536), new ChunkListBuilder());
    other.flush();
    assert.ok(readdirSync(join(scratch.options.directory, 'incoming')).length === 2);
  }
  assert.deepEqual(filesBelow(scratch.path), before);
  assert.deepEqual(await store.snapshots(), []);
  const { storedBytes, sequence } = await takeSnapshot(store, { noise });
  assert.ok(storedBytes >= noise.length);
  assert.deepEqual((await store.verify(testJob, sequence)).damage, []);
});

test('R19 a worker that goes on after its snapshot was given up is stopped', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const writer = store.begin(testJob, 1);
  using late = new ChunkWriter(writer.writerEnvironment());
  late.stage(randomBytes(1000), new ChunkListBuilder());
  await writer.abort();
  assert.throws(() => late.flush(), { code: 'snapshot-closed' });
  assert.deepEqual(readdirSync(join(scratch.options.directory, 'incoming')), []);
});

test('R19 a snapshot whose worker was lost is not published', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await using writer = store.begin(testJob, 1);
  const lost = new ChunkWriter(writer.writerEnvironment());
  const survivor = new ChunkWriter(writer.writerEnvironment());
  const noise = randomBytes(65536);
  const list = new ChunkListBuilder();
  lost.stage(noise, new ChunkListBuilder());
  assert.equal(survivor.stage(noise, list), false);
  writer.collect(survivor.seal());
  lost[Symbol.dispose]();
  const manifest = manifestOf(1, { noise: { size: noise.length, chunks: list.build() } });
  await assert.rejects(writer.publish(manifest), { class: 'temporary', code: 'snapshot-incomplete' });
  assert.deepEqual(await store.snapshots(), []);
});

test('R19 two snapshots at once do not rely on each other', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const noise = randomBytes(500_000);
  const first = store.begin('job-1', 1);
  const second = store.begin('job-2', 1);
  storeStreams(first, { noise });
  const manifest = storeStreams(second, { noise });
  await first.abort();
  await second.publish(manifest);
  assert.deepEqual((await store.verify('job-2', 1)).damage, []);
  const third = store.begin('job-1', 1);
  const fourth = store.begin('job-3', 1);
  const manifests = [storeStreams(third, { noise, a: randomBytes(70_000) }), storeStreams(fourth, { noise })];
  if (manifests[0] === undefined || manifests[1] === undefined) throw new Error('unreachable');
  await Promise.all([third.publish(manifests[0]), fourth.publish(manifests[1])]);
  assert.deepEqual((await store.verify('job-1', 1)).damage, []);
  assert.deepEqual((await store.verify('job-3', 1)).damage, []);
});

test('sequence numbers are never used twice; an existing snapshot is not replaced', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await takeSnapshot(store, { a: Buffer.from('one') });
  await takeSnapshot(store, { a: Buffer.from('two') });
  await store.removeSnapshot(testJob, 2);
  assert.equal(await store.nextSequence(testJob), 3);
  assert.equal(statSync(join(scratch.options.directory, 'snapshots', testJob, '0000000002.removed')).size, 0);
  await store.removeSnapshot(testJob, 1);
  assert.equal(await store.nextSequence(testJob), 3);
  assert.equal((await takeSnapshot(store, { a: Buffer.from('three') })).sequence, 3);
  await using writer = store.begin(testJob, 3);
  await assert.rejects(writer.publish(storeStreams(writer, {})), {
    class: 'argument',
    code: 'snapshot-exists',
  });
  assert.deepEqual(Buffer.from((await readSnapshot(store, 3))['a'] ?? []).toString(), 'three');
  await store.removeJob(testJob);
  assert.deepEqual(readdirSync(join(scratch.options.directory, 'snapshots')), []);
});

test('unknown snapshots and impossible job names are refused as arguments', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await takeSnapshot(store, {}, 'job-2');
  const unknown = { class: 'argument', code: 'snapshot-unknown' };
  await assert.rejects(store.readManifest('job-1', 1), unknown);
  await assert.rejects(store.readManifest('job-2', 2), unknown);
  await assert.rejects(store.removeSnapshot('job-1', 1), unknown);
  await assert.rejects(store.verify('job-1', 1), unknown);
  for (const id of ['', '../job', 'a/b', '.', 'x'.repeat(200)])
    assert.throws(() => store.begin(id, 1), { class: 'argument', code: 'job-id-invalid' });
});

test('a pinned snapshot says so, and can be released', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await takeSnapshot(store, { noise: randomBytes(100_000) });
  await store.setPinned(testJob, 1, true);
  assert.equal((await store.snapshots(testJob))[0]?.pinned, true);
  assert.deepEqual((await store.verify(testJob, 1)).damage, []);
  await store.setPinned(testJob, 1, false);
  assert.equal((await store.snapshots())[0]?.pinned, false);
  const pin = store.pin(testJob, 1);
  await assert.rejects(store.removeSnapshot(testJob, 1), { class: 'temporary', code: 'snapshot-in-use' });
  pin[Symbol.dispose]();
  await store.removeSnapshot(testJob, 1);
});

test('a store has one writer; readers are allowed beside it', async () => {
  using scratch = scratchDirectory();
  {
    await using store = await Store.open(scratch.options);
    await takeSnapshot(store, { a: Buffer.from('x'.repeat(10_000)) });
    await assert.rejects(Store.open(scratch.options), {
      class: 'temporary',
      code: 'store-locked',
      message: new RegExp(`process ${process.pid}`),
    });
    await using reader = await Store.open({ ...scratch.options, readOnly: true });
    assert.deepEqual((await reader.verify(testJob, 1)).damage, []);
    assert.throws(() => reader.begin(testJob, 2), { code: 'store-read-only' });
  }
  await using again = await Store.open(scratch.options);
  assert.equal((await again.snapshots()).length, 1);
});

test('H06 missing, wrong and damaged keys are refused by name', async () => {
  using scratch = scratchDirectory();
  using other = scratchDirectory();
  {
    await using store = await Store.open(scratch.options);
    await takeSnapshot(store, {});
    await using _other = await Store.open(other.options);
  }
  for (const name of ['data.key', 'hash.key', 'signing.key']) {
    const path = join(scratch.options.keys, name);
    const good = readFileSync(path);
    const about = { class: 'environment', message: new RegExp(name.replace('.', '\\.')) };
    unlinkSync(path);
    await assert.rejects(Store.open(scratch.options), { ...about, code: 'key-missing' });
    assert.ok(!existsSync(path));
    writeFileSync(path, 'nonsense');
    await assert.rejects(Store.open(scratch.options), { ...about, code: 'key-damaged' });
    writeFileSync(path, readFileSync(join(other.options.keys, name)));
    await assert.rejects(Store.open(scratch.options), { ...about, code: 'key-wrong' });
    writeFileSync(path, good);
    chmodSync(path, 0o600);
  }
  await using store = await Store.open(scratch.options);
  assert.equal((await store.snapshots()).length, 1);
});

test('another format version is refused, for the store and for readers of it', async () => {
  using scratch = scratchDirectory();
  await Store.open(scratch.options).then((store) => store[Symbol.asyncDispose]());
  const path = join(scratch.options.directory, 'store.json');
  const descriptor = JSON.parse(readFileSync(path, 'utf8'));
  writeFileSync(path, JSON.stringify({ ...descriptor, version: 2 }));
  await assert.rejects(Store.open(scratch.options), { class: 'environment', code: 'store-version' });
  await assert.rejects(
    Store.open({ ...scratch.options, directory: join(scratch.path, 'no'), readOnly: true }),
    {
      class: 'environment',
      code: 'store-missing',
    },
  );
});

test('the index can be rebuilt, and a damaged cache does no harm', async () => {
  using scratch = scratchDirectory();
  const cache = join(scratch.options.directory, 'index.cache');
  const noise = randomBytes(400_000);
  {
    await using store = await Store.open(scratch.options);
    await takeSnapshot(store, { noise });
    await takeSnapshot(store, { more: randomBytes(100_000) });
    const before = store.statistics();
    await store.rebuildIndex();
    assert.deepEqual({ ...store.statistics(), tableBytes: 0 }, { ...before, tableBytes: 0 });
  }
  const good = readFileSync(cache);
  const seed = Date.now();
  await fc.assert(
    fc.asyncProperty(
      fc.nat(good.length - 1),
      fc.integer({ min: 1, max: 255 }),
      fc.boolean(),
      async (at, flip, cut) => {
        const bad = Buffer.from(good);
        bad[at] = (bad[at] ?? 0) ^ flip;
        writeFileSync(cache, cut ? bad.subarray(0, at) : bad);
        await using store = await Store.open(scratch.options);
        assert.equal((await takeSnapshot(store, { noise })).storedBytes, 0);
      },
    ),
    { numRuns: 20, seed },
  );
});

test('memory of an index of 200,000 chunks stays below 80 bytes for each', async () => {
  const { ChunkIndex } = await import('./chunk-index.ts');
  const chunkCount = 200_000;
  const segmentCount = chunkCount / 4;
  const index = new ChunkIndex(chunkCount);
  index.addPack(
    { id: new Uint8Array(16), file: 'x', bytes: 0 },
    {
      segmentCount,
      chunkCount,
      storedLengths: new Uint32Array(segmentCount).fill(1000),
      plainLengths: new Uint32Array(segmentCount).fill(262144),
      flags: new Uint16Array(segmentCount),
      chunkCounts: new Uint16Array(segmentCount).fill(4),
      ids: new Uint8Array(randomBytes(chunkCount * 32)),
      chunkLengths: new Uint32Array(chunkCount).fill(65536),
    },
  );
  const columns = Object.values(index).filter((value) => ArrayBuffer.isView(value));
  const bytes = columns.reduce((sum, column) => sum + column.byteLength, index.table.memory.byteLength);
  assert.equal(index.rowCount, chunkCount);
  assert.ok(bytes / chunkCount < 80, `${bytes / chunkCount} bytes`);
});
