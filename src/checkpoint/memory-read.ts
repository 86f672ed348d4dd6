import { closeSync, openSync, readSync } from 'node:fs';
import { systemCode } from '../errors.ts';
import { adviseHugePages, maxPieces, readMemory } from '../linux/memory.ts';
import { pageSize, runFields } from './memory-segments.ts';
import { countPages, windowsOf } from './memory-windows.ts';

/** Room for the largest segment: segmentPages and the windows that may lie beyond. */
const bufferBytes = 2 * 1024 * 1024;

/** Takes the pages of one window: sets as in `MemoryWindows`, and the pages in the order of addresses, in memory that is reused afterwards. */
export type WindowVisitor = (
  address: number,
  pages: number,
  lazy: number,
  bytes: Buffer<SharedArrayBuffer>,
) => void;

/** Where segments are read to. Kept from one process to the next: its pages are touched once, and not while somebody is frozen. */
export class SegmentBuffer {
  readonly bytes: Buffer<SharedArrayBuffer> = Buffer.from(new SharedArrayBuffer(bufferBytes));
  readonly pieces: BigUint64Array<ArrayBuffer> = new BigUint64Array(maxPieces * 2);

  constructor() {
    adviseHugePages(this.bytes);
    this.bytes.fill(1);
  }
}

/** Reads memory of a stopped (or running) process, one segment after the other. */
export class MemoryReader implements Disposable {
  readonly #pid: number;
  readonly #buffer: Buffer<SharedArrayBuffer>;
  readonly #pieces: BigUint64Array<ArrayBuffer>;
  #memoryFile: number | undefined;

  constructor(pid: number, { bytes, pieces }: SegmentBuffer) {
    this.#pid = pid;
    this.#buffer = bytes;
    this.#pieces = pieces;
  }

  /**
   * Reads the runs `from` to `to` of a segment plan and calls `visit` for each of its windows.
   *
   * Throws ESRCH when the process is gone and EIO or EFAULT when pages cannot be read.
   */
  readSegment(runs: Float64Array, from: number, to: number, visit: WindowVisitor): void {
    this.#fill(runs, from, to);
    let read = 0;
    for (const { address, pages, lazy } of windowsOf(runs.subarray(from * runFields, to * runFields))) {
      const end = read + countPages(pages) * pageSize;
      visit(address, pages, lazy, this.#buffer.subarray(read, end));
      read = end;
    }
  }

  /** Reads all runs densely into the buffer; the caller knows where each is. */
  #fill(runs: Float64Array, from: number, to: number): void {
    let total = 0;
    let count = 0;
    for (let r = from; r < to; r++) {
      const bytes = (runs[r * runFields + 1] as number) * pageSize;
      this.#pieces[count * 2] = BigInt(runs[r * runFields] as number);
      this.#pieces[count * 2 + 1] = BigInt(bytes);
      count++;
      total += bytes;
    }
    if (total > bufferBytes) throw new RangeError(`segment of ${total} bytes`);
    let got = 0;
    try {
      got = readMemory(this.#pid, this.#buffer, this.#pieces, count);
    } catch (error) {
      if (systemCode(error) !== 'EFAULT') throw error;
    }
    // Pages without read permission (PROT_NONE) are refused there; /proc/PID/mem reads them.
    if (got < total) this.#fillThroughFile(runs, from, to);
  }

  #fillThroughFile(runs: Float64Array, from: number, to: number): void {
    const fd = this.#open();
    let offset = 0;
    for (let r = from; r < to; r++) {
      const address = runs[r * runFields] as number;
      const bytes = (runs[r * runFields + 1] as number) * pageSize;
      for (let done = 0; done < bytes; ) {
        const got = readSync(fd, this.#buffer, offset + done, bytes - done, address + done);
        if (got <= 0)
          throw new Error(`memory of process ${this.#pid} ends at ${(address + done).toString(16)}`);
        done += got;
      }
      offset += bytes;
    }
  }

  #open(): number {
    this.#memoryFile ??= openSync(`/proc/${this.#pid}/mem`, 'r');
    return this.#memoryFile;
  }

  [Symbol.dispose](): void {
    if (this.#memoryFile !== undefined) closeSync(this.#memoryFile);
  }
}
