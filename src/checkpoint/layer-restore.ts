import { randomBytes } from 'node:crypto';
import {
  type BigIntStats,
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readSync,
  realpathSync,
  renameSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import {
  deviceNumber,
  getAttribute,
  listAttributes,
  makeNode,
  setAttribute,
  setTimes,
} from '../linux/file.ts';
import type { ChunkReader } from '../store/chunk-reader.ts';
import type { LayerEntry } from '../store/manifest.ts';
import { CairnError } from '../errors.ts';
import { bytesOfPath } from './layer-scan.ts';

/** An entry of a layer whose content is bytes that were few, or a list of a read plan. */
export type RestoredEntry = Omit<LayerEntry, 'content'> & {
  content?: { size: number; inline: Uint8Array } | { size: number; list: number };
};

const nodeTypes = {
  fifo: 0o010000,
  socket: 0o140000,
  char: 0o020000,
  block: 0o060000,
  whiteout: 0o020000,
} as const;
const blockBytes = 1024 * 1024;
const pieceBytes = 64 * 1024;

/**
 * Writes a layer into an empty directory: contents, owners, modes, attributes and times as they were. Entries come parents first, as
 * they were scanned.
 *
 * `before`: the layer that this one takes the place of. A file that is there under the same name with the inode number that the snapshot
 * knows keeps that inode: programs such as SQLite compare it with that of the file they have open. What `before` holds stays as it is.
 *
 * Throws `layer-damaged` (permanent) for a path that would leave the directory; a manifest is signed, but a layer is written as root.
 */
export function restoreLayer(
  root: string,
  entries: readonly RestoredEntry[],
  reader: ChunkReader,
  before?: string,
): void {
  const old = before === undefined ? undefined : Buffer.from(before, 'utf8').toString('latin1');
  const base = Buffer.from(root, 'utf8').toString('latin1');
  const buffer = Buffer.alloc(blockBytes);
  for (const entry of entries) {
    checkPath(entry.path);
    const path = `${base}/${entry.path}`;
    const kept = old !== undefined && entry.type === 'file' && keepInode(old, path, entry);
    create(base, path, entry, reader, buffer, kept);
    if (entry.type === 'hardlink') continue;
    lchownSync(bytesOfPath(path), entry.uid, entry.gid);
    // After the owner: changing that clears set-user-ID bits and file capabilities.
    if (entry.type !== 'symlink') chmodSync(bytesOfPath(path), entry.mode);
    for (const { name, valueBase64 } of entry.xattrs ?? [])
      setAttribute(bytesOfPath(path), name, Buffer.from(valueBase64, 'base64'));
  }
  // Last, and children before parents: every entry that is made changes the time of its directory.
  for (const entry of entries.toReversed()) {
    if (entry.type === 'hardlink') continue;
    const time = BigInt(entry.mtimeNs);
    setTimes(bytesOfPath(`${base}/${entry.path}`), time, time);
  }
}

function checkPath(path: string): void {
  if (path === '.') return;
  const parts = path.split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..') || path.includes('\0'))
    throw new CairnError('permanent', 'layer-damaged', `the layer holds the path ${JSON.stringify(path)}`);
}

function create(
  base: string,
  path: string,
  entry: RestoredEntry,
  reader: ChunkReader,
  buffer: Buffer,
  kept: boolean,
): void {
  const bytes = bytesOfPath(path);
  switch (entry.type) {
    case 'directory':
      if (entry.path !== '.') mkdirSync(bytes, { mode: 0o700 });
      return;
    case 'file':
      writeContent(bytes, entry, reader, buffer, kept);
      return;
    case 'symlink':
      symlinkSync(bytesOfPath(entry.target ?? ''), bytes);
      return;
    case 'hardlink':
      checkPath(entry.target ?? '');
      linkSync(bytesOfPath(`${base}/${entry.target}`), bytes);
      return;
    default: {
      const device = entry.type === 'whiteout' ? deviceNumber(0, 0) : (entry.rdev ?? 0);
      makeNode(bytes, nodeTypes[entry.type] | 0o600, device);
    }
  }
}

/** Zero runs stay holes; in a file that is kept, blocks that are right already are not written. */
function writeContent(
  path: Buffer,
  entry: RestoredEntry,
  reader: ChunkReader,
  buffer: Buffer,
  kept: boolean,
): void {
  const fd = openSync(path, kept ? 'r+' : 'wx', 0o600);
  const present = kept ? Buffer.alloc(blockBytes) : undefined;
  const write = (bytes: Uint8Array, position: number) => {
    if (present === undefined ? isZero(bytes) : holds(fd, present, bytes, position)) return;
    writeAll(fd, bytes, position);
  };
  try {
    const { content } = entry;
    if (content === undefined) return;
    if ('inline' in content) write(content.inline, 0);
    else
      for (let position = 0; position < content.size; ) {
        const got = reader.readRange(content.list, position, buffer);
        if (got === 0) break;
        for (let at = 0; at < got; at += pieceBytes)
          write(buffer.subarray(at, Math.min(at + pieceBytes, got)), position + at);
        position += got;
      }
    ftruncateSync(fd, content.size);
  } finally {
    closeSync(fd);
  }
}

/** Whether a file holds these bytes at a position. */
function holds(fd: number, room: Buffer, bytes: Uint8Array, position: number): boolean {
  const got = readSync(fd, room, 0, bytes.length, position);
  return got === bytes.length && room.compare(bytes, 0, bytes.length, 0, got) === 0;
}

/**
 * Gives the file of the old layer its new place too if it is the very file that the snapshot knows. If its content has changed since, a
 * copy takes its place in the old layer. Returns whether it was so.
 *
 * What the old layer holds was made by the unit: no symbolic link in it is followed.
 */
function keepInode(base: string, path: string, entry: RestoredEntry): boolean {
  const from = bytesOfPath(`${base}/${entry.path}`);
  const stat = lstatSync(from, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined || !stat.isFile() || stat.nlink !== 1n || Number(stat.ino) !== entry.ino)
    return false;
  const parent = entry.path.includes('/')
    ? `${base}/${entry.path.slice(0, entry.path.lastIndexOf('/'))}`
    : base;
  const real =
    realpathSync(bytesOfPath(base), { encoding: 'buffer' }).toString('latin1') + parent.slice(base.length);
  if (!realpathSync(bytesOfPath(parent), { encoding: 'buffer' }).equals(bytesOfPath(real))) return false;
  linkSync(from, bytesOfPath(path));
  const same = String(stat.ctimeNs) === entry.ctimeNs && Number(stat.size) === entry.size;
  if (!same) replaceByCopy(from, `${parent}/.cairn-${randomBytes(8).toString('hex')}`, stat);
  return true;
}

/** Puts a copy of a file in its place; `to`: a name that nobody can know. */
function replaceByCopy(from: Buffer, to: string, stat: BigIntStats): void {
  const copy = bytesOfPath(to);
  copyFileSync(from, copy, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  lchownSync(copy, Number(stat.uid), Number(stat.gid));
  chmodSync(copy, Number(stat.mode) & 0o7777);
  for (const name of listAttributes(from)) {
    const value = name.startsWith('system.') ? undefined : getAttribute(from, name);
    if (value !== undefined) setAttribute(copy, name, value);
  }
  setTimes(copy, stat.atimeNs, stat.mtimeNs);
  renameSync(copy, from);
}

const zeros = Buffer.alloc(pieceBytes);

function isZero(bytes: Uint8Array): boolean {
  return zeros.compare(bytes, 0, bytes.length, 0, bytes.length) === 0;
}

function writeAll(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(fd, bytes, done, bytes.length - done, position + done);
}
