import { join } from 'node:path';
import { CairnError } from '../errors.ts';
import { ChunkList } from './chunk-list.ts';
import { ChunkReader } from './chunk-reader.ts';
import type { Damage } from './damage.ts';
import { chunkIdBytes } from './format.ts';
import { manifestPath, readManifestFile } from './manifest-file.ts';
import { type SnapshotManifest, visitStreams } from './manifest.ts';
import { readPack } from './pack-file.ts';
import { writeDamaged } from './store-files.ts';
import { Breather, environmentFor, resolveLists, type StoreState } from './store-state.ts';

/** What `Store.verify` found. */
export interface VerifyReport {
  jobId: string;
  sequence: number;
  /** Different chunks that were read, decrypted and compared with their names. */
  chunks: number;
  /** Their plain bytes. */
  bytes: number;
  /** Empty: the snapshot is whole. */
  damage: Damage[];
}

/** Bytes done and to do. */
export type VerifyProgress = (doneBytes: number, totalBytes: number) => void;

/**
 * Reads everything that a snapshot needs and compares it with what was signed: manifest, packs' own structure, every chunk.
 * Damaged chunks stop counting as known, so that the next checkpoint stores them again.
 */
export async function verifySnapshot(
  state: StoreState,
  jobId: string,
  sequence: number,
  options: { onProgress?: VerifyProgress; signal?: AbortSignal },
): Promise<VerifyReport> {
  const report: VerifyReport = { jobId, sequence, chunks: 0, bytes: 0, damage: [] };
  const path = manifestPath(state.paths.snapshots, jobId, sequence);
  let manifest: SnapshotManifest;
  try {
    ({ manifest } = await readManifestFile(path, jobId, sequence, state));
  } catch (error) {
    if (!(error instanceof CairnError) || error.class === 'argument') throw error;
    report.damage.push({ code: error.code, file: path, message: error.message });
    return report;
  }
  const breather = new Breather(options.signal);
  const chunks = await findChunks(state, manifest, breather, report.damage);
  const plan = resolveLists(state, [chunks]);
  using reader = new ChunkReader(environmentFor(state, plan), plan, { cachedSegments: 2 });
  await verifyPacks(state, plan.packs, breather, report.damage);
  const bad = new Map<string, number[]>();
  for (let entry = 0; entry < chunks.count; entry++) {
    await breather.breathe();
    try {
      reader.view(entry);
      report.chunks++;
      report.bytes += reader.lengthOf(entry);
    } catch (error) {
      if (!(error instanceof CairnError)) throw error;
      const id = Buffer.from(chunks.idAt(entry)).toString('hex');
      const segment = plan.entrySegment[entry] ?? 0;
      const file = plan.packs[plan.segmentPack[segment] ?? 0]?.file ?? '';
      const ordinals = bad.get(file) ?? [];
      ordinals.push(plan.segmentOrdinal[segment] ?? 0);
      bad.set(file, ordinals);
      report.damage.push({
        code: error.code,
        file: join(state.paths.packs, file),
        offset: plan.segmentOffset[segment] ?? 0,
        length: plan.segmentStored[segment] ?? 0,
        chunk: id,
        message: error.message,
      });
    }
    options.onProgress?.(report.bytes, chunks.size);
  }
  nameStreams(manifest, report.damage);
  if (bad.size > 0) await distrust(state, bad);
  return report;
}

/** Every chunk of the snapshot once, in the order of the packs; those that no pack has go to `damage`. */
async function findChunks(
  state: StoreState,
  manifest: SnapshotManifest,
  breather: Breather,
  damage: Damage[],
): Promise<ChunkList> {
  const rows = new Map<number, Uint8Array>();
  const missing = new Set<string>();
  for (const { chunks } of streamsOf(manifest)) {
    await breather.breathe();
    for (let i = 0; i < chunks.count; i++) {
      if (chunks.isZero(i)) continue;
      const row = state.index.rowOf(chunks.idAt(i));
      if (row >= 0 && state.index.rowLength[row] === chunks.lengths[i]) rows.set(row, chunks.idAt(i));
      else missing.add(Buffer.from(chunks.idAt(i)).toString('hex'));
    }
  }
  const lost = [...state.damagedPacks].map(([file, reason]) => ({
    file: join(state.paths.packs, file),
    reason,
  }));
  for (const { file, reason } of missing.size > 0 ? lost : [])
    damage.push({ code: 'pack-damaged', file, message: reason });
  for (const chunk of missing)
    damage.push({
      code: 'chunk-missing',
      file: manifestPath(state.paths.snapshots, manifest.job.id, manifest.sequence),
      chunk,
      message: `chunk ${chunk} is in no pack of the store`,
    });
  const ordered = [...rows.keys()].sort((a, b) => a - b);
  const ids = new Uint8Array(ordered.length * chunkIdBytes);
  for (const [i, row] of ordered.entries()) ids.set(rows.get(row) ?? [], i * chunkIdBytes);
  const lengths = Uint32Array.from(ordered, (row) => state.index.rowLength[row] ?? 0);
  return new ChunkList(ids, lengths);
}

async function verifyPacks(
  state: StoreState,
  packs: readonly { file: string }[],
  breather: Breather,
  damage: Damage[],
): Promise<void> {
  const store = { idBytes: state.idBytes, dataKey: state.keys.data };
  for (const { file } of packs) {
    await breather.breathe();
    const path = join(state.paths.packs, file);
    try {
      await readPack(path, Buffer.from(file.slice(0, 32), 'hex'), store);
    } catch (error) {
      if (!(error instanceof CairnError)) throw error;
      damage.push({ code: error.code, file: path, message: error.message });
    }
  }
}

/** Adds to each damaged chunk the streams of the snapshot that need it. */
function nameStreams(manifest: SnapshotManifest, damage: Damage[]): void {
  const byChunk = new Map(damage.flatMap((item) => (item.chunk === undefined ? [] : [[item.chunk, item]])));
  if (byChunk.size === 0) return;
  for (const { name, chunks } of streamsOf(manifest)) {
    for (let i = 0; i < chunks.count; i++) {
      const item = byChunk.get(Buffer.from(chunks.idAt(i)).toString('hex'));
      if (item === undefined) continue;
      item.streams ??= [];
      if (item.streams.at(-1) !== name) item.streams.push(name);
    }
  }
}

function streamsOf(manifest: SnapshotManifest): { name: string; chunks: ChunkList }[] {
  const streams: { name: string; chunks: ChunkList }[] = [];
  visitStreams(manifest, (name, { chunks }) => {
    if (chunks instanceof ChunkList) streams.push({ name, chunks });
  });
  return streams;
}

async function distrust(state: StoreState, bad: ReadonlyMap<string, readonly number[]>): Promise<void> {
  const { index } = state;
  for (const [file, ordinals] of bad) {
    const pack = index.packs.findIndex((known) => known.file === file);
    const wanted = new Set(ordinals);
    index.distrustSegments(
      (segment) => index.segmentPack[segment] === pack && wanted.has(index.segmentOrdinal[segment] ?? 0),
    );
    const id = file.slice(0, 32);
    const known = state.damagedSegments.get(id) ?? new Set();
    for (const ordinal of ordinals) known.add(ordinal);
    state.damagedSegments.set(id, known);
  }
  // Only a hint for the next open; a full store does without.
  if (state.writable) await writeDamaged(state.paths, state.damagedSegments).catch(() => {});
}
