import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { systemCode } from '../errors.ts';
import type { CaptureMode, PortableStream, ReadFile, SharedCounter } from './capture-protocol.ts';
import { bytesOfPath } from './layer-scan.ts';

const blockBytes = 1024 * 1024;

/** Where content goes: cut into chunks and stored. */
export interface StreamSink {
  /** Appends a block; only the last one may be no multiple of 64 KiB. The view is reused afterwards. */
  push(bytes: Uint8Array): void;
  end(): PortableStream;
}

/** Never waits: what was a file may be a FIFO now. */
const readFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NOATIME | constants.O_NONBLOCK;
/** What is said of a path that is no file any more. */
const gone = new Set(['ENOENT', 'ELOOP', 'ENOTDIR', 'ENXIO']);

const buffer = Buffer.alloc(blockBytes);

/**
 * Reads files of a layer, taking turns with other workers through `next`. Files that vanish are left out: the next scan
 * will not list them either.
 */
export function readFiles(
  root: string,
  paths: readonly string[],
  next: SharedCounter,
  open: (mode: CaptureMode) => StreamSink,
  mode: CaptureMode,
  progress: (bytes: number) => void,
): ReadFile[] {
  const done: ReadFile[] = [];
  const base = Buffer.from(root, 'utf8').toString('latin1');
  for (;;) {
    const index = Atomics.add(next, 0, 1);
    const path = paths[index];
    // A negative counter is how the others are stopped.
    if (index < 0 || path === undefined) return done;
    const file = readFile(`${base}/${path}`, () => open(mode));
    if (file === undefined) continue;
    done.push({ index, ...file });
    progress(file.size);
  }
}

function readFile(path: string, open: () => StreamSink): Omit<ReadFile, 'index'> | undefined {
  const startedNs = nowNs();
  let fd: number;
  try {
    fd = openSync(bytesOfPath(path), readFlags);
  } catch (error) {
    if (gone.has(systemCode(error) ?? '')) return undefined;
    throw error;
  }
  try {
    const stat = fstatSync(fd, { bigint: true });
    if (!stat.isFile()) return undefined;
    const sink = open();
    let size = 0;
    for (;;) {
      const got = fill(fd, size);
      if (got > 0) sink.push(buffer.subarray(0, got));
      size += got;
      if (got < blockBytes) break;
    }
    return {
      startedNs: String(startedNs),
      ino: Number(stat.ino),
      size,
      mtimeNs: String(stat.mtimeNs),
      ctimeNs: String(stat.ctimeNs),
      content: sink.end(),
    };
  } finally {
    closeSync(fd);
  }
}

/** Fills the buffer from a position as far as the file goes. */
function fill(fd: number, position: number): number {
  let got = 0;
  while (got < blockBytes) {
    const n = readSync(fd, buffer, got, blockBytes - got, position + got);
    if (n === 0) break;
    got += n;
  }
  return got;
}

/** Wall clock, rounded down to a millisecond: too early is on the safe side. */
function nowNs(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}
