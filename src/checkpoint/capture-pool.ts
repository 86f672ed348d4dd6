import { randomBytes } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import { CairnError } from '../errors.ts';
import { gmacKeyBytes } from '../linux/gmac.ts';
import type { CaptureAnswers, CaptureEvent, CaptureReply, CaptureRequest } from './capture-protocol.ts';
import { reviveError } from './portable-error.ts';

/** Workers of one set that read memory and files; CRIU and the stream worker need processor time beside them. */
const readersInSet = 2;
/** Idle sets that are kept for the next checkpoint: starting threads costs 50 ms. */
const idleSetsKept = 1;

type Waiting = {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  onEvent: ((event: CaptureEvent) => void) | undefined;
};

/** One worker thread: requests are answered one after the other. */
export class CaptureWorker {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #up = Promise.withResolvers<void>();
  #next = 1;
  #dead: Error | undefined;

  constructor(name: string) {
    this.#worker = new Worker(new URL('./capture-worker.ts', import.meta.url), { name });
    this.#worker.unref();
    this.#worker.on('message', (reply: CaptureReply) => this.#settle(reply));
    this.#worker.on('error', (error) => this.#die(error instanceof Error ? error : new Error(String(error))));
    this.#worker.on('exit', (code) => this.#die(new Error(`capture worker ended (${code})`)));
  }

  get dead(): boolean {
    return this.#dead !== undefined;
  }

  /** Sends a request and waits for its answer; events of the request go to `onEvent` meanwhile. */
  request<R extends CaptureRequest>(
    request: R,
    onEvent?: (event: CaptureEvent) => void,
  ): Promise<CaptureAnswer<R>> {
    if (this.#dead !== undefined) return Promise.reject(lost(this.#dead));
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject, onEvent });
      this.#worker.postMessage({ id, request });
    });
  }

  async terminate(): Promise<void> {
    // While Node.js binds functions in a thread its end would be that of the process.
    this.#worker.ref();
    if (this.#dead === undefined) await this.#up.promise;
    await this.#worker.terminate();
  }

  #settle(reply: CaptureReply): void {
    if (reply.kind === 'up') {
      this.#up.resolve();
      return;
    }
    const waiting = this.#waiting.get(reply.id);
    if (waiting === undefined) return;
    if (reply.kind === 'event') {
      waiting.onEvent?.(reply.event);
      return;
    }
    this.#waiting.delete(reply.id);
    if (reply.kind === 'value') waiting.resolve(reply.value);
    else waiting.reject(reviveError(reply.error));
  }

  #die(error: Error): void {
    if (this.#dead !== undefined) return;
    this.#dead = error;
    this.#up.resolve();
    for (const waiting of this.#waiting.values()) waiting.reject(lost(error));
    this.#waiting.clear();
  }
}

/** The answer that belongs to a request, by its `op`. */
export type CaptureAnswer<R extends CaptureRequest> = CaptureAnswers[R['op']];

function lost(cause: Error): CairnError {
  return new CairnError(
    'temporary',
    'capture-worker-lost',
    `a worker that saves the job ended: ${cause.message}`,
    { cause, remedy: 'take the checkpoint again' },
  );
}

/** The threads of one checkpoint: one for CRIU's stream, the others for memory and the layers. */
export interface CaptureSet {
  readonly stream: CaptureWorker;
  readonly readers: readonly CaptureWorker[];
}

/** So much is read by one thread alone: each thread that reads writes a pack of its own, and each pack has to be synced. */
export const oneReaderBytes = 4 * 1024 * 1024;

/** Keeps worker threads warm between checkpoints; hands out whole sets. */
export class CapturePool implements AsyncDisposable {
  /** See `Gmac`: what one checkpoint of this daemon has read can be compared with another's. */
  readonly tagKey: Uint8Array = new Uint8Array(randomBytes(gmacKeyBytes));
  readonly #idle: CaptureSet[] = [];
  readonly #all = new Set<CaptureSet>();

  /** Starts a set ahead of the first checkpoint. */
  warm(): void {
    if (this.#idle.length === 0) this.#idle.push(this.#create());
  }

  /** A set for one checkpoint or restart; disposing gives it back (or ends it, if a thread died or `spoil` was called). */
  lease(): CaptureSet & AsyncDisposable & { spoil(): void } {
    let set = this.#idle.pop();
    while (set !== undefined && workersOf(set).some((worker) => worker.dead)) {
      void this.#end(set);
      set = this.#idle.pop();
    }
    const held = set ?? this.#create();
    let spoiled = false;
    return {
      stream: held.stream,
      readers: held.readers,
      spoil: () => {
        spoiled = true;
      },
      [Symbol.asyncDispose]: async () => {
        const usable = !spoiled && workersOf(held).every((worker) => !worker.dead);
        if (usable && this.#idle.length < idleSetsKept) this.#idle.push(held);
        else await this.#end(held);
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#all].map((set) => this.#end(set)));
    this.#idle.length = 0;
  }

  #create(): CaptureSet {
    const readers = Array.from({ length: readersInSet }, (_, i) => new CaptureWorker(`cairn-read-${i}`));
    const set = { stream: new CaptureWorker('cairn-stream'), readers };
    this.#all.add(set);
    return set;
  }

  async #end(set: CaptureSet): Promise<void> {
    this.#all.delete(set);
    await Promise.all(workersOf(set).map((worker) => worker.terminate()));
  }
}

export function workersOf(set: CaptureSet): readonly CaptureWorker[] {
  return [set.stream, ...set.readers];
}
