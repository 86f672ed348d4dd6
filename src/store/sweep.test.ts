import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { readSnapshot, scratchDirectory, storeStreams, takeSnapshot, testJob } from './scratch-store.ts';
import { Store } from './store.ts';

const chunk = 65536;

test('H05 a sweep keeps exactly what the remaining snapshots need', async () => {
  using scratch = scratchDirectory();
  const pool = Array.from({ length: 12 }, () => randomBytes(chunk));
  const seed = Date.now();
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uniqueArray(fc.nat(pool.length - 1), { minLength: 1, maxLength: 6 }), {
        minLength: 1,
        maxLength: 6,
      }),
      fc.nat(63),
      async (contents, removed) => {
        using inner = scratchDirectory(scratch.path);
        await using store = await Store.open(inner.options);
        const streams = contents.map((parts) => Buffer.concat(parts.map((i) => pool[i] ?? Buffer.alloc(0))));
        for (const memory of streams) await takeSnapshot(store, { memory });
        const kept = streams.map((_, i) => i).filter((i) => ((removed >> i) & 1) === 0);
        for (const i of streams.keys()) if (!kept.includes(i)) await store.removeSnapshot(testJob, i + 1);
        const report = await store.sweep();
        assert.equal(report.interrupted, false);
        const needed = new Set(kept.flatMap((i) => contents[i] ?? []));
        const { packBytes, packs } = store.statistics();
        assert.equal(readdirSync(join(inner.options.directory, 'packs')).length, packs);
        // At most half of a pack may be dead, and headers and directories come on top.
        assert.ok(
          packBytes <= needed.size * chunk * 2 + packs * 1000,
          `${packBytes} for ${needed.size} chunks`,
        );
        assert.ok(packBytes >= needed.size * chunk);
        if (needed.size === 0) assert.equal(packs, 0);
        await store.rebuildIndex();
        for (const i of kept) {
          assert.deepEqual(Buffer.from((await readSnapshot(store, i + 1))['memory'] ?? []), streams[i]);
          assert.deepEqual((await store.verify(testJob, i + 1)).damage, []);
        }
        const again = await takeSnapshot(store, { memory: Buffer.concat(pool) });
        const dropped = pool.length - needed.size;
        assert.ok(again.storedBytes <= dropped * chunk + 4096, 'living chunks are known');
        assert.deepEqual((await store.verify(testJob, again.sequence)).damage, []);
      },
    ),
    { numRuns: 12, seed },
  );
});

test('many small packs become one', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const all: Buffer[] = [];
  for (let i = 0; i < 16; i++) {
    all.push(randomBytes(10_000));
    await takeSnapshot(store, { part: all.at(-1) ?? Buffer.alloc(0) });
  }
  assert.equal(store.statistics().packs, 16);
  const report = await store.sweep();
  assert.equal(report.repackedPacks, 16);
  assert.equal(store.statistics().packs, 1);
  for (const [i, part] of all.entries())
    assert.deepEqual(Buffer.from((await readSnapshot(store, i + 1))['part'] ?? []), part);
  assert.equal((await store.sweep()).repackedPacks, 0);
});

test('a sweep gives way to a checkpoint and takes nothing that it relies on', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const noise = randomBytes(500_000);
  await takeSnapshot(store, { noise });
  await store.removeSnapshot(testJob, 1);
  const writer = store.begin(testJob, 2);
  const manifest = storeStreams(writer, { noise });
  assert.equal((await store.sweep()).interrupted, true);
  const sweeping = store.sweep();
  await writer.publish(manifest);
  await sweeping;
  assert.deepEqual((await store.verify(testJob, 2)).damage, []);
  assert.equal((await store.sweep()).interrupted, false);
  assert.deepEqual((await store.verify(testJob, 2)).damage, []);
});

test('a checkpoint that begins at any moment of a sweep is complete', async () => {
  const noise = randomBytes(700_000);
  const kept = randomBytes(80_000);
  for (let turns = 0; turns < 24; turns += 2) {
    using scratch = scratchDirectory();
    await using store = await Store.open(scratch.options);
    await takeSnapshot(store, { noise, kept });
    await takeSnapshot(store, { kept });
    await store.removeSnapshot(testJob, 1);
    const sweeping = store.sweep();
    for (let i = 0; i < turns; i++) await new Promise(setImmediate);
    await using writer = store.begin(testJob, 3);
    const manifest = storeStreams(writer, { noise });
    await sweeping;
    await writer.publish(manifest);
    for (const sequence of [2, 3]) assert.deepEqual((await store.verify(testJob, sequence)).damage, []);
    assert.deepEqual(readdirSync(join(scratch.options.directory, 'incoming')), []);
  }
});

test('R23 packs that a restart reads stay where they are while it is pinned', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const kept = randomBytes(80_000);
  await takeSnapshot(store, { kept, gone: randomBytes(700_000) });
  await takeSnapshot(store, { kept });
  await store.removeSnapshot(testJob, 1);
  const packs = readdirSync(join(scratch.options.directory, 'packs'));
  {
    using _pin = store.pin(testJob, 2);
    assert.deepEqual(await store.sweep(), {
      removedPacks: 0,
      repackedPacks: 0,
      freedBytes: 0,
      interrupted: false,
    });
    assert.deepEqual(readdirSync(join(scratch.options.directory, 'packs')), packs);
  }
  const report = await store.sweep();
  assert.equal(report.repackedPacks, 1);
  assert.ok(report.freedBytes > 600_000);
});

test('a sweep stops when it is told to, and leaves nothing half done', async () => {
  using scratch = scratchDirectory();
  await using store = await Store.open(scratch.options);
  const kept = randomBytes(80_000);
  await takeSnapshot(store, { kept, gone: randomBytes(700_000) });
  await takeSnapshot(store, { kept });
  await store.removeSnapshot(testJob, 1);
  await assert.rejects(store.sweep({ signal: AbortSignal.abort(new Error('enough')) }), /enough/);
  assert.deepEqual(readdirSync(join(scratch.options.directory, 'incoming')), []);
  assert.deepEqual((await store.verify(testJob, 2)).damage, []);
  assert.equal((await store.sweep()).repackedPacks, 1);
});
