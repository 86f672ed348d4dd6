import { type BigIntStats, type Dirent, lstatSync, readdirSync, readlinkSync } from 'node:fs';
import { systemCode } from '../errors.ts';
import { deviceParts, getAttribute, listAttributes } from '../linux/file.ts';
import type { LayerEntry } from '../store/manifest.ts';

/** A file system entry found by a scan; regular files have no content yet. */
export type ScannedEntry = Omit<LayerEntry, 'content'>;

/**
 * Attributes that overlayfs keeps for itself and that mean nothing for a copy of the layer: where a file was copied up from, and
 * that a directory holds such files. Whiteouts, opaque directories and redirects do matter.
 */
const overlayOnly = new Set(['origin', 'impure', 'nlink', 'upper', 'protattr', 'uuid']);

/**
 * Lists a directory (as `.`) and everything below it, parents before children, in a stable order.
 *
 * Names are bytes to the kernel: paths are given as latin1 strings, one character for each byte. A file that vanishes
 * while the scan runs is left out.
 */
export function scanLayer(root: string): ScannedEntry[] {
  const found: ScannedEntry[] = [];
  const firstPath = new Map<string, string>();
  const base = Buffer.from(root, 'utf8').toString('latin1');
  const own = describe('');
  // The directory itself: the root of an overlay has its owner and mode.
  if (own !== undefined) found.push({ ...own, path: '.' });
  walk('');
  return found;

  function walk(directory: string): void {
    let children: Dirent<Buffer>[];
    try {
      children = readdirSync(bytesOfPath(join(base, directory)), { encoding: 'buffer', withFileTypes: true });
    } catch (error) {
      if (isGone(error)) return;
      throw error;
    }
    const names = children.map((child) => child.name.toString('latin1')).sort();
    for (const name of names) {
      const path = directory === '' ? name : `${directory}/${name}`;
      const entry = describe(path);
      if (entry === undefined) continue;
      found.push(entry);
      if (entry.type === 'directory') walk(path);
    }
  }

  function describe(path: string): ScannedEntry | undefined {
    const full = join(base, path);
    let stat: BigIntStats;
    try {
      stat = lstatSync(bytesOfPath(full), { bigint: true });
      const entry = common(path, stat);
      if (stat.nlink > 1n && entry.type !== 'directory') {
        const key = `${stat.dev}:${stat.ino}`;
        const first = firstPath.get(key);
        if (first !== undefined) return { ...entry, type: 'hardlink', target: first };
        firstPath.set(key, path);
      }
      if (entry.type === 'symlink')
        entry.target = readlinkSync(bytesOfPath(full), { encoding: 'buffer' }).toString('latin1');
      const attributes = attributesOf(full, entry.type);
      if (attributes.length > 0) entry.xattrs = attributes;
      return entry;
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }
}

/** Whether what was there a moment ago is something else now. */
function isGone(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '');
}

function join(base: string, path: string): string {
  return path === '' ? base : `${base}/${path}`;
}

/** The bytes of a latin1 path. */
export function bytesOfPath(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}

function common(path: string, stat: BigIntStats): ScannedEntry {
  const type = typeOf(stat);
  const entry: ScannedEntry = {
    path,
    type,
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtimeNs: String(stat.mtimeNs),
    ctimeNs: String(stat.ctimeNs),
    ino: Number(stat.ino),
    size: Number(stat.size),
  };
  if (type === 'char' || type === 'block') entry.rdev = Number(stat.rdev);
  return entry;
}

function typeOf(stat: BigIntStats): ScannedEntry['type'] {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'directory';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isFIFO()) return 'fifo';
  if (stat.isSocket()) return 'socket';
  if (stat.isBlockDevice()) return 'block';
  const { major, minor } = deviceParts(Number(stat.rdev));
  return major === 0 && minor === 0 ? 'whiteout' : 'char';
}

function attributesOf(path: string, type: ScannedEntry['type']): { name: string; valueBase64: string }[] {
  if (type === 'whiteout') return [];
  const bytes = bytesOfPath(path);
  const list: { name: string; valueBase64: string }[] = [];
  for (const name of listAttributes(bytes)) {
    if (name.startsWith('system.')) continue;
    const overlay = /^(?:trusted|user)\.overlay\.(.*)$/.exec(name);
    if (overlay?.[1] !== undefined && overlayOnly.has(overlay[1])) continue;
    const value = getAttribute(bytes, name);
    if (value !== undefined) list.push({ name, valueBase64: value.toString('base64') });
  }
  return list;
}
