import type { JobUnit } from './ports.ts';

/** How long to wait before looking again after a look that failed, in milliseconds. */
const retryMs = 1000;

/** Calls back when the first process of a unit has ended. */
export class UnitWatch {
  readonly #onEnd: () => void;
  #watching: AbortController | undefined;

  constructor(onEnd: () => void) {
    this.#onEnd = onEnd;
  }

  /** Begins to wait for the end of this unit, unless that is already being done. */
  begin(unit: () => Promise<JobUnit | undefined>): void {
    if (this.#watching !== undefined) return;
    const watching = new AbortController();
    this.#watching = watching;
    void this.#wait(unit, watching);
  }

  /** Nobody is called any more for what is being waited for now. */
  stop(): void {
    this.#watching?.abort();
    this.#watching = undefined;
  }

  async #wait(unit: () => Promise<JobUnit | undefined>, watching: AbortController): Promise<void> {
    const { signal } = watching;
    for (;;) {
      try {
        await (await unit())?.waitExit(signal);
        break;
      } catch {
        if (signal.aborted) return;
        await new Promise((resolve) => setTimeout(resolve, retryMs).unref());
      }
    }
    if (signal.aborted) return;
    this.stop();
    this.#onEnd();
  }
}
