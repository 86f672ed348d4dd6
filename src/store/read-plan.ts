import { CairnError } from '../errors.ts';
import type { ChunkIndex } from './chunk-index.ts';
import type { ChunkList } from './chunk-list.ts';
import { missingChunk } from './damage.ts';
import { chunkIdBytes } from './format.ts';

const planMagic = 'CAIRNPLN';
const planVersion = 1;
const headBytes = 16;
/** Segment number of entries that stand for zeros. */
export const zeroEntry = 0xffffffff;

/**
 * Where the chunks of some lists are: all that a reader in another thread or process needs besides the keys. Entries are
 * numbered through all lists, in their order; those of list `i` are `listStarts[i]` to `listStarts[i + 1] - 1`. Passes through
 * `postMessage`; `encodeReadPlan` makes a file of it.
 */
export interface ReadPlan {
  /** Files in the directory of packs. */
  packs: { file: string; bytes: number }[];
  listStarts: Uint32Array<ArrayBuffer>;
  /** Segment of this plan that holds the chunk, or `zeroEntry`. */
  entrySegment: Uint32Array<ArrayBuffer>;
  /** Of the chunk in the plain bytes of its segment. */
  entryOffset: Uint32Array<ArrayBuffer>;
  /** Bytes. */
  entryLength: Uint32Array<ArrayBuffer>;
  /** Names, 32 bytes each. */
  entryIds: Uint8Array<ArrayBuffer>;
  /** Segments are numbered in the order in which entries first need them. */
  segmentPack: Uint32Array<ArrayBuffer>;
  segmentOffset: Float64Array<ArrayBuffer>;
  segmentStored: Uint32Array<ArrayBuffer>;
  segmentPlain: Uint32Array<ArrayBuffer>;
  segmentOrdinal: Uint32Array<ArrayBuffer>;
  segmentFlags: Uint8Array<ArrayBuffer>;
}

/**
 * Looks up all chunks of the lists. Throws `chunk-missing` (permanent) for the first that no pack has, naming the packs in
 * `damagedPacks` as possible places.
 */
export function planReads(
  index: ChunkIndex,
  lists: readonly ChunkList[],
  damagedPacks: readonly string[],
): ReadPlan {
  let entries = 0;
  for (const list of lists) entries += list.count;
  const listStarts = new Uint32Array(lists.length + 1);
  const entrySegment = new Uint32Array(entries).fill(zeroEntry);
  const entryOffset = new Uint32Array(entries);
  const entryLength = new Uint32Array(entries);
  const entryIds = new Uint8Array(entries * chunkIdBytes);
  const numbers = new Map<number, number>();
  const segments: number[] = [];
  let entry = 0;
  for (const [number, list] of lists.entries()) {
    listStarts[number] = entry;
    entryIds.set(list.ids, entry * chunkIdBytes);
    entryLength.set(list.lengths, entry);
    for (let i = 0; i < list.count; i++, entry++) {
      if (list.isZero(i)) continue;
      const row = index.rowOf(list.idAt(i));
      if (row < 0 || index.rowLength[row] !== list.lengths[i])
        throw missingChunk(Buffer.from(list.idAt(i)).toString('hex'), damagedPacks);
      const segment = index.rowSegment[row] ?? 0;
      let known = numbers.get(segment);
      if (known === undefined) {
        known = segments.push(segment) - 1;
        numbers.set(segment, known);
      }
      entrySegment[entry] = known;
      entryOffset[entry] = index.rowOffset[row] ?? 0;
    }
  }
  listStarts[lists.length] = entry;
  return {
    listStarts,
    entrySegment,
    entryOffset,
    entryLength,
    entryIds,
    ...planSegments(index, segments),
  };
}

function planSegments(
  index: ChunkIndex,
  segments: readonly number[],
): Pick<ReadPlan, 'packs' | `segment${'Pack' | 'Offset' | 'Stored' | 'Plain' | 'Ordinal' | 'Flags'}`> {
  const numbers = new Map<number, number>();
  const packs: ReadPlan['packs'] = [];
  const segmentPack = Uint32Array.from(segments, (segment) => {
    const pack = index.segmentPack[segment] ?? 0;
    let number = numbers.get(pack);
    if (number === undefined) {
      const { file, bytes } = index.packs[pack] ?? { file: '', bytes: 0 };
      number = packs.push({ file, bytes }) - 1;
      numbers.set(pack, number);
    }
    return number;
  });
  return {
    packs,
    segmentPack,
    segmentOffset: Float64Array.from(segments, (segment) => index.segmentOffset[segment] ?? 0),
    segmentStored: Uint32Array.from(segments, (segment) => index.segmentStored[segment] ?? 0),
    segmentPlain: Uint32Array.from(segments, (segment) => index.segmentPlain[segment] ?? 0),
    segmentOrdinal: Uint32Array.from(segments, (segment) => index.segmentOrdinal[segment] ?? 0),
    segmentFlags: Uint8Array.from(segments, (segment) => index.segmentFlags[segment] ?? 0),
  };
}

const columns = {
  segmentOffset: Float64Array,
  listStarts: Uint32Array,
  entrySegment: Uint32Array,
  entryOffset: Uint32Array,
  entryLength: Uint32Array,
  segmentPack: Uint32Array,
  segmentStored: Uint32Array,
  segmentPlain: Uint32Array,
  segmentOrdinal: Uint32Array,
  entryIds: Uint8Array,
  segmentFlags: Uint8Array,
} as const;
const columnNames = Object.keys(columns) as (keyof typeof columns)[];

/**
 * A plan as the bytes of a file: magic, u32 version, u32 length of a JSON text (padded to 8), that text (packs, and the number
 * of elements of each column), the columns, widest elements first. For another process of the same host and version only: the
 * columns are in the byte order of the processor.
 */
export function encodeReadPlan(plan: ReadPlan): Buffer {
  const counts = columnNames.map((name) => plan[name].length);
  const text = Buffer.from(JSON.stringify({ packs: plan.packs, counts }));
  const padded = Math.ceil(text.length / 8) * 8;
  const head = Buffer.alloc(headBytes + padded, ' ');
  head.write(planMagic, 0, 'latin1');
  head.writeUInt32LE(planVersion, 8);
  head.writeUInt32LE(padded, 12);
  text.copy(head, headBytes);
  const parts = columnNames.map((name) => {
    const column = plan[name];
    return Buffer.from(column.buffer, column.byteOffset, column.byteLength);
  });
  return Buffer.concat([head, ...parts]);
}

/** Reads what `encodeReadPlan` wrote; throws `read-plan-damaged` (permanent). */
export function decodeReadPlan(bytes: Uint8Array): ReadPlan {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < headBytes || buffer.toString('latin1', 0, 8) !== planMagic)
    throw damagedPlan('it does not begin as one');
  if (buffer.readUInt32LE(8) !== planVersion) throw damagedPlan(`its version is ${buffer.readUInt32LE(8)}`);
  const padded = buffer.readUInt32LE(12);
  let head: { packs: ReadPlan['packs']; counts: number[] };
  try {
    head = JSON.parse(buffer.toString('utf8', headBytes, headBytes + padded));
  } catch (cause) {
    throw damagedPlan('its head cannot be read', cause);
  }
  let at = headBytes + padded;
  const read = columnNames.map((name, i) => {
    const Column = columns[name];
    const length = (head.counts[i] ?? 0) * Column.BYTES_PER_ELEMENT;
    if (at + length > buffer.length) throw damagedPlan('it was cut');
    const copy = new Uint8Array(buffer.subarray(at, at + length));
    at += length;
    return [name, new Column(copy.buffer)] as const;
  });
  return { packs: head.packs, ...Object.fromEntries(read) } as ReadPlan;
}

function damagedPlan(what: string, cause?: unknown): CairnError {
  return new CairnError('permanent', 'read-plan-damaged', `cannot use a plan of reads: ${what}`, { cause });
}
