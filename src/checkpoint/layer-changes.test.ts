import assert from 'node:assert/strict';
import test from 'node:test';
import type { ScannedEntry } from './layer-scan.ts';
import { filesToRead, type KnownFile } from './layer-changes.ts';

const second = 1_000_000_000n;
const now = 1_800_000_000n * second;

const entry: ScannedEntry = {
  path: 'var/data',
  type: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeNs: String(now - second),
  ctimeNs: String(now - second),
  ino: 12,
  size: 100,
};

const known: KnownFile = {
  ino: 12,
  size: 100,
  mtimeNs: entry.mtimeNs,
  ctimeNs: entry.ctimeNs as string,
  startedNs: String(now),
  content: { size: 100, inline: new Uint8Array(100) } as unknown as KnownFile['content'],
};

function read(e: ScannedEntry, k: KnownFile | undefined, mapped: string[] = []): string[] {
  return filesToRead([e], new Map(k === undefined ? [] : [[e.path, k]]), new Set(mapped));
}

test('R09 an unchanged file is not read again', () => {
  assert.deepEqual(read(entry, known), []);
});

test('R09 a file is read when it is new, or when inode, size or a time differ', () => {
  assert.deepEqual(read(entry, undefined), ['var/data']);
  for (const change of [{ ino: 13 }, { size: 101 }, { mtimeNs: String(now) }, { ctimeNs: String(now) }])
    assert.deepEqual(read({ ...entry, ...change }, known), ['var/data'], JSON.stringify(change));
});

test('R09 a file that changed within the clock grain before it was read is read again', () => {
  const startedNs = String(BigInt(known.ctimeNs) + 19_000_000n);
  assert.deepEqual(read(entry, { ...known, startedNs }), ['var/data']);
});

test('R09 a file that is mapped shared and writable is read again', () => {
  assert.deepEqual(read(entry, known, ['var/data']), ['var/data']);
});

test('R09 only regular files have content to read', () => {
  assert.deepEqual(read({ ...entry, type: 'fifo' }, undefined), []);
});
