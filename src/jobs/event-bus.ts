import type { NodeEvent } from './events.ts';

/** Hands every event to all who listen at that moment. A listener that throws disturbs nobody else. */
export class EventBus {
  readonly #listeners = new Set<(event: NodeEvent) => void>();

  readonly emit = (event: NodeEvent): void => {
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch {
        // A reader of events must not be able to stop what they tell about.
      }
    }
  };

  /** Calls the listener for each event until the result is disposed of. */
  subscribe(listener: (event: NodeEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }
}
