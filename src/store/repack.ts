import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { CairnError } from '../errors.ts';
import { ChunkNamer } from './chunk-name.ts';
import { compress, decompress, looksCompressible } from './compression.ts';
import { damagedChunk } from './damage.ts';
import { chunkIdBytes, maxSegmentBytes, maxSegmentChunks, packLimitBytes } from './format.ts';
import { readPack, segmentOffsets } from './pack-file.ts';
import { openSegment, segmentCompressed } from './pack-format.ts';
import { type PackInfo, PackWriter } from './pack-writer.ts';
import type { StoreState } from './store-state.ts';

/** Living chunks that become a segment of a new pack. `plain` is used again for the next. */
interface LivingSegment {
  plain: Uint8Array;
  ids: Uint8Array;
  lengths: Uint32Array;
}

/**
 * Writes the living chunks of `packs` (numbers of the index) to new packs, complete but not synced, which it adds to `fresh`
 * as they come. Returns the packs whose chunks have all been moved: one with damage in them stays as it is. Calls
 * `betweenSegments` often; what that throws stops it.
 */
export async function repackLiving(
  state: StoreState,
  packs: readonly number[],
  liveRows: Uint8Array,
  fresh: PackInfo[],
  betweenSegments: () => Promise<void>,
): Promise<number[]> {
  const place = {
    dataKey: state.keys.data,
    storeId: state.idBytes,
    incoming: state.paths.incoming,
    prefix: 'sweep-',
  };
  const moved: number[] = [];
  let writer: PackWriter | undefined;
  try {
    for (const pack of packs) {
      try {
        for await (const { plain, ids, lengths } of livingSegments(state, pack, liveRows)) {
          if (writer !== undefined && writer.bytes + plain.length > packLimitBytes) {
            fresh.push(writer.seal(false));
            writer = undefined;
          }
          writer ??= new PackWriter(place);
          const frame = looksCompressible(plain, 0, plain.length) ? compress(plain) : undefined;
          writer.append(plain, frame, ids, lengths);
          await betweenSegments();
        }
        moved.push(pack);
      } catch (error) {
        if (!(error instanceof CairnError) || error.class !== 'permanent') throw error;
      }
    }
    if (writer !== undefined) fresh.push(writer.seal(false));
    writer = undefined;
    return moved;
  } finally {
    writer?.abort();
  }
}

/** The living chunks of a pack, joined to segments; each is compared with its name, so that damage does not spread. */
async function* livingSegments(
  state: StoreState,
  number: number,
  liveRows: Uint8Array,
): AsyncGenerator<LivingSegment> {
  const { index } = state;
  const pack = index.packs[number];
  if (pack === undefined) return;
  const path = join(state.paths.packs, pack.file);
  const store = { idBytes: state.idBytes, dataKey: state.keys.data };
  const { directory, keys } = await readPack(path, pack.id, store);
  const offsets = segmentOffsets(directory);
  const namer = new ChunkNamer(state.keys.hash);
  const handle = await open(path, 'r');
  const buffer = new Uint8Array(maxSegmentBytes);
  let filled = 0;
  let ids: Uint8Array[] = [];
  let lengths: number[] = [];
  const take = (): LivingSegment => {
    const segment = {
      plain: buffer.subarray(0, filled),
      ids: Buffer.concat(ids),
      lengths: Uint32Array.from(lengths),
    };
    filled = 0;
    ids = [];
    lengths = [];
    return segment;
  };
  const readSegment = async (ordinal: number): Promise<Buffer> => {
    const offset = offsets[ordinal] ?? 0;
    const sealed = Buffer.alloc(directory.storedLengths[ordinal] ?? 0);
    await handle.read(sealed, 0, sealed.length, offset);
    const opened = openSegment(keys.encryption, ordinal, sealed);
    const compressed = ((directory.flags[ordinal] ?? 0) & segmentCompressed) !== 0;
    const plain =
      opened !== undefined && compressed ? decompress(opened, directory.plainLengths[ordinal] ?? 0) : opened;
    if (plain === undefined)
      throw damagedChunk(path, offset, sealed.length, 'the bytes are not what was written');
    return plain;
  };
  try {
    let chunk = 0;
    for (let ordinal = 0; ordinal < directory.segmentCount; ordinal++) {
      let plain: Buffer | undefined;
      let within = 0;
      for (let i = directory.chunkCounts[ordinal] ?? 0; i > 0; i--, chunk++) {
        const id = directory.ids.subarray(chunk * chunkIdBytes, (chunk + 1) * chunkIdBytes);
        const length = directory.chunkLengths[chunk] ?? 0;
        const row = index.rowOf(id);
        within += length;
        if (row < 0 || index.packOf(row) !== number || liveRows[row] !== 1) continue;
        plain ??= await readSegment(ordinal);
        const bytes = plain.subarray(within - length, within);
        namer.compute(bytes);
        if (Buffer.compare(namer.name, id) !== 0)
          throw damagedChunk(path, offsets[ordinal] ?? 0, length, 'the content is not what its name says');
        if (filled + length > maxSegmentBytes || lengths.length === maxSegmentChunks) yield take();
        buffer.set(bytes, filled);
        filled += length;
        ids.push(id);
        lengths.push(length);
      }
    }
    if (filled > 0) yield take();
  } finally {
    await handle.close();
  }
}
