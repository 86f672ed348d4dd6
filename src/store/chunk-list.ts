import { damagedList } from './damage.ts';
import { chunkIdBytes, maxChunkBytes, maxZeroRunBytes } from './format.ts';

const idWords = chunkIdBytes / 4;
const entryBytes = chunkIdBytes + 4;

/**
 * The content of one stream, as the chunks that make it up, in order.
 *
 * A packed array: entry `i` has the 32 byte name `ids[32 i …]` and the length `lengths[i]`. The all-zero name stands for
 * that many zero bytes, which are not stored. Never changes once built.
 */
export class ChunkList {
  /** Names, 32 bytes each. */
  readonly ids: Uint8Array<ArrayBuffer>;
  /** Bytes of each entry. */
  readonly lengths: Uint32Array<ArrayBuffer>;
  /** Sum of all lengths, bytes. */
  readonly size: number;
  readonly #words: Uint32Array<ArrayBuffer>;

  constructor(ids: Uint8Array<ArrayBuffer>, lengths: Uint32Array<ArrayBuffer>) {
    if (ids.length !== lengths.length * chunkIdBytes || ids.byteOffset % 4 !== 0)
      throw new RangeError('the names of a chunk list do not fit its lengths');
    this.ids = ids;
    this.lengths = lengths;
    this.#words = new Uint32Array(ids.buffer, ids.byteOffset, lengths.length * idWords);
    let size = 0;
    for (const length of lengths) size += length;
    this.size = size;
  }

  /** Number of entries. */
  get count(): number {
    return this.lengths.length;
  }

  /** Whether entry `i` stands for zero bytes. */
  isZero(i: number): boolean {
    const words = this.#words;
    const start = i * idWords;
    for (let word = start; word < start + idWords; word++) if (words[word] !== 0) return false;
    return true;
  }

  /** The name of entry `i`; a view, valid as long as the list. */
  idAt(i: number): Uint8Array<ArrayBuffer> {
    return this.ids.subarray(i * chunkIdBytes, (i + 1) * chunkIdBytes);
  }

  /** Bytes that `serializeInto` writes. */
  get serializedBytes(): number {
    return 4 + this.count * entryBytes;
  }

  /** Writes u32 count, the lengths (u32 each), the names; returns the bytes written. All little endian. */
  serializeInto(target: Uint8Array, offset: number): number {
    const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
    view.setUint32(offset, this.count, true);
    let at = offset + 4;
    for (let i = 0; i < this.count; i++, at += 4) view.setUint32(at, this.lengths[i] ?? 0, true);
    target.set(this.ids, at);
    return this.serializedBytes;
  }

  serialize(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.serializedBytes);
    this.serializeInto(bytes, 0);
    return bytes;
  }

  /** Reads what `serialize` wrote; throws `CairnError` (`chunk-list-damaged`) if it cannot be one. */
  static deserialize(bytes: Uint8Array, offset = 0): ChunkList {
    if (bytes.byteLength < offset + 4) throw damagedList('it ends before its count');
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const count = view.getUint32(offset, true);
    if (bytes.byteLength < offset + 4 + count * entryBytes)
      throw damagedList(`it announces ${count} chunks and has fewer`);
    const lengths = new Uint32Array(count);
    for (let i = 0; i < count; i++) lengths[i] = view.getUint32(offset + 4 + 4 * i, true);
    const start = offset + 4 + 4 * count;
    const list = new ChunkList(
      new Uint8Array(bytes.subarray(start, start + count * chunkIdBytes)),
      new Uint32Array(lengths),
    );
    for (let i = 0; i < count; i++) {
      const length = lengths[i] ?? 0;
      if (length === 0 || (length > maxChunkBytes && !list.isZero(i)))
        throw damagedList(`chunk ${i} has ${length} bytes`);
    }
    return list;
  }
}

/** Takes chunks in order. */
export interface ChunkSink {
  /** A chunk; `id` is copied. */
  push(id: Uint8Array, length: number): void;
  /** `length` zero bytes. */
  pushZeros(length: number): void;
}

/** Collects the entries of a `ChunkList`; neighbouring zero runs become one entry. */
export class ChunkListBuilder implements ChunkSink {
  #ids: Uint8Array<ArrayBuffer>;
  #lengths: Uint32Array<ArrayBuffer>;
  #count = 0;
  #size = 0;
  #endsWithZeros = false;

  /** `capacity`: expected number of entries; it grows when needed. */
  constructor(capacity = 64) {
    this.#ids = new Uint8Array(Math.max(1, capacity) * chunkIdBytes);
    this.#lengths = new Uint32Array(Math.max(1, capacity));
  }

  get count(): number {
    return this.#count;
  }

  /** Sum of all lengths so far, bytes. */
  get size(): number {
    return this.#size;
  }

  /** Appends a chunk; `id` is copied. */
  push(id: Uint8Array, length: number): void {
    this.#grow();
    this.#ids.set(id, this.#count * chunkIdBytes);
    this.#lengths[this.#count++] = length;
    this.#size += length;
    this.#endsWithZeros = false;
  }

  /** Appends `length` zero bytes. */
  pushZeros(length: number): void {
    this.#size += length;
    if (this.#endsWithZeros) {
      const last = this.#count - 1;
      const merged = (this.#lengths[last] ?? 0) + length;
      this.#lengths[last] = Math.min(merged, maxZeroRunBytes);
      length = merged - Math.min(merged, maxZeroRunBytes);
    }
    while (length > 0) {
      this.#grow();
      const part = Math.min(length, maxZeroRunBytes);
      this.#ids.fill(0, this.#count * chunkIdBytes, (this.#count + 1) * chunkIdBytes);
      this.#lengths[this.#count++] = part;
      length -= part;
      this.#endsWithZeros = true;
    }
  }

  /** Appends all entries of another list. */
  append(list: ChunkList): void {
    for (let i = 0; i < list.count; i++) {
      const length = list.lengths[i] ?? 0;
      if (list.isZero(i)) this.pushZeros(length);
      else this.push(list.idAt(i), length);
    }
  }

  /** The list so far; the builder can go on. */
  build(): ChunkList {
    return new ChunkList(this.#ids.slice(0, this.#count * chunkIdBytes), this.#lengths.slice(0, this.#count));
  }

  #grow(): void {
    if (this.#count < this.#lengths.length) return;
    const ids = new Uint8Array(this.#ids.length * 2);
    ids.set(this.#ids);
    this.#ids = ids;
    const lengths = new Uint32Array(this.#lengths.length * 2);
    lengths.set(this.#lengths);
    this.#lengths = lengths;
  }
}
