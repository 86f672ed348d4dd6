/** The thread that serves the images of a restore, seen from the monitor. */

import { Worker } from 'node:worker_threads';
import { CairnError, type ErrorClass } from '../errors.ts';
import { close, eventfd, signalEventfd } from '../linux/libc.ts';
import type { RestoreWorkerData, RestoreWorkerMessage } from './restore-worker.ts';

/** A thread that waits for its data. */
let spare: Worker | undefined;

function startWorker(): Worker {
  return new Worker(new URL('./restore-worker.ts', import.meta.url));
}

/** Starts the thread of the next restore ahead of it; resolves when it is up. */
export async function makeServingReady(): Promise<void> {
  if (spare !== undefined) return;
  spare = startWorker();
  spare.unref();
  await new Promise((resolve) => spare?.once('message', resolve));
}

/** Ends a thread that was started ahead and not used. */
export function makeServingUnready(): void {
  void spare?.terminate();
  spare = undefined;
}

/** Starts with the constructor; disposing ends it. */
export class RestoreServing implements AsyncDisposable {
  /** Resolves when CRIU may be started, with the bytes that will come later (a lazy restore). */
  readonly listening: Promise<number>;
  /** Resolves when everything has been handed over; rejects as `failed`. */
  readonly finished: Promise<void>;
  /** Rejects if the images cannot be served; never resolves. */
  readonly failed: Promise<never>;
  error: CairnError | undefined;
  readonly #worker: Worker;
  readonly #ended: Promise<void>;
  readonly #wakeFd = eventfd();

  constructor(order: Omit<RestoreWorkerData, 'wakeFd'>) {
    const data: RestoreWorkerData = { ...order, wakeFd: this.#wakeFd };
    this.#worker = spare ?? startWorker();
    spare = undefined;
    const heard = Promise.withResolvers<number>();
    const finished = Promise.withResolvers<void>();
    const failed = Promise.withResolvers<never>();
    const ended = Promise.withResolvers<void>();
    const fail = (error: CairnError) => {
      this.error ??= error;
      heard.reject(this.error);
      failed.reject(this.error);
      finished.reject(this.error);
    };
    this.#worker.on('message', (message: RestoreWorkerMessage) => {
      if (message.kind === 'listening') heard.resolve(message.lazyBytes);
      if (message.kind === 'finished') finished.resolve();
      if (message.kind === 'failed') fail(revive(message.error));
    });
    this.#worker.on('error', (cause) =>
      fail(
        new CairnError('temporary', 'restore-serve-failed', 'The thread that serves the images has ended.', {
          cause,
        }),
      ),
    );
    this.#worker.on('exit', () => ended.resolve());
    this.#worker.ref();
    this.#worker.postMessage(data satisfies RestoreWorkerData);
    this.listening = heard.promise;
    this.failed = failed.promise;
    this.finished = finished.promise;
    this.#ended = ended.promise;
    this.finished.catch(() => {});
    this.failed.catch(() => {});
    this.listening.catch(() => {});
  }

  /** Waits until the thread has said why it ended, but not for long. */
  async settled(timeoutMs: number): Promise<void> {
    const timeout = Promise.withResolvers<void>();
    const timer = setTimeout(timeout.resolve, timeoutMs);
    await Promise.race([this.#ended, timeout.promise]);
    clearTimeout(timer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    signalEventfd(this.#wakeFd);
    await this.settled(1000);
    await this.#worker.terminate();
    close(this.#wakeFd);
  }
}

function revive(error: Extract<RestoreWorkerMessage, { kind: 'failed' }>['error']): CairnError {
  return new CairnError(error.class as ErrorClass, error.code, error.message, {
    lines: error.lines,
    ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
  });
}
