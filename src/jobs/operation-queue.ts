import { CairnError } from '../errors.ts';
import type { Clock } from './ports.ts';

/** One thing that is done to a job. */
export interface Operation {
  /** As it appears in messages: "a checkpoint". */
  name: string;
  /** Nobody waits for it: it gives way when a user wants something else. */
  automatic: boolean;
}

interface Entry extends Operation {
  controller: AbortController;
  begin: () => void;
}

/** The operations on one job, one after the other in the order in which they were asked for. */
export class OperationQueue {
  readonly #clock: Clock;
  readonly #waiting: Entry[] = [];
  #current: Entry | undefined;
  #closed = false;
  #idle: (() => void)[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** What is being done now, if anything. */
  get current(): Operation | undefined {
    return this.#current;
  }

  /**
   * Waits until it is its turn, then does it. The signal that the operation gets aborts with the caller's, and when something more
   * important comes. Errors: `job-busy` when the turn does not come within `waitMs`, `aborted` when the signal aborts before.
   */
  async run<T>(
    operation: Operation,
    options: { signal?: AbortSignal | undefined; waitMs?: number },
    action: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const controller = new AbortController();
    const signal =
      options.signal === undefined ? controller.signal : AbortSignal.any([controller.signal, options.signal]);
    await this.#turn({ ...operation, controller, begin: () => {} }, signal, options.waitMs);
    try {
      if (signal.aborted) throw abortError(signal, operation.name);
      return await action(signal);
    } finally {
      this.#current = undefined;
      this.#next();
    }
  }

  /** Aborts what nobody waits for, running or waiting. */
  abortAutomatic(reason: CairnError): void {
    this.#abort(reason, (entry) => entry.automatic);
  }

  /** Aborts everything, running or waiting. */
  abortAll(reason: CairnError): void {
    this.#abort(reason, () => true);
  }

  /** Aborts everything, takes nothing more, and resolves when the running operation has ended. */
  async close(reason: CairnError): Promise<void> {
    this.#closed = true;
    this.abortAll(reason);
    if (this.#current !== undefined) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  #abort(reason: CairnError, which: (entry: Entry) => boolean): void {
    for (const entry of this.#waiting.filter(which)) entry.controller.abort(reason);
    if (this.#current !== undefined && which(this.#current)) this.#current.controller.abort(reason);
  }

  #next(): void {
    const entry = this.#waiting.shift();
    if (entry === undefined) {
      for (const resolve of this.#idle.splice(0)) resolve();
    } else {
      this.#current = entry;
      entry.begin();
    }
  }

  async #turn(entry: Entry, signal: AbortSignal, waitMs: number | undefined): Promise<void> {
    if (this.#closed)
      throw new CairnError('temporary', 'node-stopping', `The node is stopping: no ${entry.name} now.`);
    if (signal.aborted) throw abortError(signal, entry.name);
    if (this.#current === undefined) {
      this.#current = entry;
      return;
    }
    const busyWith = this.#current.name;
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error): void => {
        timer?.[Symbol.dispose]();
        signal.removeEventListener('abort', onAbort);
        if (error === undefined) {
          resolve();
          return;
        }
        const place = this.#waiting.indexOf(entry);
        if (place !== -1) this.#waiting.splice(place, 1);
        reject(error);
      };
      const onAbort = (): void => settle(abortError(signal, entry.name));
      entry.begin = () => settle();
      signal.addEventListener('abort', onAbort, { once: true });
      const timer =
        waitMs === undefined
          ? undefined
          : this.#clock.after(waitMs, () =>
              settle(
                new CairnError(
                  'temporary',
                  'job-busy',
                  `No ${entry.name} now: the job was busy with a ${busyWith}.`,
                  {
                    remedy: 'Try again when that has ended.',
                  },
                ),
              ),
            );
      this.#waiting.push(entry);
    });
  }
}

/** The error of an operation whose signal was aborted: the reason itself if it is an expected one. */
export function abortError(signal: AbortSignal, what: string): Error {
  if (signal.reason instanceof CairnError) return signal.reason;
  return new CairnError('temporary', 'aborted', `The ${what} was broken off.`, { cause: signal.reason });
}
