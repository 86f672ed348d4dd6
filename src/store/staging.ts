import { adviseHugePages, populatePages } from '../linux/memory.ts';
import { chunkIdBytes, maxChunkBytes } from './format.ts';

const slabBytes = 64 * 1024 * 1024;
const pageBytes = 4096;

const kibibyte = 1024;
/** A slab that is taken from a budget is not smaller than this. */
const leastSlabBytes = 1024 * kibibyte;

/** Memory that several threads may take together, bytes. Safe to use from all of them at once. */
export class StagingBudget {
  /** Int32: the limit and what is taken, KiB. Passes through `postMessage`. */
  readonly memory: SharedArrayBuffer;
  readonly #numbers: Int32Array<SharedArrayBuffer>;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#numbers = new Int32Array(memory);
  }

  static create(limitBytes: number): StagingBudget {
    const budget = new StagingBudget(new SharedArrayBuffer(8));
    budget.#numbers[0] = Math.min(2 ** 31 - 1, Math.floor(limitBytes / kibibyte));
    return budget;
  }

  /** Takes `bytes`, or less if that is all there is; returns how much. */
  take(bytes: number): number {
    const limit = this.#numbers[0] ?? 0;
    for (;;) {
      const used = Atomics.load(this.#numbers, 1);
      const given = Math.min(Math.floor(bytes / kibibyte), limit - used);
      if (given * kibibyte < leastSlabBytes) return 0;
      if (Atomics.compareExchange(this.#numbers, 1, used, used + given) === used) return given * kibibyte;
    }
  }

  giveBack(bytes: number): void {
    Atomics.sub(this.#numbers, 1, bytes / kibibyte);
  }
}

/**
 * Memory for new chunks while the job is frozen. Page faults are dearer then than copying, so `reserve` allocates and
 * touches it beforehand. Kept by a worker between checkpoints, or released.
 */
export class StagingMemory {
  readonly limitBytes: number;
  readonly #budget: StagingBudget | undefined;
  #slabs: Buffer<ArrayBuffer>[] = [];
  #fromBudget = 0;
  #touched = 0;

  /** `limitBytes`: what it may have by itself; beyond that it takes from `budget`. */
  constructor(limitBytes: number, budget?: StagingBudget) {
    this.limitBytes = Math.max(limitBytes, maxChunkBytes);
    this.#budget = budget;
  }

  /** Bytes allocated, whether touched or not. */
  get bytes(): number {
    return this.#slabs.reduce((sum, slab) => sum + slab.length, 0);
  }

  /** Has the pages of the first `bytes` bytes ready (at most the limit). */
  reserve(wanted: number): void {
    let before = 0;
    for (let i = 0; before < wanted; i++) {
      const slab = this.slab(i);
      if (slab === undefined) break;
      const from = Math.max(0, this.#touched - before);
      const to = Math.min(slab.length, wanted - before);
      if (from < to) touch(slab.subarray(from, to));
      before += slab.length;
    }
    this.#touched = Math.max(this.#touched, Math.min(wanted, before));
  }

  /** Slab `i`, allocated when it is first asked for; `undefined` beyond the limit. */
  slab(i: number): Buffer<ArrayBuffer> | undefined {
    const present = this.#slabs[i];
    if (present !== undefined) return present;
    let size = Math.min(slabBytes, this.limitBytes - (this.bytes - this.#fromBudget));
    if (size < maxChunkBytes) {
      size = this.#budget?.take(slabBytes) ?? 0;
      if (size === 0) return undefined;
      this.#fromBudget += size;
    }
    const slab = Buffer.allocUnsafeSlow(size);
    adviseHugePages(slab);
    this.#slabs.push(slab);
    return slab;
  }

  /** Gives the memory back to the system at once, without waiting for the garbage collector. */
  release(): void {
    for (const slab of this.#slabs) slab.buffer.transfer(0);
    this.#slabs = [];
    this.#touched = 0;
    this.#budget?.giveBack(this.#fromBudget);
    this.#fromBudget = 0;
  }
}

function touch(bytes: Uint8Array): void {
  if (populatePages(bytes)) return;
  for (let at = 0; at < bytes.length; at += pageBytes) bytes[at] = 0;
}

/** Chunks that wait in a `StagingMemory`, in the order in which they came. */
export class StagedChunks {
  readonly memory: StagingMemory;
  #ids = new Uint8Array(256 * chunkIdBytes);
  #lengths = new Uint32Array(256);
  #count = 0;
  #bytes = 0;
  #slab = 0;
  #offset = 0;
  /** For each slab the index of its first chunk. */
  #firsts: number[] = [0];

  constructor(memory: StagingMemory) {
    this.memory = memory;
  }

  /** Bytes of the chunks that wait. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Copies a chunk; false if there is no room. */
  add(id: Uint8Array, bytes: Uint8Array): boolean {
    let slab = this.memory.slab(this.#slab);
    if (slab === undefined) return false;
    if (this.#offset + bytes.length > slab.length) {
      slab = this.memory.slab(this.#slab + 1);
      if (slab === undefined) return false;
      this.#slab++;
      this.#offset = 0;
      this.#firsts.push(this.#count);
    }
    slab.set(bytes, this.#offset);
    this.#offset += bytes.length;
    this.#note(id, bytes.length);
    return true;
  }

  /** Calls `use` with the chunks of each slab, which lie there one after the other from its start; then it is empty. */
  drain(use: (plain: Buffer, ids: Uint8Array, lengths: Uint32Array) => void): void {
    for (const [i, first] of this.#firsts.entries()) {
      const slab = this.memory.slab(i);
      const end = this.#firsts[i + 1] ?? this.#count;
      if (slab === undefined || end === first) continue;
      use(
        slab,
        this.#ids.subarray(first * chunkIdBytes, end * chunkIdBytes),
        this.#lengths.subarray(first, end),
      );
    }
    this.clear();
  }

  clear(): void {
    this.#count = 0;
    this.#bytes = 0;
    this.#slab = 0;
    this.#offset = 0;
    this.#firsts = [0];
  }

  #note(id: Uint8Array, length: number): void {
    if (this.#count === this.#lengths.length) {
      const ids = new Uint8Array(this.#ids.length * 2);
      ids.set(this.#ids);
      this.#ids = ids;
      const lengths = new Uint32Array(this.#lengths.length * 2);
      lengths.set(this.#lengths);
      this.#lengths = lengths;
    }
    this.#ids.set(id, this.#count * chunkIdBytes);
    this.#lengths[this.#count++] = length;
    this.#bytes += length;
  }
}
