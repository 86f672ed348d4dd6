import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MNT_DETACH, mount, unmount } from '../linux/file.ts';
import { scratchDirectory, takeSnapshot, testJob } from './scratch-store.ts';
import { Store, type StoreOptions } from './store.ts';

test('R19 a full file system gives store-full, and never damages an older snapshot', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('mounting a small tmpfs needs root');
  await onSmallFileSystem(async (small, options) => {
    await using store = await Store.open(options);
    await takeSnapshot(store, { noise: randomBytes(1024 * 1024) });
    const full = { class: 'temporary', code: 'store-full' };
    await assert.rejects(takeSnapshot(store, { noise: randomBytes(8 * 1024 * 1024) }), full);
    const intact = async (): Promise<void> => {
      assert.deepEqual(readdirSync(join(options.directory, 'incoming')), []);
      assert.equal(readdirSync(join(options.directory, 'packs')).length, 1);
      assert.deepEqual((await store.verify(testJob, 1)).damage, []);
      assert.equal((await store.snapshots()).length, 1);
    };
    await intact();

    // Leave a few pages, so that it fails at different steps: header, segment, directory, manifest, its directory entry.
    const ballast = join(small, 'ballast');
    let failures = 0;
    for (let pages = 0; pages < 40; pages++) {
      const { bavail, bsize } = statfsSync(small);
      writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail - pages) * bsize));
      const outcome = await takeSnapshot(store, { noise: randomBytes(90_000) }).catch(
        (error: unknown) => error,
      );
      rmSync(ballast);
      if (!(outcome instanceof Error)) {
        await store.removeSnapshot(testJob, await newest(store));
        await store.sweep();
      } else {
        assert.equal((outcome as { code?: string }).code, 'store-full', String(outcome));
        failures++;
      }
      await intact();
    }
    assert.ok(failures > 20 && failures < 40, `${failures} failures`);
    await takeSnapshot(store, { noise: randomBytes(1024 * 1024) });
    assert.deepEqual((await store.verify(testJob, await newest(store))).damage, []);
  });
});

test('R19 a store on a full file system opens, and removing snapshots frees space there', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('mounting a small tmpfs needs root');
  await onSmallFileSystem(async (small, options) => {
    const kept = randomBytes(300_000);
    {
      await using store = await Store.open(options);
      await takeSnapshot(store, { kept, gone: randomBytes(1024 * 1024) });
      await takeSnapshot(store, { kept });
      await takeSnapshot(store, { gone: randomBytes(1024 * 1024) });
    }
    const { bavail, bsize } = statfsSync(small);
    writeFileSync(join(small, 'ballast'), Buffer.alloc(bavail * bsize));
    assert.equal(statfsSync(small).bavail, 0);
    await using store = await Store.open(options);
    await store.removeSnapshot(testJob, 3);
    await store.removeSnapshot(testJob, 1);
    const first = await store.sweep();
    assert.equal(first.removedPacks, 1);
    const second = await store.sweep();
    assert.equal(first.repackedPacks + second.repackedPacks, 1);
    assert.ok(store.statistics().packBytes < 310_000);
    assert.deepEqual((await store.verify(testJob, 2)).damage, []);
    assert.equal(await store.nextSequence(testJob), 4);
    await takeSnapshot(store, { more: randomBytes(1024 * 1024) });
  });
});

async function newest(store: Store): Promise<number> {
  return (await store.snapshots(testJob)).at(-1)?.sequence ?? 0;
}

async function onSmallFileSystem(
  use: (small: string, options: StoreOptions) => Promise<void>,
): Promise<void> {
  using scratch = scratchDirectory();
  const small = join(scratch.path, 'small');
  mkdirSync(small);
  mount('cairn-store-test', small, 'tmpfs', 0, 'size=6m,mode=0700');
  try {
    await use(small, { directory: join(small, 'store'), keys: join(small, 'keys') });
  } finally {
    unmount(small, MNT_DETACH);
  }
}
