import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ChunkList } from './chunk-list.ts';
import { ChunkReader } from './chunk-reader.ts';
import { decodeReadPlan, encodeReadPlan } from './read-plan.ts';
import { scratchDirectory, takeSnapshot, testJob } from './scratch-store.ts';
import { Store } from './store.ts';

async function listsOf(store: Store, sequence: number): Promise<ChunkList[]> {
  const manifest = await store.readManifest(testJob, sequence);
  return (manifest.units[0]?.images ?? []).map(({ content }) => content.chunks as ChunkList);
}

test('any range of any stream can be read, in any order, with a small cache and few open files', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const streams = [
    Buffer.concat([randomBytes(300_000), Buffer.alloc(200_000), randomBytes(100)]),
    Buffer.alloc(777_777, 'compressible '),
    Buffer.alloc(0),
    Buffer.alloc(500_000),
  ];
  // Several snapshots, so that the streams lie in several packs.
  await takeSnapshot(store, { a: streams[0] ?? Buffer.alloc(0) });
  await takeSnapshot(store, { b: streams[1] ?? Buffer.alloc(0) });
  await takeSnapshot(store, Object.fromEntries(streams.map((bytes, i) => [`s${i}`, bytes])));
  const plan = decodeReadPlan(encodeReadPlan(store.resolve(await listsOf(store, 3))));
  assert.ok(plan.packs.length >= 2);
  using reader = new ChunkReader(store.readerEnvironment(plan), plan, { cachedSegments: 1, openPacks: 1 });
  for (const [i, bytes] of streams.entries()) {
    assert.equal(reader.sizeOf(i), bytes.length);
    assert.equal(Buffer.compare(reader.readAll(i), bytes), 0);
  }
  fc.assert(
    fc.property(fc.nat(3), fc.nat(800_000), fc.nat(200_000), (list, position, length) => {
      const target = Buffer.alloc(length, 0xee);
      const got = reader.readRange(list, position, target);
      const expected = (streams[list] ?? Buffer.alloc(0)).subarray(position, position + length);
      assert.equal(got, expected.length);
      assert.equal(Buffer.compare(target.subarray(0, got), expected), 0);
      assert.ok(target.subarray(got).every((byte) => byte === 0xee));
    }),
    { numRuns: 60 },
  );
  const first = plan.listStarts[0] ?? 0;
  const target = Buffer.alloc(65536 + 3);
  assert.equal(reader.readInto(first, target, 3), 65536);
  assert.equal(Buffer.compare(target.subarray(3), (streams[0] ?? target).subarray(0, 65536)), 0);
  assert.throws(() => reader.readInto(first, target, 4), RangeError);
});

test('another process reads with a plan and keys for the packs of that plan only', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const memory = randomBytes(1_000_000);
  await takeSnapshot(store, { memory });
  await takeSnapshot(store, { other: randomBytes(100_000) });
  const plan = store.resolve(await listsOf(store, 1));
  const environment = store.readerEnvironment(plan);
  assert.equal(environment.packKeys.length, 32);
  const file = join(scratch.path, 'plan');
  writeFileSync(file, encodeReadPlan(plan));
  const program = `
    import { readFileSync } from 'node:fs';
    const { ChunkReader } = await import(${JSON.stringify(new URL('./chunk-reader.ts', import.meta.url).href)});
    const { decodeReadPlan } = await import(${JSON.stringify(new URL('./read-plan.ts', import.meta.url).href)});
    const keys = JSON.parse(readFileSync(0, 'utf8'));
    const environment = { ...keys, hashKey: Buffer.from(keys.hashKey, 'hex'), packKeys: Buffer.from(keys.packKeys, 'hex') };
    const reader = new ChunkReader(environment, decodeReadPlan(readFileSync(process.argv[1])));
    process.stdout.write(reader.readAll(0));`;
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
  const result = spawnSync(process.execPath, ['--input-type=module', '-e', program, file], {
    input: JSON.stringify({
      ...environment,
      hashKey: hex(environment.hashKey),
      packKeys: hex(environment.packKeys),
    }),
    maxBuffer: 4_000_000,
    timeout: 30_000,
  });
  assert.equal(result.status, 0, String(result.stderr));
  assert.equal(Buffer.compare(result.stdout, memory), 0);
});

test('a plan that was cut or belongs to another version is refused', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await takeSnapshot(store, { memory: randomBytes(10_000) });
  const bytes = encodeReadPlan(store.resolve(await listsOf(store, 1)));
  const refused = { class: 'permanent', code: 'read-plan-damaged' };
  for (let length = 0; length < bytes.length; length++)
    assert.throws(() => decodeReadPlan(bytes.subarray(0, length)), refused);
  bytes.writeUInt32LE(2, 8);
  assert.throws(() => decodeReadPlan(bytes), refused);
});

test('with a wrong key nothing is read', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await takeSnapshot(store, { memory: randomBytes(10_000) });
  const plan = store.resolve(await listsOf(store, 1));
  const environment = store.readerEnvironment(plan);
  const refused = { class: 'permanent', code: 'chunk-damaged' };
  for (const wrong of [{ packKeys: new Uint8Array(32) }, { hashKey: new Uint8Array(32) }]) {
    using reader = new ChunkReader({ ...environment, ...wrong }, plan);
    assert.throws(() => reader.readAll(0), refused);
  }
});
