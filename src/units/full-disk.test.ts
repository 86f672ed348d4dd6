import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { MNT_DETACH, mount, unmount } from '../linux/file.ts';
import { parseLogLine } from './log-reader.ts';
import { UnitLog } from './unit-log.ts';

test('R19 a log on a full disk loses lines, says how many, and goes on with whole lines', (t) => {
  if (process.getuid?.() !== 0) return t.skip('mounting a small tmpfs needs root');
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-full-'));
  mount('cairn-full-test', directory, 'tmpfs', 0, 'size=256k,mode=0700');
  try {
    const logs = path.join(directory, 'logs');
    mkdirSync(logs);
    using log = new UnitLog(logs, { maxBytes: 2 ** 20, files: 3 });
    log.write('stdout', Buffer.from('before\n'));
    const { bavail, bsize } = statfsSync(directory);
    writeFileSync(path.join(directory, 'ballast'), Buffer.alloc(bavail * bsize));
    // The rest of the page of the log is filled, then nothing fits.
    for (let i = 0; i < 100; i++) log.write('stdout', Buffer.from(`line ${i} ${'x'.repeat(100)}\n`));
    rmSync(path.join(directory, 'ballast'));
    log.write('stdout', Buffer.from('after\n'));
    const lines = readFileSync(path.join(logs, 'unit.log'), 'utf8').trimEnd().split('\n');
    const texts = lines.map((line) => parseLogLine(line)?.text);
    assert.ok(!texts.includes(undefined), `not all lines are whole: ${lines.join('\n')}`);
    const kept = texts.filter((text) => text?.startsWith('line ')).length;
    assert.ok(kept > 5 && kept < 95, `${kept} lines were kept`);
    assert.deepEqual(texts.slice(-2), [
      `cairn: the disk was full: ${100 - kept} lines of output are lost`,
      'after',
    ]);
    assert.equal(texts[0], 'before');
  } finally {
    unmount(directory, MNT_DETACH);
    rmSync(directory, { recursive: true, force: true });
  }
});
