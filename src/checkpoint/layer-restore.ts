import {
  chmodSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { deviceNumber, makeNode, setAttribute, setTimes } from '../linux/file.ts';
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

/**
 * Writes a layer into an empty directory: contents, owners, modes, attributes and times as they were. Entries come parents first, as
 * they were scanned.
 *
 * Throws `layer-damaged` (permanent) for a path that would leave the directory; a manifest is signed, but a layer is written as root.
 */
export function restoreLayer(root: string, entries: readonly RestoredEntry[], reader: ChunkReader): void {
  const base = Buffer.from(root, 'utf8').toString('latin1');
  const buffer = Buffer.alloc(blockBytes);
  for (const entry of entries) {
    checkPath(entry.path);
    const path = `${base}/${entry.path}`;
    create(base, path, entry, reader, buffer);
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

function create(base: string, path: string, entry: RestoredEntry, reader: ChunkReader, buffer: Buffer): void {
  const bytes = bytesOfPath(path);
  switch (entry.type) {
    case 'directory':
      if (entry.path !== '.') mkdirSync(bytes, { mode: 0o700 });
      return;
    case 'file':
      writeContent(bytes, entry, reader, buffer);
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

/** Zero runs stay holes. */
function writeContent(path: Buffer, entry: RestoredEntry, reader: ChunkReader, buffer: Buffer): void {
  const fd = openSync(path, 'wx', 0o600);
  try {
    const { content } = entry;
    if (content === undefined) return;
    if ('inline' in content) {
      writeAll(fd, content.inline, 0);
      return;
    }
    for (let position = 0; position < content.size; ) {
      const got = reader.readRange(content.list, position, buffer);
      if (got === 0) break;
      for (let at = 0; at < got; at += 65536) {
        const part = buffer.subarray(at, Math.min(at + 65536, got));
        if (!isZero(part)) writeAll(fd, part, position + at);
      }
      position += got;
    }
    ftruncateSync(fd, content.size);
  } finally {
    closeSync(fd);
  }
}

const zeros = Buffer.alloc(65536);

function isZero(bytes: Buffer): boolean {
  return zeros.compare(bytes, 0, bytes.length, 0, bytes.length) === 0;
}

function writeAll(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(fd, bytes, done, bytes.length - done, position + done);
}
