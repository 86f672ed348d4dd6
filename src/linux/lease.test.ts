import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { WriteLease } from './lease.ts';
import { Program } from './spawn.ts';

test('who opens a leased file waits, and then reads what was written meanwhile', async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = path.join(directory, 'leased');
  const fd = openSync(file, 'w', 0o600);
  const lease = new WriteLease(fd);
  assert.ok(!lease.wanted);
  await using reader = new Program(['cat', file]);
  const deadline = performance.now() + 10_000;
  while (!lease.wanted) {
    assert.ok(performance.now() < deadline, 'nobody came');
    await delay(1);
  }
  assert.ok(reader.running);
  writeSync(fd, 'written meanwhile\n');
  lease.release();
  assert.deepEqual((await reader.ended).lines, ['written meanwhile']);
  closeSync(fd);
  assert.equal(readFileSync(file, 'utf8'), 'written meanwhile\n');
});

test('a lease needs the file for itself', (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = path.join(directory, 'leased');
  const other = openSync(file, 'w', 0o600);
  const fd = openSync(file, 'r+');
  assert.throws(() => new WriteLease(fd), { code: 'EAGAIN' });
  closeSync(other);
  new WriteLease(fd).release();
  closeSync(fd);
});
