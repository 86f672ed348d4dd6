import { CairnError } from '../errors.ts';
import type { ChunkSink } from './chunk-list.ts';
import { ChunkNamer } from './chunk-name.ts';
import { ChunkTable, claimResult } from './chunk-table.ts';
import { CompressionTrial, looksCompressible } from './compression.ts';
import { chunkIdBytes, maxChunkBytes, maxSegmentBytes, maxSegmentChunks } from './format.ts';
import { type PackInfo, type PackPlace, PackWriter } from './pack-writer.ts';
import { releaseBuffer } from './release-buffer.ts';
import { StagedChunks, type StagingBudget, StagingMemory } from './staging.ts';

/** What a worker thread needs to write chunks of one snapshot; passes through `postMessage`. Holds keys. */
export interface WriterEnvironment extends PackPlace {
  hashKey: Uint8Array;
  /** Number of this snapshot in the chunk table. */
  session: number;
  /** The chunk table. */
  table: SharedArrayBuffer;
  /** Int32: not 0 once the snapshot was published or given up. */
  closed: SharedArrayBuffer;
  packLimitBytes: number;
}

/** Bytes that went through a writer. */
export interface WriterStatistics {
  seenBytes: number;
  zeroBytes: number;
  /** Chunks that the store had already. */
  knownBytes: number;
  newBytes: number;
  /** What the new ones take in the packs. */
  storedBytes: number;
}

/** What a worker hands back to its `SnapshotWriter`; passes through `postMessage`. */
export interface SealedPacks {
  packs: PackInfo[];
  statistics: WriterStatistics;
}

const zeros = Buffer.alloc(maxChunkBytes);
/** Memory of `write`, which compresses and writes out whenever it is full. */
const writeBufferBytes = 4 * maxSegmentBytes;

/**
 * Cuts nothing and decides nothing: takes chunks, keeps those the store lacks, and writes them to packs of its own. One for
 * each thread; every call is synchronous. Errors: `store-full` (temporary), `snapshot-closed` (temporary).
 */
export class ChunkWriter implements Disposable {
  readonly #environment: WriterEnvironment;
  readonly #table: ChunkTable;
  readonly #namer: ChunkNamer;
  readonly #closed: Int32Array;
  readonly #staging: StagingMemory;
  readonly #ownsStaging: boolean;
  readonly #staged: StagedChunks;
  #writing: StagedChunks | undefined;
  readonly #trial = new CompressionTrial();
  #pack: PackWriter | undefined;
  #finished: PackInfo[] = [];
  #statistics: WriterStatistics = noStatistics();

  /**
   * @param options.staging memory to use again, from an earlier checkpoint; not released by `dispose`
   * @param options.stagingLimitBytes most bytes of new chunks to hold in memory, if no `staging` is given
   * @param options.stagingBudget what it may take beyond that, together with others
   */
  constructor(
    environment: WriterEnvironment,
    options: { stagingLimitBytes?: number; stagingBudget?: StagingBudget; staging?: StagingMemory } = {},
  ) {
    this.#environment = environment;
    this.#table = new ChunkTable(environment.table);
    this.#namer = new ChunkNamer(environment.hashKey);
    this.#closed = new Int32Array(environment.closed);
    this.#staging =
      options.staging ??
      new StagingMemory(options.stagingLimitBytes ?? writeBufferBytes, options.stagingBudget);
    this.#ownsStaging = options.staging === undefined;
    this.#staged = new StagedChunks(this.#staging);
  }

  get statistics(): Readonly<WriterStatistics> {
    return this.#statistics;
  }

  /** Bytes of new chunks that wait in memory. */
  get stagedBytes(): number {
    return this.#staged.bytes;
  }

  /** Has memory for `bytes` bytes of new chunks ready, so that `stage` causes no page faults. */
  reserve(bytes: number): void {
    this.#staging.reserve(bytes);
  }

  /**
   * Takes one chunk (at most 64 KiB), appends it to `list` and returns whether it is new. Nobody may change `bytes` meanwhile;
   * afterwards the caller can use it again. New ones are copied to staging
   * memory; when that is full, what it holds is written out uncompressed, because somebody is frozen and waits.
   */
  stage(bytes: Uint8Array, list: ChunkSink): boolean {
    if (!this.#isNew(bytes, list)) return false;
    if (!this.#staged.add(this.#namer.name, bytes)) {
      this.#drain(this.#staged, false);
      this.#staged.add(this.#namer.name, bytes);
    }
    return true;
  }

  /** Takes a chunk by its name; false, and nothing is taken, if the store lacks it: then `stage` or `write` it. */
  reuse(name: Uint8Array, length: number, list: ChunkSink): boolean {
    this.#namer.use(name);
    if (!this.#table.has(this.#namer.key, this.#environment.session)) return false;
    this.#statistics.seenBytes += length;
    this.#statistics.knownBytes += length;
    list.push(name, length);
    return true;
  }

  /** As `stage`, but compresses and writes out as it goes; needs 1 MiB of memory. */
  write(bytes: Uint8Array, list: ChunkSink): boolean {
    if (!this.#isNew(bytes, list)) return false;
    this.#writing ??= new StagedChunks(new StagingMemory(writeBufferBytes));
    if (!this.#writing.add(this.#namer.name, bytes)) {
      this.#drain(this.#writing, true);
      this.#writing.add(this.#namer.name, bytes);
    }
    return true;
  }

  /** Takes a stream that begins at a chunk boundary in one piece. */
  writeAll(bytes: Uint8Array, list: ChunkSink): void {
    for (let at = 0; at < bytes.length; at += maxChunkBytes)
      this.write(bytes.subarray(at, at + maxChunkBytes), list);
  }

  /** Compresses, encrypts and writes out what waits in memory. */
  flush(): void {
    this.#drain(this.#staged, true);
    if (this.#writing !== undefined) this.#drain(this.#writing, true);
  }

  /** Flushes, completes the packs and syncs them. The writer can go on; the next `seal` tells of what came since. */
  seal(): SealedPacks {
    this.flush();
    this.#sealPack();
    const sealed = { packs: this.#finished, statistics: this.#statistics };
    this.#finished = [];
    this.#statistics = noStatistics();
    return sealed;
  }

  /** Forgets what waits and removes the pack that is not sealed. Sealed ones are removed by the `SnapshotWriter`. */
  abort(): void {
    this.#staged.clear();
    this.#writing?.clear();
    this.#pack?.abort();
    this.#pack = undefined;
  }

  [Symbol.dispose](): void {
    this.abort();
    this.#writing?.memory.release();
    if (this.#ownsStaging) this.#staging.release();
  }

  #isNew(bytes: Uint8Array, list: ChunkSink): boolean {
    const length = bytes.length;
    if (length === 0) return false;
    if (length > maxChunkBytes) throw new RangeError(`a chunk of ${length} bytes`);
    this.#statistics.seenBytes += length;
    if (zeros.compare(bytes, 0, length, 0, length) === 0) {
      this.#statistics.zeroBytes += length;
      list.pushZeros(length);
      return false;
    }
    this.#namer.compute(bytes);
    list.push(this.#namer.name, length);
    if (this.#table.claim(this.#namer.key, this.#environment.session) === claimResult.known) {
      this.#statistics.knownBytes += length;
      return false;
    }
    this.#statistics.newBytes += length;
    return true;
  }

  #drain(staged: StagedChunks, compressing: boolean): void {
    staged.drain((plain, ids, lengths) => {
      let offset = 0;
      for (let first = 0; first < lengths.length; ) {
        const compressible = compressing && looksCompressible(plain, offset, lengths[first] ?? 0);
        let length = lengths[first] ?? 0;
        let end = first + 1;
        for (; end < lengths.length && end - first < maxSegmentChunks; end++) {
          const next = lengths[end] ?? 0;
          if (length + next > maxSegmentBytes) break;
          if (compressing && looksCompressible(plain, offset + length, next) !== compressible) break;
          length += next;
        }
        const segment = plain.subarray(offset, offset + length);
        const frame = compressible ? this.#trial.compress(segment) : undefined;
        this.#append(
          segment,
          frame,
          ids.subarray(first * chunkIdBytes, end * chunkIdBytes),
          lengths.subarray(first, end),
        );
        if (frame !== undefined) releaseBuffer(frame);
        offset += length;
        first = end;
      }
    });
  }

  #append(segment: Uint8Array, frame: Uint8Array | undefined, ids: Uint8Array, lengths: Uint32Array): void {
    if (Atomics.load(this.#closed, 0) !== 0)
      throw new CairnError(
        'temporary',
        'snapshot-closed',
        'the snapshot these chunks belong to was given up',
      );
    if (this.#pack !== undefined && this.#pack.bytes + segment.length > this.#environment.packLimitBytes)
      this.#sealPack();
    this.#pack ??= new PackWriter(this.#environment);
    this.#statistics.storedBytes += this.#pack.append(segment, frame, ids, lengths);
  }

  #sealPack(): void {
    if (this.#pack === undefined) return;
    this.#finished.push(this.#pack.seal());
    this.#pack = undefined;
  }
}

function noStatistics(): WriterStatistics {
  return { seenBytes: 0, zeroBytes: 0, knownBytes: 0, newBytes: 0, storedBytes: 0 };
}

/** Sum of what several writers saw. */
export function addStatistics(a: WriterStatistics, b: WriterStatistics): WriterStatistics {
  return {
    seenBytes: a.seenBytes + b.seenBytes,
    zeroBytes: a.zeroBytes + b.zeroBytes,
    knownBytes: a.knownBytes + b.knownBytes,
    newBytes: a.newBytes + b.newBytes,
    storedBytes: a.storedBytes + b.storedBytes,
  };
}
