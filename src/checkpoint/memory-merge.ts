import { chunkIdBytes } from '../store/format.ts';
import { ChunkList } from '../store/chunk-list.ts';
import type { ReadMemory } from './capture-protocol.ts';
import { pageSize, runFields } from './memory-segments.ts';

/** Numbers that describe one segment in `ReadMemory.segments`. */
export const segmentFields = 5;

/** The memory of one process: which pages it has and the chunks that hold them, in the same order. */
export interface MergedMemory {
  runs: Float64Array<ArrayBuffer>;
  chunks: ChunkList;
}

/** Puts what several workers read into the order of addresses. Throws if a segment is missing or was read twice. */
export function mergeMemory(parts: readonly ReadMemory[], segmentCount: number): MergedMemory {
  const owner = new Int32Array(segmentCount).fill(-1);
  const place = new Int32Array(segmentCount);
  let runNumbers = 0;
  let chunkCount = 0;
  parts.forEach((part, p) => {
    runNumbers += part.runs.length;
    chunkCount += part.lengths.length;
    for (let s = 0; s < part.segments.length; s += segmentFields) {
      const index = part.segments[s] as number;
      if (owner[index] !== -1) throw new Error(`memory segment ${index} was read twice`);
      owner[index] = p;
      place[index] = s;
    }
  });
  const runs = new Float64Array(runNumbers);
  const ids = new Uint8Array(chunkCount * chunkIdBytes);
  const lengths = new Uint32Array(chunkCount);
  let runAt = 0;
  let chunkAt = 0;
  for (let index = 0; index < segmentCount; index++) {
    const part = parts[owner[index] as number];
    if (part === undefined) throw new Error(`memory segment ${index} was not read`);
    const s = place[index] as number;
    const firstRun = part.segments[s + 1] as number;
    const runCount = part.segments[s + 2] as number;
    const firstChunk = part.segments[s + 3] as number;
    const chunks = part.segments[s + 4] as number;
    runs.set(part.runs.subarray(firstRun * runFields, (firstRun + runCount) * runFields), runAt);
    runAt += runCount * runFields;
    ids.set(
      part.ids.subarray(firstChunk * chunkIdBytes, (firstChunk + chunks) * chunkIdBytes),
      chunkAt * chunkIdBytes,
    );
    lengths.set(part.lengths.subarray(firstChunk, firstChunk + chunks), chunkAt);
    chunkAt += chunks;
  }
  return { runs: joinRuns(runs), chunks: new ChunkList(ids, lengths) };
}

/** Joins runs that follow on each other with the same flags. */
function joinRuns(runs: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  let out = 0;
  for (let i = 0; i < runs.length; i += runFields) {
    const last = out - runFields;
    if (
      out > 0 &&
      runs[last + 2] === runs[i + 2] &&
      (runs[last] as number) + (runs[last + 1] as number) * pageSize === runs[i]
    )
      runs[last + 1] = (runs[last + 1] as number) + (runs[i + 1] as number);
    else {
      runs.copyWithin(out, i, i + runFields);
      out += runFields;
    }
  }
  return runs.slice(0, out);
}
