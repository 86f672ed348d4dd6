import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { readStat } from '../linux/process.ts';
import { Program } from '../linux/spawn.ts';
import { setTimeout as delay } from 'node:timers/promises';
import { endLeftoverCriu, leftoverCriu } from './leftovers.ts';

/** A child that has stopped itself, as CRIU's do while it tries out the kernel, with a command line like CRIU's. */
async function stopped(...words: string[]): Promise<Program> {
  const program = new Program(['sh', '-c', 'kill -STOP $$', ...words]);
  while (readStat(program.pid ?? 0)?.state !== 'T') await delay(2);
  return program;
}

test('H08 what a killed CRIU leaves behind is known by its directory and ended, and nothing else is', async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-'));
  t.after(() => rmSync(directory, { recursive: true }));
  await using left = await stopped('criu', 'restore', '--images-dir', directory);
  await using elsewhere = await stopped('criu', 'restore', '--images-dir', `${directory}2`);
  await using other = await stopped('criu', 'dump', '--images-dir', directory);
  assert.deepEqual(
    leftoverCriu(directory, ['restore']).map(({ pid }) => pid),
    [left.pid],
  );
  endLeftoverCriu(directory, ['restore']);
  assert.equal((await left.ended).signal, 'SIGKILL');
  assert.ok(elsewhere.running);
  assert.ok(other.running);
});
