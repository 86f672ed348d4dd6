import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readSnapshot, scratchDirectory, takeSnapshot, testJob } from './scratch-store.ts';
import { Store, type StoreOptions } from './store.ts';

const program = fileURLToPath(new URL('./crashing-writer.ts', import.meta.url));

function crash(options: StoreOptions, action: string, step: string, occurrence = 1): void {
  const result = spawnSync(
    process.execPath,
    [program, JSON.stringify(options), action, step, String(occurrence)],
    { encoding: 'utf8', timeout: 30_000 },
  );
  assert.equal(result.signal, 'SIGKILL', `${step} was not reached: ${result.stderr}`);
}

const publishSteps = [
  ['write', 'unsealed'],
  ['write', 'sealed'],
  ['publish', 'pack rename'],
  ['publish', 'packs sync'],
  ['publish', 'manifest'],
  ['publish', 'manifest written'],
  ['publish', 'manifest synced'],
  ['publish', 'manifest renamed'],
  ['publish', 'published'],
] as const;

test('R19 a writer killed at any step of a publication harms no older snapshot; the new one is complete or absent', async () => {
  using scratch = scratchDirectory();
  const noise = randomBytes(300_000);
  {
    await using store = await Store.open(scratch.options);
    await takeSnapshot(store, { noise });
  }
  for (const [action, step] of publishSteps) {
    crash(scratch.options, action, step);
    await using store = await Store.open(scratch.options);
    assert.deepEqual(readdirSync(join(scratch.options.directory, 'incoming')), [], step);
    const present = await store.snapshots(testJob);
    const expected = step === 'manifest renamed' || step === 'published' ? 2 : 1;
    assert.equal(present.length, expected, step);
    const directory = join(scratch.options.directory, 'snapshots', testJob);
    assert.deepEqual(
      readdirSync(directory).filter((name) => name.endsWith('.tmp')),
      [],
      step,
    );
    for (const { sequence, damaged } of present) {
      assert.equal(damaged, undefined);
      assert.deepEqual((await store.verify(testJob, sequence)).damage, [], step);
    }
    assert.deepEqual(Buffer.from((await readSnapshot(store, 1))['noise'] ?? []), noise);
    for (const { sequence } of present) if (sequence > 1) await store.removeSnapshot(testJob, sequence);
    await store.sweep();
    assert.equal(store.statistics().packs, 1, step);
  }
});

test('R19 a sweep killed at any step loses nothing that a snapshot needs', async () => {
  for (const [step, occurrence] of [
    ['sweep rename', 1],
    ['sweep remove', 1],
    ['sweep remove', 2],
  ] as const) {
    using scratch = scratchDirectory();
    const kept = randomBytes(100_000);
    {
      await using store = await Store.open(scratch.options);
      await takeSnapshot(store, { kept, gone: randomBytes(600_000) });
      await takeSnapshot(store, { kept });
      await takeSnapshot(store, { gone: randomBytes(100_000) });
      await store.removeSnapshot(testJob, 1);
      await store.removeSnapshot(testJob, 3);
    }
    crash(scratch.options, 'sweep', step, occurrence);
    await using store = await Store.open(scratch.options);
    assert.deepEqual((await store.verify(testJob, 2)).damage, [], step);
    await store.sweep();
    assert.equal(store.statistics().packs, 1, step);
    assert.ok(store.statistics().packBytes < 110_000, step);
    assert.deepEqual((await store.verify(testJob, 2)).damage, [], step);
    assert.deepEqual(Buffer.from((await readSnapshot(store, 2))['kept'] ?? []), kept);
  }
});
