import type { RedisClient } from './redis-client.ts';

/** What a client has seen. */
export interface Visit {
  /** The last number that Redis has acknowledged. */
  count: number;
  /** The longest time between two answers, in milliseconds. */
  longestPauseMs: number;
}

/** A client that counts visitors, one after another over one connection, as long as it is let. */
export class Visitors {
  #count: number;
  #longestPauseMs = 0;
  #error: Error | undefined;
  readonly #end: Promise<void>;

  /** Goes on after visitor `count`. */
  constructor(redis: RedisClient, count: number) {
    this.#count = count;
    this.#end = this.#visit(redis);
  }

  /** What was seen so far; `longestPauseMs` since the last call. */
  look(): Visit {
    const visit = { count: this.#count, longestPauseMs: this.#longestPauseMs };
    this.#longestPauseMs = 0;
    return visit;
  }

  /** The last number that Redis has acknowledged. */
  get count(): number {
    return this.#count;
  }

  /** Why it has ended, or `undefined` while it goes on. */
  get error(): Error | undefined {
    return this.#error;
  }

  /** Resolves when the connection has ended. */
  get end(): Promise<void> {
    return this.#end;
  }

  async #visit(redis: RedisClient): Promise<void> {
    let last = performance.now();
    try {
      for (;;) {
        const count = Number(await redis.send('INCR', 'visitors'));
        if (count !== this.#count + 1) throw new Error(`visitor ${count} came after ${this.#count}`);
        this.#count = count;
        const now = performance.now();
        this.#longestPauseMs = Math.max(this.#longestPauseMs, now - last);
        last = now;
      }
    } catch (error) {
      this.#error = error instanceof Error ? error : new Error(String(error));
    }
  }
}
