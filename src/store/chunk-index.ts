import { ChunkTable } from './chunk-table.ts';
import { chunkIdBytes, packHeaderBytes } from './format.ts';
import { grown } from './growing.ts';
import type { PackDirectory } from './pack-format.ts';

/** A pack that the index knows. */
export interface IndexedPack {
  /** 16 bytes. */
  id: Uint8Array;
  /** Name of the file in the directory of packs. */
  file: string;
  /** Bytes of the file. */
  bytes: number;
}

/**
 * Where every chunk is. Belongs to the main thread; only `table` is shared with workers. Chunks are rows, rows belong to
 * segments, segments to packs; all are columns of numbers, about 60 bytes for each chunk together with the table.
 */
export class ChunkIndex {
  table: ChunkTable;
  readonly packs: IndexedPack[] = [];
  rowCount = 0;
  rowSegment = new Uint32Array(1024);
  /** Of the chunk in the plain bytes of its segment. */
  rowOffset = new Uint32Array(1024);
  rowLength = new Uint32Array(1024);
  segmentCount = 0;
  segmentPack = new Uint32Array(256);
  /** Of the segment in the file; beyond 32 bits only in packs of other settings, but numbers hold it. */
  segmentOffset = new Float64Array(256);
  segmentStored = new Uint32Array(256);
  segmentPlain = new Uint32Array(256);
  /** Place of the segment in its pack, from which its nonce is made. */
  segmentOrdinal = new Uint32Array(256);
  segmentFlags = new Uint8Array(256);
  readonly #key = new Int32Array(4);
  readonly #keyBytes = new Uint8Array(this.#key.buffer);

  constructor(expectedChunks = 0) {
    this.table = ChunkTable.create(expectedChunks);
  }

  /** Row of a chunk by its name, or -1. */
  rowOf(id: Uint8Array): number {
    return this.table.rowOf(this.#keyOf(id));
  }

  /** Number of the pack that holds a row. */
  packOf(row: number): number {
    return this.segmentPack[this.rowSegment[row] ?? 0] ?? 0;
  }

  /** Makes room for `chunks` more, in a new table if needed (workers that have the old one go on with it). */
  reserve(chunks: number): void {
    if (this.table.hasRoomFor(chunks)) return;
    const old = this.table;
    let present = 0;
    old.forEach(() => present++);
    this.table = ChunkTable.create(present + chunks);
    old.forEach((key, row, trusted) => this.#enter(key, row, trusted));
  }

  /**
   * Adds all chunks of a pack. Those that another pack has already stay where they are. `session` is the snapshot that
   * wrote it, whose pending entries become rows. Chunks of segments in `distrusted` can be read but are not known.
   */
  addPack(
    pack: IndexedPack,
    directory: PackDirectory,
    session = 0,
    distrusted: ReadonlySet<number> = new Set(),
  ): void {
    this.reserve(directory.chunkCount);
    this.#makeSpace(directory);
    const number = this.packs.push(pack) - 1;
    let offset = packHeaderBytes;
    let chunk = 0;
    for (let ordinal = 0; ordinal < directory.segmentCount; ordinal++) {
      const segment = this.segmentCount++;
      const stored = directory.storedLengths[ordinal] ?? 0;
      this.segmentPack[segment] = number;
      this.segmentOffset[segment] = offset;
      this.segmentStored[segment] = stored;
      this.segmentPlain[segment] = directory.plainLengths[ordinal] ?? 0;
      this.segmentOrdinal[segment] = ordinal;
      this.segmentFlags[segment] = directory.flags[ordinal] ?? 0;
      offset += stored;
      let within = 0;
      for (let i = directory.chunkCounts[ordinal] ?? 0; i > 0; i--, chunk++) {
        const row = this.rowCount++;
        this.rowSegment[row] = segment;
        this.rowOffset[row] = within;
        this.rowLength[row] = directory.chunkLengths[chunk] ?? 0;
        within += this.rowLength[row] ?? 0;
        const key = this.#keyOf(directory.ids.subarray(chunk * chunkIdBytes, (chunk + 1) * chunkIdBytes));
        const entered = this.table.setRow(key, row, session);
        if (entered && distrusted.has(ordinal)) this.table.distrust(key, row);
      }
    }
  }

  /** No chunk of these segments counts as known any more. */
  distrustSegments(damaged: (segment: number) => boolean): void {
    this.table.forEach((key, row) => {
      if (damaged(this.rowSegment[row] ?? 0)) this.table.distrust(key, row);
    });
  }

  /** The same index without the packs that `keep` refuses; also without the traces of snapshots that were given up. */
  without(keep: (pack: number) => boolean): ChunkIndex {
    let count = 0;
    for (let row = 0; row < this.rowCount; row++) if (keep(this.packOf(row))) count++;
    const next = new ChunkIndex(count);
    const numbers = this.packs.map((pack, i) => (keep(i) ? next.packs.push(pack) - 1 : -1));
    const segments = new Int32Array(this.segmentCount).fill(-1);
    for (let i = 0; i < this.segmentCount; i++) {
      const pack = numbers[this.segmentPack[i] ?? 0] ?? -1;
      if (pack < 0) continue;
      const segment = next.segmentCount++;
      segments[i] = segment;
      next.#growSegments();
      next.segmentPack[segment] = pack;
      next.segmentOffset[segment] = this.segmentOffset[i] ?? 0;
      next.segmentStored[segment] = this.segmentStored[i] ?? 0;
      next.segmentPlain[segment] = this.segmentPlain[i] ?? 0;
      next.segmentOrdinal[segment] = this.segmentOrdinal[i] ?? 0;
      next.segmentFlags[segment] = this.segmentFlags[i] ?? 0;
    }
    const rows = new Int32Array(this.rowCount).fill(-1);
    for (let i = 0; i < this.rowCount; i++) {
      const segment = segments[this.rowSegment[i] ?? 0] ?? -1;
      if (segment < 0) continue;
      const row = next.rowCount++;
      rows[i] = row;
      next.#growRows();
      next.rowSegment[row] = segment;
      next.rowOffset[row] = this.rowOffset[i] ?? 0;
      next.rowLength[row] = this.rowLength[i] ?? 0;
    }
    this.table.forEach((key, old, trusted) => {
      const row = rows[old] ?? -1;
      if (row >= 0) next.#enter(key, row, trusted);
    });
    return next;
  }

  #enter(key: Int32Array, row: number, trusted: boolean): void {
    this.table.setRow(key, row);
    if (!trusted) this.table.distrust(key, row);
  }

  #keyOf(id: Uint8Array): Int32Array {
    this.#keyBytes.set(id.subarray(0, 16));
    return this.#key;
  }

  #makeSpace(directory: PackDirectory): void {
    this.#growRows(this.rowCount + directory.chunkCount);
    this.#growSegments(this.segmentCount + directory.segmentCount);
  }

  #growRows(wanted = this.rowCount): void {
    this.rowSegment = grown(this.rowSegment, wanted);
    this.rowOffset = grown(this.rowOffset, wanted);
    this.rowLength = grown(this.rowLength, wanted);
  }

  #growSegments(wanted = this.segmentCount): void {
    this.segmentPack = grown(this.segmentPack, wanted);
    this.segmentOffset = grown(this.segmentOffset, wanted);
    this.segmentStored = grown(this.segmentStored, wanted);
    this.segmentPlain = grown(this.segmentPlain, wanted);
    this.segmentOrdinal = grown(this.segmentOrdinal, wanted);
    this.segmentFlags = grown(this.segmentFlags, wanted);
  }
}
