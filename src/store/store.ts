import { readdir, rename, rmdir, truncate, unlink } from 'node:fs/promises';
import { CairnError, systemCode } from '../errors.ts';
import type { ChunkList } from './chunk-list.ts';
import { ChunkReader, type ReaderEnvironment } from './chunk-reader.ts';
import { syncDirectory } from './durable-file.ts';
import { maxChunkBytes } from './format.ts';
import { IndexCache } from './index-cache.ts';
import { loadIndex } from './load-index.ts';
import {
  jobDirectory,
  manifestPath,
  parseFileName,
  readManifestFile,
  readManifestHeader,
  removedPath,
  unknownSnapshot,
  writeManifest,
} from './manifest-file.ts';
import type { SnapshotHeader, SnapshotManifest, StoredStream } from './manifest.ts';
import { requireWholePacks } from './pack-file.ts';
import type { ReadPlan } from './read-plan.ts';
import { SnapshotWriter } from './snapshot-writer.ts';
import { lockStore, openIdentity, readDamaged, removeUnfinished, StorePaths } from './store-files.ts';
import { environmentFor, resolveLists, snapshotKey, type StoreState } from './store-state.ts';
import { type SweepReport, sweepStore } from './sweep.ts';
import { type VerifyProgress, type VerifyReport, verifySnapshot } from './verify.ts';

export type { SnapshotWriter } from './snapshot-writer.ts';

export interface StoreOptions {
  directory: string;
  /** Directory of the keys; created with them at the first open. */
  keys: string;
  /** Takes no lock and writes nothing. The writer may remove packs meanwhile. */
  readOnly?: boolean;
  /** For tests: called before each step that a crash could separate from the next. */
  onStep?: (step: string) => void;
}

export interface StoreStatistics {
  packs: number;
  packBytes: number;
  chunks: number;
  /** Shared memory of the chunk table. */
  tableBytes: number;
  /** Packs that could not be used at open. */
  damagedPacks: { file: string; reason: string }[];
}

/**
 * Snapshots at rest in one directory, with one writing process. `docs/format.md` describes the files. The bulk of the data goes
 * past this class: `ChunkWriter` and `ChunkReader` work in other threads with an environment or a plan from here.
 */
export class Store implements AsyncDisposable {
  readonly #state: StoreState;
  readonly #lock: Disposable | undefined;
  /** The last of those that change where chunks are; they go one after the other. */
  #moving: Promise<unknown> = Promise.resolve();

  private constructor(state: StoreState, lock: Disposable | undefined) {
    this.#state = state;
    this.#lock = lock;
  }

  /**
   * Opens a store, or creates it (unless `readOnly`). What a dead writer left half-written is removed. Throws `store-locked`
   * (temporary); `store-missing`, `store-version`, `store-damaged`, `key-missing`, `key-wrong`, `key-damaged` (environment).
   */
  static async open(options: StoreOptions): Promise<Store> {
    const readOnly = options.readOnly ?? false;
    const paths = new StorePaths(options.directory);
    if (!readOnly) await paths.create();
    const lock = readOnly ? undefined : lockStore(paths);
    try {
      if (!readOnly) await removeUnfinished(paths);
      const { id, keys } = await openIdentity(paths, options.keys, !readOnly);
      const idBytes = new Uint8Array(Buffer.from(id, 'hex'));
      const cache = new IndexCache(paths.indexCache, idBytes);
      const damagedSegments = await readDamaged(paths);
      const store = { idBytes, dataKey: keys.data };
      const loading = { useCache: true, readOnly };
      const { index, damagedPacks } = await loadIndex(paths.packs, store, cache, damagedSegments, loading);
      const state: StoreState = {
        writable: !readOnly,
        paths,
        id,
        idBytes,
        keys,
        cache,
        index,
        damagedPacks,
        damagedSegments,
        lastSession: 0,
        arrivals: 0,
        sessions: new Set(),
        pins: new Map(),
        onStep: options.onStep ?? (() => {}),
      };
      return new Store(state, lock);
    } catch (error) {
      lock?.[Symbol.dispose]();
      throw error;
    }
  }

  /** Identity of the store, hexadecimal. */
  get id(): string {
    return this.#state.id;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#moving.catch(() => {});
    this.#lock?.[Symbol.dispose]();
  }

  /** Headers of all snapshots (of one job), by job and ascending sequence. Signatures are checked; see `SnapshotHeader.damaged`. */
  async snapshots(jobId?: string): Promise<SnapshotHeader[]> {
    const root = this.#state.paths.snapshots;
    const jobs = jobId === undefined ? (await readdir(root)).sort() : [jobId];
    const headers: SnapshotHeader[] = [];
    for (const job of jobs)
      for (const sequence of (await this.#sequences(job)).present) {
        const header = await readManifestHeader(
          manifestPath(root, job, sequence),
          job,
          sequence,
          this.#state,
        );
        if (header !== undefined) headers.push(header);
      }
    return headers;
  }

  /** Whether there is such a snapshot, damaged or not. */
  async has(jobId: string, sequence: number): Promise<boolean> {
    return (await this.#sequences(jobId)).present.includes(sequence);
  }

  /** A whole manifest, verified. Throws `snapshot-unknown` (argument), `manifest-…` (permanent). */
  async readManifest(jobId: string, sequence: number): Promise<SnapshotManifest> {
    const path = manifestPath(this.#state.paths.snapshots, jobId, sequence);
    return (await readManifestFile(path, jobId, sequence, this.#state)).manifest;
  }

  /** The number for the next snapshot of a job: never one that was used before, even if that snapshot was removed. */
  async nextSequence(jobId: string): Promise<number> {
    const { present, removed } = await this.#sequences(jobId);
    return Math.max(0, ...present, ...removed) + 1;
  }

  /**
   * Begins a snapshot. `expectedBytes`: how much new data may come, to size the chunk table. Several may be written at once;
   * what they write is known to each other only once published.
   */
  begin(jobId: string, sequence: number, options: { expectedBytes?: number } = {}): SnapshotWriter {
    this.#mustWrite();
    jobDirectory(this.#state.paths.snapshots, jobId);
    const chunks = Math.ceil((options.expectedBytes ?? 0) / maxChunkBytes) + 4096;
    return new SnapshotWriter(this.#state, jobId, sequence, chunks);
  }

  /**
   * Says where the chunks of these lists are. Throws `chunk-missing`, and `pack-damaged` if one of the packs is gone or was cut
   * (both permanent): whoever reads later might notice only half-way. Pin the snapshot first.
   */
  resolve(lists: readonly ChunkList[]): ReadPlan {
    const plan = resolveLists(this.#state, lists);
    requireWholePacks(this.#state.paths.packs, plan.packs);
    return plan;
  }

  /** The secrets that a reader of this plan needs. */
  readerEnvironment(plan: ReadPlan): ReaderEnvironment {
    return environmentFor(this.#state, plan);
  }

  /** The bytes of one stream; for small ones, in this thread. */
  readStream(stream: StoredStream): Uint8Array {
    if (stream.chunks instanceof Uint8Array) return stream.chunks;
    const plan = this.resolve([stream.chunks]);
    using reader = new ChunkReader(this.readerEnvironment(plan), plan);
    return reader.readAll(0);
  }

  /** Keeps the packs of a snapshot where they are, and the snapshot itself, until disposed. Not kept over a restart of the process. */
  pin(jobId: string, sequence: number): Disposable {
    const { pins } = this.#state;
    const key = snapshotKey(jobId, sequence);
    this.#state.arrivals++;
    pins.set(key, (pins.get(key) ?? 0) + 1);
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        const rest = (pins.get(key) ?? 1) - 1;
        if (rest === 0) pins.delete(key);
        else pins.set(key, rest);
      },
    };
  }

  /** Marks a snapshot as one that retention leaves alone, or not. */
  async setPinned(jobId: string, sequence: number, pinned: boolean): Promise<void> {
    this.#mustWrite();
    const path = manifestPath(this.#state.paths.snapshots, jobId, sequence);
    const { manifest, header } = await readManifestFile(path, jobId, sequence, this.#state);
    const { logicalBytes, storedBytes } = header;
    await writeManifest(path, { ...manifest, pinned }, { logicalBytes, storedBytes }, this.#state);
  }

  /**
   * Removes a snapshot, durably; its chunks go with the next `sweep`. A damaged one can be removed too. Throws
   * `snapshot-unknown` (argument), `snapshot-in-use` (temporary) while somebody restores it.
   */
  async removeSnapshot(jobId: string, sequence: number): Promise<void> {
    this.#mustWrite();
    const { paths, pins } = this.#state;
    if (pins.has(snapshotKey(jobId, sequence)))
      throw new CairnError(
        'temporary',
        'snapshot-in-use',
        `cannot remove snapshot ${jobId}@${sequence}: it is being read`,
        { remedy: 'wait until the restart has ended' },
      );
    const { present, removed } = await this.#sequences(jobId);
    if (!present.includes(sequence)) throw unknownSnapshot(jobId, sequence);
    const path = manifestPath(paths.snapshots, jobId, sequence);
    if (sequence === Math.max(...present, ...removed)) {
      // Needs no space, of which there may be none: that may be why it is removed.
      const marker = removedPath(paths.snapshots, jobId, sequence);
      await rename(path, marker);
      await truncate(marker, 0);
      for (const old of removed) await unlink(removedPath(paths.snapshots, jobId, old));
    } else await unlink(path);
    await syncDirectory(jobDirectory(paths.snapshots, jobId));
  }

  /** Removes all snapshots of a job and forgets its sequence numbers. Throws `snapshot-in-use` (temporary). */
  async removeJob(jobId: string): Promise<void> {
    const { paths } = this.#state;
    for (const sequence of (await this.#sequences(jobId)).present) await this.removeSnapshot(jobId, sequence);
    for (const sequence of (await this.#sequences(jobId)).removed)
      await unlink(removedPath(paths.snapshots, jobId, sequence));
    await rmdir(jobDirectory(paths.snapshots, jobId)).catch(ignoreAbsent);
    await syncDirectory(paths.snapshots);
  }

  /**
   * Frees the space of chunks that no snapshot needs. Gives way to checkpoints (see `SweepReport.interrupted`). Throws
   * `manifest-…` (permanent) if a damaged manifest makes it unknown what is needed.
   */
  sweep(options: { signal?: AbortSignal } = {}): Promise<SweepReport> {
    this.#mustWrite();
    return this.#alone(() => sweepStore(this.#state, () => this.snapshots(), options.signal));
  }

  /** Reads and compares everything that a snapshot needs; damage is reported, not thrown. */
  async verify(
    jobId: string,
    sequence: number,
    options: { onProgress?: VerifyProgress; signal?: AbortSignal } = {},
  ): Promise<VerifyReport> {
    using _pin = this.pin(jobId, sequence);
    return await verifySnapshot(this.#state, jobId, sequence, options);
  }

  /** Builds the index from the packs themselves, without the cache. Not while a snapshot is being written. */
  rebuildIndex(): Promise<void> {
    return this.#alone(async () => {
      const state = this.#state;
      const begun = state.arrivals;
      const store = { idBytes: state.idBytes, dataKey: state.keys.data };
      const loading = { useCache: false, readOnly: this.#lock === undefined };
      const loaded = await loadIndex(state.paths.packs, store, state.cache, state.damagedSegments, loading);
      if (state.sessions.size > 0 || state.arrivals !== begun)
        throw new CairnError(
          'temporary',
          'store-busy',
          'cannot rebuild the index while a checkpoint or a restart uses it',
          { remedy: 'try again later' },
        );
      state.index = loaded.index;
      state.damagedPacks = loaded.damagedPacks;
    });
  }

  statistics(): StoreStatistics {
    const { index, damagedPacks } = this.#state;
    return {
      packs: index.packs.length,
      packBytes: index.packs.reduce((sum, pack) => sum + pack.bytes, 0),
      chunks: index.rowCount,
      tableBytes: index.table.memory.byteLength,
      damagedPacks: [...damagedPacks].map(([file, reason]) => ({ file, reason })),
    };
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#moving.catch(() => {}).then(work);
    this.#moving = run;
    return run;
  }

  #mustWrite(): void {
    if (this.#lock === undefined)
      throw new CairnError('argument', 'store-read-only', 'the store was opened for reading only');
  }

  /** Numbers of the snapshots there are, ascending, and of removed ones that must not be used again. */
  async #sequences(jobId: string): Promise<{ present: number[]; removed: number[] }> {
    const directory = jobDirectory(this.#state.paths.snapshots, jobId);
    const files =
      (await readdir(directory).catch(ignoreAbsent))?.flatMap((name) => parseFileName(name) ?? []) ?? [];
    const numbers = (removed: boolean): number[] =>
      files
        .filter((file) => file.removed === removed)
        .map(({ sequence }) => sequence)
        .sort((a, b) => a - b);
    return { present: numbers(false), removed: numbers(true) };
  }
}

function ignoreAbsent(error: unknown): undefined {
  if (systemCode(error) !== 'ENOENT') throw error;
  return undefined;
}
