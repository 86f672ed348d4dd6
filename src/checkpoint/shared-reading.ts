import type { CaptureWorker } from './capture-pool.ts';
import { newCounter, stopCounter } from './layer-capture.ts';
import type { MemorySegments } from './memory-segments.ts';
import type { MemoryWindows } from './memory-windows.ts';

/** The memory of one frozen process, read by workers that take turns; more of them can join at any time. */
export class SharedReading {
  readonly #pid: number;
  readonly #segments: MemorySegments;
  readonly #known: MemoryWindows | undefined;
  readonly #lenient: boolean;
  readonly #onBytes: (bytes: number) => void;
  readonly #next = newCounter();
  #result: Promise<MemoryWindows[]> | undefined;
  readonly #parts = new Map<CaptureWorker, Promise<MemoryWindows>>();

  /** `known`: what was read of the process before. `lenient`: pages may be gone. */
  constructor(
    pid: number,
    segments: MemorySegments,
    { known, lenient }: { known: MemoryWindows | undefined; lenient: boolean },
    onBytes: (bytes: number) => void,
  ) {
    this.#pid = pid;
    this.#segments = segments;
    this.#known = known;
    this.#lenient = lenient;
    this.#onBytes = onBytes;
  }

  /** Has a worker take part, once. */
  join(worker: CaptureWorker): void {
    if (this.#parts.has(worker)) return;
    const part = worker.request(
      {
        op: 'read-memory',
        pid: this.#pid,
        segments: this.#segments,
        next: this.#next,
        mode: 'stage',
        known: this.#known,
        lenient: this.#lenient,
      },
      (event) => {
        if (event.kind === 'progress') this.#onBytes(event.bytes);
      },
    );
    // Awaited later; a failure must not count as unhandled until then.
    part.catch(() => {});
    this.#parts.set(worker, part);
  }

  /** What each worker has read, when nobody reads any more. */
  result(): Promise<MemoryWindows[]> {
    this.#result ??= this.#collect();
    return this.#result;
  }

  async #collect(): Promise<MemoryWindows[]> {
    const read: MemoryWindows[] = [];
    // The map grows while it is walked.
    for (const part of this.#parts.values()) read.push(await part);
    return read;
  }

  stop(): void {
    stopCounter(this.#next);
  }
}
