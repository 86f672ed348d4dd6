import { closeSync, openSync, readSync } from 'node:fs';
import { systemCode } from '../errors.ts';
import { maxPieces, readMemory } from '../linux/memory.ts';
import { pageFlags } from '../criu/pagemap.ts';
import { pageSize, runFields, windowSize } from './memory-segments.ts';

/** Room for the largest segment: segmentPages and the windows that may lie beyond. */
const bufferBytes = 2 * 1024 * 1024;

const zeroPage = new Uint8Array(pageSize);

/** Takes the kept pages of one window, in address order; the view is reused afterwards. */
export type WindowSink = (pages: Uint8Array) => void;

/** Reads memory of stopped (or running) processes, one segment after the other, through one buffer. */
export class MemoryReader implements Disposable {
  readonly #buffer = Buffer.from(new SharedArrayBuffer(bufferBytes));
  readonly #pieces = new BigUint64Array(maxPieces * 2);
  #memoryFile: { pid: number; fd: number } | undefined;
  /** Bytes of zero pages that were left out. */
  zeroBytes = 0;

  /**
   * Reads the runs `from` to `to` of a segment plan. Zero pages of lazy runs (private anonymous memory) are left out: an
   * absent page of such memory reads as zeros. Calls `sink` for each window and appends what was kept to `kept`.
   *
   * Throws ESRCH when the process is gone and EIO or EFAULT when pages cannot be read.
   */
  readSegment(
    pid: number,
    runs: Float64Array,
    from: number,
    to: number,
    kept: number[],
    sink: WindowSink,
  ): void {
    const bytes = this.#fill(pid, runs, from, to);
    const buffer = this.#buffer;
    let read = 0;
    let write = 0;
    let windowStart = 0;
    let window = -1;
    for (let r = from; r < to; r++) {
      const address = runs[r * runFields] as number;
      const pages = runs[r * runFields + 1] as number;
      const flags = runs[r * runFields + 2] as number;
      const lazy = (flags & pageFlags.lazy) !== 0;
      for (let p = 0; p < pages; p++, read += pageSize) {
        const at = address + p * pageSize;
        const thisWindow = Math.floor(at / windowSize);
        if (thisWindow !== window) {
          if (write > windowStart) sink(buffer.subarray(windowStart, write));
          windowStart = write;
          window = thisWindow;
        }
        if (lazy && buffer.compare(zeroPage, 0, pageSize, read, read + pageSize) === 0) {
          this.zeroBytes += pageSize;
          continue;
        }
        if (write !== read) buffer.copyWithin(write, read, read + pageSize);
        write += pageSize;
        appendPage(kept, at, flags);
      }
    }
    if (write > windowStart) sink(buffer.subarray(windowStart, write));
    if (read !== bytes) throw new Error(`read ${bytes} bytes of ${read}`);
  }

  /** Reads all runs densely into the buffer; returns the bytes. */
  #fill(pid: number, runs: Float64Array, from: number, to: number): number {
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
      got = readMemory(pid, this.#buffer, this.#pieces, count);
    } catch (error) {
      if (systemCode(error) !== 'EFAULT') throw error;
    }
    // Pages without read permission (PROT_NONE) are refused there; /proc/PID/mem reads them.
    if (got < total) this.#fillThroughFile(pid, runs, from, to);
    return total;
  }

  #fillThroughFile(pid: number, runs: Float64Array, from: number, to: number): void {
    const fd = this.#open(pid);
    let offset = 0;
    for (let r = from; r < to; r++) {
      const address = runs[r * runFields] as number;
      const bytes = (runs[r * runFields + 1] as number) * pageSize;
      for (let done = 0; done < bytes; ) {
        const got = readSync(fd, this.#buffer, offset + done, bytes - done, address + done);
        if (got <= 0) throw new Error(`memory of process ${pid} ends at ${(address + done).toString(16)}`);
        done += got;
      }
      offset += bytes;
    }
  }

  #open(pid: number): number {
    if (this.#memoryFile?.pid !== pid) {
      this.#close();
      this.#memoryFile = { pid, fd: openSync(`/proc/${pid}/mem`, 'r') };
    }
    return this.#memoryFile.fd;
  }

  #close(): void {
    if (this.#memoryFile !== undefined) closeSync(this.#memoryFile.fd);
    this.#memoryFile = undefined;
  }

  [Symbol.dispose](): void {
    this.#close();
  }
}

/** Adds a page to the list of kept runs, joining it to the last run where it follows on. */
function appendPage(kept: number[], address: number, flags: number): void {
  const last = kept.length - runFields;
  if (
    last >= 0 &&
    kept[last + 2] === flags &&
    (kept[last] as number) + (kept[last + 1] as number) * pageSize === address
  )
    kept[last + 1] = (kept[last + 1] as number) + 1;
  else kept.push(address, 1, flags);
}
