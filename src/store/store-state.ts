import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { ChunkIndex } from './chunk-index.ts';
import type { ChunkList } from './chunk-list.ts';
import type { ReaderEnvironment } from './chunk-reader.ts';
import type { IndexCache } from './index-cache.ts';
import { deriveFileKeys, type StoreKeys } from './keys.ts';
import { packIdOf } from './pack-file.ts';
import { planReads, type ReadPlan } from './read-plan.ts';
import type { DamagedSegments, StorePaths } from './store-files.ts';

/** What the parts of an open store share; belongs to `Store`. */
export interface StoreState {
  /** Nothing may be written otherwise. */
  readonly writable: boolean;
  readonly paths: StorePaths;
  /** Hexadecimal. */
  readonly id: string;
  readonly idBytes: Uint8Array;
  readonly keys: StoreKeys;
  readonly cache: IndexCache;
  index: ChunkIndex;
  damagedPacks: Map<string, string>;
  readonly damagedSegments: DamagedSegments;
  /** Number of the last snapshot that was begun. */
  lastSession: number;
  /** Goes up whenever somebody begins to rely on what the index says: a sweep that sees it change stops. */
  arrivals: number;
  /** Snapshots that are being written. */
  readonly sessions: Set<number>;
  /** By `JOB@SEQUENCE` how many readers there are. */
  readonly pins: Map<string, number>;
  /** For tests of crashes: called before each step that a crash could separate from the next. */
  readonly onStep: (step: string) => void;
}

export function snapshotKey(jobId: string, sequence: number): string {
  return `${jobId}@${sequence}`;
}

/** Resolves chunk lists against the index; see `planReads`. */
export function resolveLists(state: StoreState, lists: readonly ChunkList[]): ReadPlan {
  const suspects = [...state.damagedPacks.keys()].map((file) => join(state.paths.packs, file));
  return planReads(state.index, lists, suspects);
}

/** The keys that a reader of this plan needs, and no others. */
export function environmentFor(state: StoreState, plan: ReadPlan): ReaderEnvironment {
  const packKeys = new Uint8Array(plan.packs.length * 32);
  for (const [i, { file }] of plan.packs.entries()) {
    const id = packIdOf(file);
    if (id !== undefined) packKeys.set(deriveFileKeys(state.keys.data, id, 'pack').encryption, i * 32);
  }
  return { packDirectory: state.paths.packs, hashKey: state.keys.hash, packKeys };
}

/** Lets the event loop turn when this much time has passed since it last did. */
export class Breather {
  readonly #sliceMs: number;
  readonly #signal: AbortSignal | undefined;
  #last = performance.now();

  constructor(signal: AbortSignal | undefined, sliceMs = 8) {
    this.#signal = signal;
    this.#sliceMs = sliceMs;
  }

  /** Throws the reason of the signal if it was aborted. */
  async breathe(): Promise<void> {
    this.#signal?.throwIfAborted();
    if (performance.now() - this.#last < this.#sliceMs) return;
    await setImmediate();
    this.#last = performance.now();
    this.#signal?.throwIfAborted();
  }
}
