import { existsSync } from 'node:fs';
import type { Criu } from '../criu/find.ts';
import { CairnError } from '../errors.ts';
import type { Store } from '../store/store.ts';
import type { CapturePool } from './capture-pool.ts';
import { CheckpointRun, type UnitMemory } from './checkpoint-run.ts';
import { linksNotHeld } from './image-collector.ts';
import type { CheckpointRequest, CheckpointResult } from './checkpoint-request.ts';

/** How often a checkpoint is begun if processes come and go too quickly for it. */
const attempts = 4;

/** Saves units of this node. One for the daemon. */
export class UnitCheckpointer {
  readonly #store: Store;
  readonly #pool: CapturePool;
  readonly #criu: () => Promise<Criu>;
  readonly #memories = new Map<string, UnitMemory>();
  /** Directories of those units. */
  readonly #places = new Map<string, string>();

  constructor(store: Store, pool: CapturePool, criu: () => Promise<Criu>) {
    this.#store = store;
    this.#pool = pool;
    this.#criu = criu;
  }

  /**
   * Takes a checkpoint. When it fails, for whatever reason, the unit runs on as before, nothing of it is visible, and the
   * reason is thrown.
   */
  async checkpoint(request: CheckpointRequest): Promise<CheckpointResult> {
    let hold = false;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#attempt(request, hold);
      } catch (error) {
        // A process that ended while CRIU was stopping them one after the other; the next time it is not there.
        const code = error instanceof CairnError ? error.code : undefined;
        hold ||= code === linksNotHeld;
        const passing = code === 'process-gone' || code === linksNotHeld;
        if (!passing || attempt === attempts || request.signal.aborted) throw error;
      }
    }
  }

  async #attempt(request: CheckpointRequest, hold: boolean): Promise<CheckpointResult> {
    await using run = new CheckpointRun(
      request,
      this.#store,
      { workers: this.#pool.lease(), tagKey: this.#pool.tagKey, hold },
      this.#memories.get(request.unit.id),
    );
    const result = await run.execute(await this.#criu());
    this.#memories.set(request.unit.id, run.memory);
    this.#places.set(request.unit.id, request.unit.paths.state);
    this.#forgetRemoved();
    return result;
  }

  /** What is known of units that have been removed is of no use to anybody. */
  #forgetRemoved(): void {
    for (const [unitId, place] of this.#places) {
      if (existsSync(place)) continue;
      this.#memories.delete(unitId);
      this.#places.delete(unitId);
    }
  }
}
