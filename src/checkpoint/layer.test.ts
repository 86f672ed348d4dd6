import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { linkSync, lstatSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { makeNode, setAttribute, setTimes } from '../linux/file.ts';
import type { ChunkReader } from '../store/chunk-reader.ts';
import { type RestoredEntry, restoreLayer } from './layer-restore.ts';
import { scanLayer } from './layer-scan.ts';

const isRoot = process.getuid?.() === 0;
const noReader = {} as ChunkReader;

function scratch(): { directory: string } & Disposable {
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-layer-'));
  return { directory, [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) };
}

/** Scan of a directory with the contents inline, as a manifest would bring them back. */
function withContents(root: string): RestoredEntry[] {
  return scanLayer(root).map((entry) =>
    entry.type === 'file'
      ? {
          ...entry,
          content: {
            size: entry.size,
            inline: readFileSync(Buffer.from(`${root}/${entry.path}`, 'latin1')),
          },
        }
      : entry,
  );
}

/** What must be the same before and after; inode and ctime cannot be. */
function comparable(root: string): unknown[] {
  return scanLayer(root).map(({ ino: _ino, ctimeNs: _ctime, size, type, ...rest }) => ({
    ...rest,
    type,
    size: type === 'directory' ? 0 : size,
  }));
}

test('R09 a writable layer comes back with owners, modes, times, links, attributes and odd names', (t) => {
  if (!isRoot) return t.skip('needs root for owners and device nodes');
  using from = scratch();
  using to = scratch();
  const at = (name: string) => path.join(from.directory, name);
  mkdirSync(at('a/b'), { recursive: true });
  writeFileSync(at('a/b/plain'), 'hello', { mode: 0o4755 });
  execFileSync('chown', ['33:44', at('a/b/plain')]);
  execFileSync('chmod', ['4755', at('a/b/plain')]);
  linkSync(at('a/b/plain'), at('a/second name'));
  symlinkSync('../nowhere', at('a/link'));
  makeNode(at('a/fifo'), 0o010640);
  makeNode(at('a/gone'), 0o020000, 0);
  setAttribute(at('a'), 'trusted.overlay.opaque', Buffer.from('y'));
  setAttribute(at('a/b'), 'trusted.overlay.origin', Buffer.from('of no use elsewhere'));
  setAttribute(at('a/b/plain'), 'user.note', Buffer.from([0, 255, 1]));
  writeFileSync(Buffer.concat([Buffer.from(`${from.directory}/`), Buffer.from([0xff, 0xfe])]), 'not UTF-8');
  setTimes(at('a/b/plain'), 1_700_000_000_123_456_789n, 1_700_000_000_123_456_789n);
  setTimes(at('a/b'), 1_600_000_000_000_000_001n, 1_600_000_000_000_000_001n);

  execFileSync('chmod', ['1751', from.directory]);

  restoreLayer(to.directory, withContents(from.directory), noReader);

  assert.equal(statSync(to.directory).mode & 0o7777, 0o1751);

  assert.deepEqual(comparable(to.directory), comparable(from.directory));
  const restored = path.join(to.directory, 'a/b/plain');
  assert.equal(readFileSync(restored, 'utf8'), 'hello');
  assert.equal(statSync(restored, { bigint: true }).mtimeNs, 1_700_000_000_123_456_789n);
  assert.equal(statSync(restored).ino, statSync(path.join(to.directory, 'a/second name')).ino);
  assert.equal(lstatSync(path.join(to.directory, 'a/gone')).rdev, 0);
  const names = scanLayer(to.directory).flatMap(({ xattrs = [] }) => xattrs.map(({ name }) => name));
  assert.deepEqual(names.sort(), ['trusted.overlay.opaque', 'user.note']);
});

test('R09 a file that is still there keeps its inode and gets the content of the snapshot; the old layer stays as it was', (t) => {
  if (!isRoot) return t.skip('needs root for owners');
  using before = scratch();
  using to = scratch();
  const at = (name: string) => path.join(before.directory, name);
  const large = Buffer.alloc(300_000, 'x');
  writeFileSync(at('changed'), large);
  writeFileSync(at('same'), 'same');
  writeFileSync(at('replaced'), 'first');
  const entries = withContents(before.directory);
  const inodes = new Map(scanLayer(before.directory).map(({ path: name, ino }) => [name, ino]));
  const changed = Buffer.concat([large.subarray(0, 200_000), Buffer.from('changed since')]);
  writeFileSync(at('changed'), changed);
  // Another file under the same name, while the first one's inode cannot be taken again.
  writeFileSync(at('other'), 'second');
  renameSync(at('other'), at('replaced'));

  restoreLayer(to.directory, entries, noReader, before.directory);

  assert.deepEqual(readFileSync(path.join(to.directory, 'changed')), large);
  assert.equal(readFileSync(path.join(to.directory, 'replaced'), 'utf8'), 'first');
  for (const name of ['changed', 'same'])
    assert.equal(statSync(path.join(to.directory, name)).ino, inodes.get(name), name);
  assert.deepEqual(readFileSync(at('changed')), changed);
  assert.equal(readFileSync(at('same'), 'utf8'), 'same');
  assert.equal(readFileSync(at('replaced'), 'utf8'), 'second');
  assert.deepEqual(
    scanLayer(before.directory)
      .map(({ path: name }) => name)
      .sort(),
    ['.', 'changed', 'replaced', 'same'],
  );
});

test('M01 a layer with a path that leaves its directory is refused', () => {
  using to = scratch();
  for (const bad of ['../x', 'a/../../x', '/etc/x', 'a//b', ''])
    assert.throws(
      () =>
        restoreLayer(
          to.directory,
          [
            {
              path: bad,
              type: 'directory',
              mode: 0o755,
              uid: 0,
              gid: 0,
              mtimeNs: '0',
              ino: 1,
              ctimeNs: '0',
              size: 0,
            },
          ],
          noReader,
        ),
      { code: 'layer-damaged' },
      bad,
    );
});
