import { readdir, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { CairnError, systemCode } from '../errors.ts';
import { ChunkList } from './chunk-list.ts';
import { ChunkTable } from './chunk-table.ts';
import {
  addStatistics,
  type SealedPacks,
  type WriterEnvironment,
  type WriterStatistics,
} from './chunk-writer.ts';
import { ensureDirectory, exists, storeWriteError, syncDirectory } from './durable-file.ts';
import { chunkIdBytes, packLimitBytes } from './format.ts';
import { deriveFileKeys } from './keys.ts';
import { fileBytes, jobDirectory, manifestPath, writeManifest } from './manifest-file.ts';
import { type SnapshotHeader, type SnapshotManifest, visitStreams } from './manifest.ts';
import { openDirectory, type PackDirectory } from './pack-format.ts';
import { packFileName, type PackInfo } from './pack-writer.ts';
import type { StoreState } from './store-state.ts';

/** A pack that was collected, with its directory opened. */
interface CollectedPack extends PackInfo {
  file: string;
  directory: PackDirectory;
}

/**
 * One snapshot being written. Hands the environment to the workers, collects the packs they sealed, and publishes the
 * manifest when all is safe; or gives up, and nothing of it remains. Disposing gives up what was not published.
 */
export class SnapshotWriter implements AsyncDisposable {
  readonly jobId: string;
  readonly sequence: number;
  readonly #state: StoreState;
  readonly #session: number;
  readonly #closed = new SharedArrayBuffer(4);
  readonly #packs: CollectedPack[] = [];
  #statistics: WriterStatistics = { seenBytes: 0, zeroBytes: 0, knownBytes: 0, newBytes: 0, storedBytes: 0 };
  #phase: 'open' | 'publishing' | 'published' | 'aborted' = 'open';

  /** Use `Store.begin`. */
  constructor(state: StoreState, jobId: string, sequence: number, expectedChunks: number) {
    this.#state = state;
    this.jobId = jobId;
    this.sequence = sequence;
    this.#session = ++state.lastSession;
    state.sessions.add(this.#session);
    state.arrivals++;
    state.index.reserve(expectedChunks);
  }

  /** What all writers of this snapshot that were collected saw. */
  get statistics(): Readonly<WriterStatistics> {
    return this.#statistics;
  }

  /** For the `ChunkWriter`s of this snapshot; passes through `postMessage`. Holds keys. */
  writerEnvironment(): WriterEnvironment {
    const state = this.#state;
    return {
      dataKey: state.keys.data,
      hashKey: state.keys.hash,
      storeId: state.idBytes,
      incoming: state.paths.incoming,
      prefix: this.#prefix,
      session: this.#session,
      table: state.index.table.memory,
      closed: this.#closed,
      packLimitBytes,
    };
  }

  /** Takes what a `ChunkWriter` returned from `seal`. */
  collect(sealed: SealedPacks): void {
    this.#statistics = addStatistics(this.#statistics, sealed.statistics);
    for (const pack of sealed.packs) {
      const keys = deriveFileKeys(this.#state.keys.data, pack.id, 'pack');
      const bytes = Buffer.from(pack.sealedDirectory);
      const directory = openDirectory(pack.path, bytes, pack.bytes - bytes.length - 32, keys);
      this.#packs.push({ ...pack, file: packFileName(pack.id), directory });
    }
  }

  /**
   * Makes the snapshot visible, complete and durable. All workers must have sealed and been collected. If it throws
   * (`store-full`, `snapshot-incomplete`, …), the snapshot has been given up.
   */
  async publish(manifest: SnapshotManifest): Promise<SnapshotHeader> {
    if (this.#phase !== 'open') throw new Error(`the snapshot is ${this.#phase}`);
    if (manifest.job.id !== this.jobId || manifest.sequence !== this.sequence)
      throw new Error('the manifest belongs to another snapshot');
    this.#phase = 'publishing';
    Atomics.store(new Int32Array(this.#closed), 0, 1);
    const state = this.#state;
    const path = manifestPath(state.paths.snapshots, this.jobId, this.sequence);
    let begun = false;
    try {
      const logicalBytes = this.#checkComplete(manifest);
      if (await exists(path)) throw alreadyThere(this.jobId, this.sequence);
      await this.#movePacks();
      await ensureDirectory(jobDirectory(state.paths.snapshots, this.jobId));
      const sizes = { logicalBytes, storedBytes: this.#statistics.storedBytes };
      state.onStep('manifest');
      begun = true;
      await writeManifest(path, manifest, sizes, state, (step) => state.onStep(`manifest ${step}`));
      state.onStep('published');
      this.#phase = 'published';
      this.#enterIndex();
      state.sessions.delete(this.#session);
      await this.#cacheDirectories();
      return {
        jobId: this.jobId,
        jobName: manifest.job.name,
        sequence: this.sequence,
        createdAt: manifest.createdAt,
        state: 'local',
        pinned: manifest.pinned ?? false,
        ...(manifest.note === undefined ? {} : { note: manifest.note }),
        ...sizes,
        manifestBytes: await fileBytes(path),
      };
    } catch (error) {
      if (this.#isPublished()) throw error;
      this.#phase = 'open';
      if (begun) await this.#withdraw(path);
      else await this.abort();
      throw storeWriteError(path, error);
    }
  }

  /** Gives the snapshot up and removes everything it wrote. May be called again, and after `publish` (no effect). */
  async abort(): Promise<void> {
    if (this.#phase !== 'open') return;
    this.#phase = 'aborted';
    // Workers that are still at it stop at their next write; its pending entries in the table count for nobody else.
    Atomics.store(new Int32Array(this.#closed), 0, 1);
    try {
      for (const name of await readdir(this.#state.paths.incoming))
        if (name.startsWith(this.#prefix)) await removeFile(join(this.#state.paths.incoming, name));
      for (const pack of this.#packs) await removeFile(join(this.#state.paths.packs, pack.file));
    } finally {
      this.#state.sessions.delete(this.#session);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort();
  }

  get #prefix(): string {
    return `${this.#session}-`;
  }

  #isPublished(): boolean {
    return this.#phase === 'published';
  }

  /**
   * Refuses a manifest that names a chunk which neither the store nor a collected pack has: a worker that was lost or
   * gave up after others relied on its chunks. Returns the bytes of all streams.
   */
  #checkComplete(manifest: SnapshotManifest): number {
    let fresh = 0;
    for (const pack of this.#packs) fresh += pack.directory.chunkCount;
    const added = ChunkTable.create(fresh);
    const key = new Int32Array(4);
    const keyBytes = new Uint8Array(key.buffer);
    for (const { directory } of this.#packs)
      for (let at = 0; at < directory.chunkCount * chunkIdBytes; at += chunkIdBytes) {
        keyBytes.set(directory.ids.subarray(at, at + 16));
        added.setRow(key, 0);
      }
    let total = 0;
    visitStreams(manifest, (name, { size, chunks }) => {
      total += size;
      if (!(chunks instanceof ChunkList)) return;
      if (chunks.size !== size) throw new Error(`stream ${name} has ${chunks.size} bytes instead of ${size}`);
      for (let i = 0; i < chunks.count; i++) {
        if (chunks.isZero(i)) continue;
        keyBytes.set(chunks.ids.subarray(i * chunkIdBytes, i * chunkIdBytes + 16));
        if (added.trustedRowOf(key) >= 0 || this.#state.index.table.trustedRowOf(key) >= 0) continue;
        throw new CairnError(
          'temporary',
          'snapshot-incomplete',
          `cannot publish snapshot ${this.jobId}@${this.sequence}: chunk ${i} of ${name} was not stored`,
          { remedy: 'take the checkpoint again' },
        );
      }
    });
    return total;
  }

  async #movePacks(): Promise<void> {
    const { paths, onStep } = this.#state;
    for (const pack of this.#packs) {
      onStep('pack rename');
      await rename(pack.path, join(paths.packs, pack.file));
    }
    onStep('packs sync');
    if (this.#packs.length > 0) await syncDirectory(paths.packs);
  }

  #enterIndex(): void {
    for (const { id, file, bytes, directory } of this.#packs)
      this.#state.index.addPack({ id, file, bytes }, directory, this.#session);
  }

  async #cacheDirectories(): Promise<void> {
    const records = this.#packs.map((pack) => ({
      id: Buffer.from(pack.id),
      packBytes: pack.bytes,
      sealedDirectory: Buffer.from(pack.sealedDirectory),
    }));
    // Only a cache: when it cannot be written, the next open reads the packs themselves.
    await this.#state.cache.append(records).catch(() => {});
  }

  /** After a failed publication. The manifest may be in place already, so it goes first, and for good. */
  async #withdraw(path: string): Promise<void> {
    try {
      if (await removeFile(path)) await syncDirectory(jobDirectory(this.#state.paths.snapshots, this.jobId));
    } catch {
      // The manifest may come back after a power cut: its packs must stay. A sweep removes them if it does not.
      this.#packs.length = 0;
    }
    await this.abort();
  }
}

export function alreadyThere(jobId: string, sequence: number): CairnError {
  return new CairnError('argument', 'snapshot-exists', `job ${jobId} has a snapshot ${sequence} already`);
}

async function removeFile(path: string): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false;
    throw error;
  }
}
