import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { CairnError } from '../errors.ts';
import { ChunkList } from './chunk-list.ts';
import { ChunkReader } from './chunk-reader.ts';
import { loadKeys } from './keys.ts';
import { openManifest, readManifestHeader } from './manifest-file.ts';
import { readPack } from './pack-file.ts';
import { readSnapshot, scratchDirectory, takeSnapshot, testJob } from './scratch-store.ts';
import { Store } from './store.ts';

function onlyFile(directory: string): string {
  const [name, ...others] = readdirSync(directory);
  assert.ok(name !== undefined && others.length === 0);
  return join(directory, name);
}

/** Calls `check` with each bit of the file flipped in turn. */
async function eachBitFlipped(path: string, check: (bit: number) => Promise<void>): Promise<void> {
  const good = readFileSync(path);
  const fd = openSync(path, 'r+');
  try {
    for (let bit = 0; bit < good.length * 8; bit++) {
      const at = bit >>> 3;
      const byte = good[at] ?? 0;
      writeSync(fd, Uint8Array.of(byte ^ (1 << (bit & 7))), 0, 1, at);
      await check(bit);
      writeSync(fd, Uint8Array.of(byte), 0, 1, at);
    }
  } finally {
    closeSync(fd);
  }
}

function assertNamed(error: unknown, path: string, codes: readonly string[]): void {
  assert.ok(error instanceof CairnError, String(error));
  assert.equal(error.class, 'permanent');
  assert.ok(codes.includes(error.code), error.code);
  assert.ok(error.message.includes(path), error.message);
}

const packCodes = ['pack-damaged', 'pack-version', 'chunk-damaged'];
const manifestCodes = ['manifest-damaged', 'manifest-version', 'manifest-signature'];

test('R19 every flipped bit and every truncation of a pack is detected and the pack is named', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await takeSnapshot(store, { a: Buffer.alloc(600, 'ab'), b: randomBytes(48) });
  const path = onlyFile(join(scratch.options.directory, 'packs'));
  const id = Buffer.from(path.slice(-37, -5), 'hex');
  const keys = await loadKeys(scratch.options.keys, false);
  const identity = { idBytes: Buffer.from(store.id, 'hex'), dataKey: keys.data };
  const manifest = await store.readManifest(testJob, 1);
  const lists = (manifest.units[0]?.images ?? []).map(({ content }) => content.chunks as ChunkList);
  const plan = store.resolve(lists);
  const environment = store.readerEnvironment(plan);
  const readEverything = async (): Promise<void> => {
    using reader = new ChunkReader(environment, plan);
    for (let entry = 0; entry < plan.entryLength.length; entry++) reader.view(entry);
    await readPack(path, id, identity);
  };
  await readEverything();
  const detects = async (): Promise<void> => {
    const outcome = await readEverything().then(
      () => undefined,
      (error: unknown) => error,
    );
    assertNamed(outcome, path, packCodes);
  };
  await eachBitFlipped(path, detects);
  await readEverything();
  const good = readFileSync(path);
  for (let length = good.length - 1; length >= 0; length--) {
    truncateSync(path, length);
    await detects();
  }
});

test('R19 every flipped bit and every truncation of a manifest is detected and the manifest is named', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await takeSnapshot(store, { a: Buffer.alloc(600, 'ab') });
  const path = onlyFile(join(scratch.options.directory, 'snapshots', testJob));
  const identity = { id: store.id, keys: await loadKeys(scratch.options.keys, false) };
  const good = readFileSync(path);
  const headerEnd = 16 + good.readUInt32LE(12) + 64;
  const refuses = (bytes: Buffer): void => {
    try {
      openManifest(path, bytes, testJob, 1, identity);
    } catch (error) {
      return assertNamed(error, path, manifestCodes);
    }
    assert.fail('a damaged manifest was accepted');
  };
  for (let bit = 0; bit < good.length * 8; bit++) {
    const bytes = Buffer.from(good);
    bytes[bit >>> 3] = (bytes[bit >>> 3] ?? 0) ^ (1 << (bit & 7));
    refuses(bytes);
    if (bit % 67 !== 0) continue;
    writeFileSync(path, bytes);
    const header = await readManifestHeader(path, testJob, 1, identity);
    assert.equal(header?.damaged !== undefined, bit >>> 3 < headerEnd, `bit ${bit}`);
    await assert.rejects(store.readManifest(testJob, 1), { class: 'permanent' });
  }
  for (let length = good.length - 1; length >= 0; length--) refuses(good.subarray(0, length));
  writeFileSync(path, good.subarray(0, -1));
  assert.match((await store.snapshots())[0]?.damaged ?? '', /instead of/);
  openManifest(path, good, testJob, 1, identity);
});

test('M01 a manifest under another name, of another store or of another key is refused', async () => {
  using scratch = scratchDirectory();
  using other = scratchDirectory();
  await using store = await Store.open(scratch.options);
  await using foreign = await Store.open(other.options);
  await takeSnapshot(store, {});
  await takeSnapshot(store, {});
  await takeSnapshot(foreign, {});
  const place = (options: { directory: string }, name: string): string =>
    join(options.directory, 'snapshots', testJob, name);
  const refused = { class: 'permanent', code: 'manifest-signature' };
  const good = readFileSync(place(scratch.options, '0000000001.manifest'));
  writeFileSync(place(scratch.options, '0000000002.manifest'), good);
  await assert.rejects(store.readManifest(testJob, 2), refused);
  writeFileSync(
    place(scratch.options, '0000000002.manifest'),
    readFileSync(place(other.options, '0000000001.manifest')),
  );
  await assert.rejects(store.readManifest(testJob, 2), refused);
  const [first, second] = await store.snapshots();
  assert.equal(first?.damaged, undefined);
  assert.match(second?.damaged ?? '', /0000000002\.manifest/);
  await assert.rejects(store.sweep(), refused);
  await store.removeSnapshot(testJob, 2);
  assert.equal((await store.sweep()).interrupted, false);
});

test('R19 verification names pack, offset, chunk and streams, and the next checkpoint mends the damage', async () => {
  using scratch = scratchDirectory();
  const shared = randomBytes(200_000);
  const seed = Date.now();
  await fc.assert(
    fc.asyncProperty(fc.double({ min: 0, max: 0.99, noNaN: true }), fc.nat(7), async (share, bit) => {
      using inner = scratchDirectory(scratch.path);
      await using store = await Store.open(inner.options);
      await takeSnapshot(store, { memory: shared, small: shared.subarray(0, 5000) });
      const pack = onlyFile(join(inner.options.directory, 'packs'));
      const bytes = readFileSync(pack);
      const at = 64 + Math.floor(share * 199_000);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
      writeFileSync(pack, bytes);
      const { damage } = await store.verify(testJob, 1);
      assert.ok(damage.length >= 1);
      for (const item of damage) {
        assert.equal(item.code, 'chunk-damaged');
        assert.equal(item.file, pack);
        assert.ok(item.offset !== undefined && item.length !== undefined);
        assert.ok(item.offset <= at && at < item.offset + item.length);
        assert.ok(item.streams?.includes('unit/memory') || item.streams?.includes('unit/small'));
      }
      await assert.rejects(readSnapshot(store, 1), { class: 'permanent', code: 'chunk-damaged' });
      const again = await takeSnapshot(store, { memory: shared, small: shared.subarray(0, 5000) });
      assert.ok(again.storedBytes > 0);
      assert.deepEqual((await store.verify(testJob, 1)).damage, []);
      assert.deepEqual(Buffer.from((await readSnapshot(store, 1))['memory'] ?? []), shared);
    }),
    { numRuns: 10, seed },
  );
});

test('damage that was found is remembered when the store is opened again', async () => {
  using scratch = scratchDirectory();
  const noise = randomBytes(100_000);
  {
    await using store = await Store.open(scratch.options);
    await takeSnapshot(store, { noise });
    const pack = onlyFile(join(scratch.options.directory, 'packs'));
    const bytes = readFileSync(pack);
    bytes[100] = ~(bytes[100] ?? 0);
    writeFileSync(pack, bytes);
    assert.equal((await store.verify(testJob, 1)).damage.length, 2);
  }
  await using store = await Store.open(scratch.options);
  assert.equal((await store.verify(testJob, 1)).damage.length, 2);
  await takeSnapshot(store, { noise });
  assert.deepEqual((await store.verify(testJob, 1)).damage, []);
  await store.removeSnapshot(testJob, 1);
  await store.sweep();
  assert.deepEqual((await store.verify(testJob, 2)).damage, []);
});

test('R19 a pack that was cut or is gone while the store is open is named before anything is read', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const content = randomBytes(100_000);
  await takeSnapshot(store, { content });
  const path = onlyFile(join(scratch.options.directory, 'packs'));
  const list = (await store.readManifest(testJob, 1)).units[0]?.images[0]?.content.chunks as ChunkList;
  const good = readFileSync(path);
  store.resolve([list]);
  const refuses = (what: string): void => {
    assert.throws(() => store.resolve([list]), { class: 'permanent', code: 'pack-damaged' }, what);
    try {
      store.resolve([list]);
    } catch (error) {
      assertNamed(error, path, ['pack-damaged']);
    }
  };
  // Only the directory at its end is missing: the chunks could still be read.
  truncateSync(path, good.length - 1);
  refuses('cut by a byte');
  truncateSync(path, 0);
  refuses('emptied');
  unlinkSync(path);
  refuses('gone');
  const { damage } = await store.verify(testJob, 1);
  assert.ok(damage.some(({ code, file }) => code === 'pack-damaged' && file === path));
  writeFileSync(path, good);
  assert.deepEqual((await readSnapshot(store, 1))['content'], new Uint8Array(content));
});

test('R19 a pack that was cut or is gone keeps nobody from opening the store; what needed it is named', async () => {
  using scratch = scratchDirectory();
  const [first, second] = [randomBytes(100_000), randomBytes(100_000)];
  let pack: string;
  {
    await using store = await Store.open(scratch.options);
    await takeSnapshot(store, { first });
    pack = onlyFile(join(scratch.options.directory, 'packs'));
    await takeSnapshot(store, { second });
  }
  truncateSync(pack, 1000);
  await using store = await Store.open(scratch.options);
  assert.equal(store.statistics().damagedPacks[0]?.file, pack.slice(-37));
  const { damage } = await store.verify(testJob, 1);
  assert.deepEqual(new Set(damage.map(({ code }) => code)), new Set(['pack-damaged', 'chunk-missing']));
  assert.equal(damage[0]?.file, pack);
  assert.ok(damage.at(-1)?.streams?.includes('unit/first'));
  await assert.rejects(readSnapshot(store, 1), {
    class: 'permanent',
    code: 'chunk-missing',
    lines: [`damaged pack: ${pack}`],
  });
  assert.deepEqual((await store.verify(testJob, 2)).damage, []);
  await takeSnapshot(store, { first });
  assert.deepEqual((await store.verify(testJob, 1)).damage, []);
  await store.sweep();
  assert.deepEqual(store.statistics().damagedPacks, []);
  for (const sequence of [1, 2, 3]) assert.deepEqual((await store.verify(testJob, sequence)).damage, []);
});
