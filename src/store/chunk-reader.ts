import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../errors.ts';
import { ChunkNamer } from './chunk-name.ts';
import { decompress } from './compression.ts';
import { damagedChunk, damagedPack } from './damage.ts';
import { chunkIdBytes } from './format.ts';
import { openSegment, segmentCompressed } from './pack-format.ts';
import { releaseBuffer } from './release-buffer.ts';
import { type ReadPlan, zeroEntry } from './read-plan.ts';

/** What a reader needs besides its plan; secret. Passes through `postMessage`. */
export interface ReaderEnvironment {
  /** Directory of packs. */
  packDirectory: string;
  hashKey: Uint8Array;
  /** Keys of the packs of the plan, 32 bytes each, in their order: no more than the plan needs. */
  packKeys: Uint8Array;
}

const keyBytes = 32;
/** Neighbouring segments are read together up to this many bytes when reads are sequential. */
const readAheadBytes = 1024 * 1024;

/**
 * Reads chunks: decrypts, decompresses, and compares the name with the content, so that what comes out is what the signed
 * manifest names. Synchronous; one for each thread. Errors (permanent): `chunk-damaged`, `pack-damaged`.
 */
export class ChunkReader implements Disposable {
  readonly #environment: ReaderEnvironment;
  readonly #plan: ReadPlan;
  readonly #namer: ChunkNamer;
  readonly #cachedSegments: number;
  readonly #openPacks: number;
  /** In the order of use, the oldest first. */
  readonly #segments = new Map<number, Buffer>();
  readonly #files = new Map<number, number>();
  readonly #starts = new Map<number, Float64Array>();
  #window: { pack: number; offset: number; length: number; bytes: Buffer } | undefined;
  #lastSegment = -1;
  /** The entry whose name was compared last: ranges are often smaller than chunks. */
  #lastEntry = -1;

  /** `cachedSegments`: decoded segments (256 KiB each) to keep; `openPacks`: descriptors to keep. */
  constructor(
    environment: ReaderEnvironment,
    plan: ReadPlan,
    options: { cachedSegments?: number; openPacks?: number } = {},
  ) {
    this.#environment = environment;
    this.#plan = plan;
    this.#namer = new ChunkNamer(environment.hashKey);
    this.#cachedSegments = Math.max(1, options.cachedSegments ?? 32);
    this.#openPacks = Math.max(1, options.openPacks ?? 16);
  }

  /** Bytes of an entry. */
  lengthOf(entry: number): number {
    return this.#plan.entryLength[entry] ?? 0;
  }

  /** Whether an entry stands for zeros. */
  isZero(entry: number): boolean {
    return this.#plan.entrySegment[entry] === zeroEntry;
  }

  /** Writes the bytes of an entry to `target` from `offset`; returns how many. `target` must have room (zero runs are long). */
  readInto(entry: number, target: Uint8Array, offset: number): number {
    const length = this.lengthOf(entry);
    if (offset + length > target.length) throw new RangeError(`no room for ${length} bytes at ${offset}`);
    if (this.isZero(entry)) target.fill(0, offset, offset + length);
    else target.set(this.view(entry), offset);
    return length;
  }

  /** The bytes of an entry that is not zero, without copying: to be used before the next call, and not to be changed. */
  view(entry: number): Uint8Array {
    const plan = this.#plan;
    const segment = plan.entrySegment[entry];
    if (segment === undefined || segment === zeroEntry) throw new RangeError(`entry ${entry} has no chunk`);
    const start = plan.entryOffset[entry] ?? 0;
    const plain = this.#segment(segment);
    const chunk = plain.subarray(start, start + this.lengthOf(entry));
    if (entry === this.#lastEntry) return chunk;
    this.#namer.compute(chunk);
    const at = entry * chunkIdBytes;
    if (Buffer.compare(this.#namer.name, plan.entryIds.subarray(at, at + chunkIdBytes)) !== 0)
      throw this.#damaged(segment, 'the content is not what its name says');
    this.#lastEntry = entry;
    return chunk;
  }

  /** Bytes of a list. */
  sizeOf(list: number): number {
    return this.#startsOf(list).at(-1) ?? 0;
  }

  /** Fills `target` with the bytes of a list from `position`; returns how many, fewer only at its end. */
  readRange(list: number, position: number, target: Uint8Array): number {
    const starts = this.#startsOf(list);
    const first = this.#plan.listStarts[list] ?? 0;
    const end = Math.min(position + target.length, starts.at(-1) ?? 0);
    let done = position;
    for (let i = entryAt(starts, position); done < end; i++) {
      const within = done - (starts[i] ?? 0);
      const length = Math.min((starts[i + 1] ?? 0) - done, end - done);
      const at = done - position;
      if (this.isZero(first + i)) target.fill(0, at, at + length);
      else target.set(this.view(first + i).subarray(within, within + length), at);
      done += length;
    }
    return Math.max(0, done - position);
  }

  /** All bytes of a list; for small ones. */
  readAll(list: number): Buffer<ArrayBuffer> {
    const bytes = Buffer.alloc(this.sizeOf(list));
    this.readRange(list, 0, bytes);
    return bytes;
  }

  [Symbol.dispose](): void {
    for (const fd of this.#files.values()) closeSync(fd);
    this.#files.clear();
    this.#segments.clear();
    this.#window = undefined;
  }

  #startsOf(list: number): Float64Array {
    let starts = this.#starts.get(list);
    if (starts === undefined) {
      const first = this.#plan.listStarts[list] ?? 0;
      const count = (this.#plan.listStarts[list + 1] ?? first) - first;
      starts = new Float64Array(count + 1);
      for (let i = 0; i < count; i++) starts[i + 1] = (starts[i] ?? 0) + this.lengthOf(first + i);
      this.#starts.set(list, starts);
    }
    return starts;
  }

  #segment(segment: number): Buffer {
    const cached = this.#segments.get(segment);
    if (cached !== undefined) {
      if (segment !== this.#lastSegment) {
        this.#segments.delete(segment);
        this.#segments.set(segment, cached);
      }
      this.#lastSegment = segment;
      return cached;
    }
    this.#lastEntry = -1;
    const plan = this.#plan;
    const pack = plan.segmentPack[segment] ?? 0;
    const sealed = this.#read(segment, pack);
    const key = this.#environment.packKeys.subarray(pack * keyBytes, (pack + 1) * keyBytes);
    const opened = openSegment(key, plan.segmentOrdinal[segment] ?? 0, sealed);
    if (opened === undefined) throw this.#damaged(segment, 'the bytes are not what was written');
    const plainLength = plan.segmentPlain[segment] ?? 0;
    const compressed = ((plan.segmentFlags[segment] ?? 0) & segmentCompressed) !== 0;
    const plain = compressed ? decompress(opened, plainLength) : opened;
    if (compressed) releaseBuffer(opened);
    if (plain === undefined || plain.length !== plainLength)
      throw this.#damaged(segment, 'its content cannot be decompressed');
    if (this.#segments.size >= this.#cachedSegments) {
      const oldest = this.#segments.keys().next();
      if (oldest.done !== true) {
        releaseBuffer(this.#segments.get(oldest.value) ?? plain);
        this.#segments.delete(oldest.value);
      }
    }
    this.#segments.set(segment, plain);
    this.#lastSegment = segment;
    return plain;
  }

  /** The encrypted bytes of a segment, with its neighbours if the reads so far were in order. */
  #read(segment: number, pack: number): Buffer {
    const plan = this.#plan;
    const offset = plan.segmentOffset[segment] ?? 0;
    const length = plan.segmentStored[segment] ?? 0;
    const window = this.#window;
    if (
      window !== undefined &&
      window.pack === pack &&
      offset >= window.offset &&
      offset + length <= window.offset + window.length
    )
      return window.bytes.subarray(offset - window.offset, offset - window.offset + length);
    let end = offset + length;
    if (segment === this.#lastSegment + 1)
      for (
        let next = segment + 1;
        plan.segmentPack[next] === pack && plan.segmentOffset[next] === end;
        next++
      ) {
        const stored = plan.segmentStored[next] ?? 0;
        if (end + stored - offset > readAheadBytes) break;
        end += stored;
      }
    const wanted = end - offset;
    const bytes =
      window !== undefined && window.bytes.length >= wanted
        ? window.bytes
        : Buffer.allocUnsafeSlow(Math.max(wanted, readAheadBytes));
    const got = this.#pread(pack, bytes, wanted, offset);
    this.#window = { pack, offset, length: got, bytes };
    if (got < length) throw this.#damaged(segment, `the file ends after ${offset + got} bytes`);
    return bytes.subarray(0, length);
  }

  #pread(pack: number, bytes: Buffer, wanted: number, offset: number): number {
    let done = 0;
    try {
      const fd = this.#file(pack);
      while (done < wanted) {
        const n = readSync(fd, bytes, done, wanted - done, offset + done);
        if (n === 0) break;
        done += n;
      }
    } catch (error) {
      this.#window = undefined;
      throw damagedPack(this.#pathOf(pack), `it cannot be read: ${messageOf(error)}`);
    }
    return done;
  }

  #file(pack: number): number {
    const open = this.#files.get(pack);
    if (open !== undefined) return open;
    if (this.#files.size >= this.#openPacks) {
      const oldest = this.#files.entries().next();
      if (oldest.done !== true) {
        closeSync(oldest.value[1]);
        this.#files.delete(oldest.value[0]);
      }
    }
    const fd = openSync(this.#pathOf(pack), 'r');
    this.#files.set(pack, fd);
    return fd;
  }

  #pathOf(pack: number): string {
    return join(this.#environment.packDirectory, this.#plan.packs[pack]?.file ?? '');
  }

  #damaged(segment: number, what: string): Error {
    const plan = this.#plan;
    const path = this.#pathOf(plan.segmentPack[segment] ?? 0);
    return damagedChunk(path, plan.segmentOffset[segment] ?? 0, plan.segmentStored[segment] ?? 0, what);
  }
}

/** Index of the entry that holds `position`, by bisection. */
function entryAt(starts: Float64Array, position: number): number {
  let low = 0;
  let high = starts.length - 1;
  while (low < high - 1) {
    const middle = (low + high) >>> 1;
    if ((starts[middle] ?? 0) <= position) low = middle;
    else high = middle;
  }
  return low;
}
