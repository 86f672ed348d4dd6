/** Images of a snapshot for a restore that does not wait for memory: small files now, pages on demand. */

import { closeSync, openSync, writeSync } from 'node:fs';
import path from 'node:path';
import { pagemapId } from '../criu/image-file.ts';
import {
  decodePagemap,
  encodePagemap,
  pageFlags,
  runFields,
  withoutLazyPages,
  withoutLongRuns,
} from '../criu/pagemap.ts';
import { LazyRanges } from '../criu/lazy-ranges.ts';
import { decodeMappings } from '../criu/messages.ts';
import { withoutLazyOwn } from '../criu/saved-mappings.ts';
import type { LazySource } from '../criu/lazy-server.ts';
import { CairnError } from '../errors.ts';
import type { SnapshotImages } from './restore-images.ts';

const pageSize = 4096;
const blockBytes = 1024 * 1024;

/** Where the pages of one process are in its pages file. */
interface ProcessPages {
  /** Name of the pages file in the snapshot. */
  file: string;
  /** Runs, ascending; `offsets[i]` is where run i begins in the file. */
  starts: Float64Array;
  pages: Float64Array;
  offsets: Float64Array;
  /** What is lazy of it: `[start, end] …`. */
  lazy: number[];
}

/** Pages of all processes of a snapshot by address; for one thread. */
export class LazyPages implements LazySource {
  readonly #images: SnapshotImages;
  readonly #processes: ReadonlyMap<number, ProcessPages>;
  /** Bytes that are to be brought later. */
  readonly lazyBytes: number;

  private constructor(
    images: SnapshotImages,
    processes: ReadonlyMap<number, ProcessPages>,
    lazyBytes: number,
  ) {
    this.#images = images;
    this.#processes = processes;
    this.lazyBytes = lazyBytes;
  }

  /**
   * Writes what CRIU wants as files into `directory`: every image, page maps without the lazy pages, and of the pages only those
   * that are not lazy. `sizes`: bytes of each image.
   */
  static write(images: SnapshotImages, sizes: ReadonlyMap<string, number>, directory: string): LazyPages {
    const processes = new Map<number, ProcessPages>();
    const written = new Set<string>();
    let lazyBytes = 0;
    for (const [name, size] of sizes) {
      const id = pagemapId(name);
      if (id?.kind !== 'process') continue;
      const saved = decodePagemap(readImage(images, name, size), name);
      const mappings = `mm-${id.id}.img`;
      const mappingsImage = readImage(images, mappings, sizes.get(mappings) ?? 0);
      const pagemap = { ...saved, runs: withoutLazyOwn(saved.runs, decodeMappings(mappingsImage, mappings)) };
      const file = `pages-${pagemap.pagesId}.img`;
      processes.set(id.id, locate(file, pagemap.runs));
      lazyBytes += writeEager(images, file, pagemap.runs, path.join(directory, file));
      const eager = encodePagemap({ ...pagemap, runs: withoutLongRuns(withoutLazyPages(pagemap.runs)) });
      writeFile(path.join(directory, name), (write) => write(eager));
      written.add(name).add(file);
    }
    for (const [name, size] of sizes)
      if (!written.has(name))
        writeFile(path.join(directory, name), (write) => copy(images, name, 0, size, write));
    return new LazyPages(images, processes, lazyBytes);
  }

  ranges(pid: number): LazyRanges {
    return new LazyRanges(this.#processes.get(pid)?.lazy);
  }

  read(pid: number, address: number, pages: number, into: Uint8Array): number {
    const process = this.#processes.get(pid);
    const run = process === undefined ? -1 : runAt(process, address);
    if (process === undefined || run < 0)
      throw new CairnError(
        'permanent',
        'page-unknown',
        `the snapshot has no page 0x${address.toString(16)} of process ${pid}`,
      );
    const skipped = (address - (process.starts[run] as number)) / pageSize;
    const given = Math.min(pages, (process.pages[run] as number) - skipped);
    const offset = (process.offsets[run] as number) + skipped * pageSize;
    const bytes = given * pageSize;
    if (this.#images.read(process.file, offset, into.subarray(0, bytes)) !== bytes)
      throw new CairnError('permanent', 'image-damaged', `${process.file} of the snapshot ends too early`);
    return given;
  }
}

function locate(file: string, runs: Float64Array<ArrayBufferLike>): ProcessPages {
  const count = runs.length / runFields;
  const found: ProcessPages = {
    file,
    starts: new Float64Array(count),
    pages: new Float64Array(count),
    offsets: new Float64Array(count),
    lazy: [],
  };
  let offset = 0;
  for (let i = 0; i < count; i++) {
    found.starts[i] = runs[i * runFields] as number;
    found.pages[i] = runs[i * runFields + 1] as number;
    found.offsets[i] = offset;
    const bytes = (found.pages[i] as number) * pageSize;
    offset += bytes;
    if (((runs[i * runFields + 2] as number) & pageFlags.lazy) === 0) continue;
    const start = found.starts[i] as number;
    if (found.lazy.at(-1) === start) found.lazy[found.lazy.length - 1] = start + bytes;
    else found.lazy.push(start, start + bytes);
  }
  return found;
}

/** Index of the run that holds an address, by bisection; -1 if none does. */
function runAt({ starts, pages }: ProcessPages, address: number): number {
  let low = 0;
  let high = starts.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((starts[middle] as number) <= address) low = middle + 1;
    else high = middle;
  }
  const run = low - 1;
  if (run < 0) return -1;
  return address < (starts[run] as number) + (pages[run] as number) * pageSize ? run : -1;
}

/** Writes the pages that are not lazy; returns the bytes of those that are. */
function writeEager(
  images: SnapshotImages,
  file: string,
  runs: Float64Array<ArrayBufferLike>,
  to: string,
): number {
  let offset = 0;
  let lazyBytes = 0;
  writeFile(to, (write) => {
    for (let i = 0; i < runs.length; i += runFields) {
      const bytes = (runs[i + 1] as number) * pageSize;
      if (((runs[i + 2] as number) & pageFlags.lazy) === 0) copy(images, file, offset, bytes, write);
      else lazyBytes += bytes;
      offset += bytes;
    }
  });
  return lazyBytes;
}

const block = new Uint8Array(new SharedArrayBuffer(blockBytes));

function copy(
  images: SnapshotImages,
  name: string,
  offset: number,
  bytes: number,
  write: (bytes: Uint8Array) => void,
): void {
  for (let done = 0; done < bytes; ) {
    const part = block.subarray(0, Math.min(blockBytes, bytes - done));
    const got = images.read(name, offset + done, part);
    if (got === 0)
      throw new CairnError('permanent', 'image-damaged', `${name} of the snapshot ends too early`);
    write(part.subarray(0, got));
    done += got;
  }
}

function readImage(images: SnapshotImages, name: string, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let at = 0;
  copy(images, name, 0, size, (part) => {
    bytes.set(part, at);
    at += part.length;
  });
  return bytes;
}

function writeFile(file: string, content: (write: (bytes: Uint8Array) => void) => void): void {
  const fd = openSync(file, 'w', 0o600);
  try {
    content((bytes) => {
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
    });
  } finally {
    closeSync(fd);
  }
}
