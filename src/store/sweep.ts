import { open, rename, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { CairnError } from '../errors.ts';
import { ChunkList } from './chunk-list.ts';
import { syncDirectory } from './durable-file.ts';
import type { CachedDirectory } from './index-cache.ts';
import { deriveFileKeys } from './keys.ts';
import { manifestPath, readManifestFile } from './manifest-file.ts';
import { type SnapshotHeader, type SnapshotManifest, visitStreams } from './manifest.ts';
import { packTrailerBytes } from './format.ts';
import { openDirectory } from './pack-format.ts';
import { packFileName, type PackInfo } from './pack-writer.ts';
import { repackLiving } from './repack.ts';
import { writeDamaged } from './store-files.ts';
import { Breather, snapshotKey, type StoreState } from './store-state.ts';

/** What `Store.sweep` did. */
export interface SweepReport {
  removedPacks: number;
  /** Packs whose living chunks were moved to new ones. */
  repackedPacks: number;
  /** Bytes of pack files less than before. */
  freedBytes: number;
  /** A checkpoint or restart began meanwhile, which goes first: sweep again later. Nothing is lost by it. */
  interrupted: boolean;
}

/** Packs in which less than this share of the bytes lives are written anew. */
const mostlyDeadShare = 0.5;
/** Packs below this size are put together when there are at least so many of them. */
const smallPackBytes = 8 * 1024 * 1024;
const smallPacksTogether = 16;

/** Thrown inside when a checkpoint or a restart began. */
const interruption = Symbol('somebody else came');

/**
 * Removes chunks that no snapshot needs. Crash-safe: new packs are complete and synced before old ones go; a crash between
 * leaves chunks twice, which the next sweep mends. A damaged manifest stops it (it is unknown what that snapshot needs).
 */
export async function sweepStore(
  state: StoreState,
  listSnapshots: () => Promise<readonly SnapshotHeader[]>,
  signal?: AbortSignal,
): Promise<SweepReport> {
  const report: SweepReport = { removedPacks: 0, repackedPacks: 0, freedBytes: 0, interrupted: false };
  const begun = state.arrivals;
  const undisturbed = (): void => {
    if (state.sessions.size > 0 || state.arrivals !== begun) throw interruption;
  };
  const fresh: PackInfo[] = [];
  try {
    undisturbed();
    const breather = new Breather(signal);
    const live = await findLive(state, await listSnapshots(), breather, undisturbed);
    const { dead, repack } = choosePacks(state, live);
    const moved = await moveLiving(state, repack, live, fresh, async () => {
      undisturbed();
      await breather.breathe();
    });
    signal?.throwIfAborted();
    undisturbed();
    // From here to the new index nothing waits, so no checkpoint can have taken a chunk as known that goes away.
    const leaving = new Set([...dead, ...moved]);
    const old = state.index.packs.filter((_, pack) => leaving.has(pack));
    state.index = state.index.without((pack) => !leaving.has(pack));
    const added = fresh.splice(0);
    for (const pack of added) enter(state, pack);
    for (const pack of added) report.freedBytes -= pack.bytes;
    for (const pack of old) {
      state.onStep('sweep remove');
      await unlink(join(state.paths.packs, pack.file));
      state.damagedSegments.delete(Buffer.from(pack.id).toString('hex'));
      report.freedBytes += pack.bytes;
    }
    if (live.complete) report.freedBytes += await removeDamagedPacks(state);
    report.removedPacks = dead.length;
    report.repackedPacks = moved.length;
    if (old.length > 0) await writeCache(state, added);
  } catch (error) {
    for (const pack of fresh) await removeNew(state, pack);
    if (error !== interruption) throw error;
    report.interrupted = true;
  }
  return report;
}

interface Live {
  /** For each row of the index whether a snapshot needs it. */
  rows: Uint8Array;
  /** For each pack whether a reader may be using it. */
  inUse: Uint8Array;
  /** No snapshot lacks a chunk. */
  complete: boolean;
}

async function findLive(
  state: StoreState,
  snapshots: readonly SnapshotHeader[],
  breather: Breather,
  undisturbed: () => void,
): Promise<Live> {
  const { index } = state;
  const live: Live = {
    rows: new Uint8Array(index.rowCount),
    inUse: new Uint8Array(index.packs.length),
    complete: true,
  };
  for (const { jobId, sequence } of snapshots) {
    const path = manifestPath(state.paths.snapshots, jobId, sequence);
    const manifest = await readUnlessRemoved(path, jobId, sequence, state);
    if (manifest === undefined) continue;
    const pinned = state.pins.has(snapshotKey(jobId, sequence));
    undisturbed();
    visitStreams(manifest, (_, { chunks }) => {
      if (!(chunks instanceof ChunkList)) return;
      for (let i = 0; i < chunks.count; i++) {
        if (chunks.isZero(i)) continue;
        const row = index.rowOf(chunks.idAt(i));
        if (row < 0) {
          live.complete = false;
          continue;
        }
        live.rows[row] = 1;
        if (pinned) live.inUse[index.packOf(row)] = 1;
      }
    });
    await breather.breathe();
  }
  return live;
}

async function readUnlessRemoved(
  path: string,
  jobId: string,
  sequence: number,
  state: StoreState,
): Promise<SnapshotManifest | undefined> {
  try {
    return (await readManifestFile(path, jobId, sequence, state)).manifest;
  } catch (error) {
    if (error instanceof CairnError && error.code === 'snapshot-unknown') return undefined;
    throw error;
  }
}

/** Which packs go, and which are to be written anew; numbers of the index. */
function choosePacks(state: StoreState, live: Live): { dead: number[]; repack: number[] } {
  const { index } = state;
  const liveBytes = new Float64Array(index.packs.length);
  const allBytes = new Float64Array(index.packs.length);
  for (let row = 0; row < index.rowCount; row++) {
    const pack = index.packOf(row);
    const length = index.rowLength[row] ?? 0;
    allBytes[pack] = (allBytes[pack] ?? 0) + length;
    if (live.rows[row] === 1) liveBytes[pack] = (liveBytes[pack] ?? 0) + length;
  }
  const dead: number[] = [];
  const repack: number[] = [];
  const small: number[] = [];
  for (const [pack, { id, bytes }] of index.packs.entries()) {
    const living = liveBytes[pack] ?? 0;
    if (living === 0) dead.push(pack);
    // What a reader has in its plan stays where it is; what is damaged is not copied.
    else if (live.inUse[pack] === 1 || state.damagedSegments.has(Buffer.from(id).toString('hex'))) continue;
    else if (living < (allBytes[pack] ?? 0) * mostlyDeadShare) repack.push(pack);
    else if (bytes < smallPackBytes) small.push(pack);
  }
  if (small.length >= smallPacksTogether) repack.push(...small);
  return { dead, repack };
}

/**
 * Writes what lives in `packs` to new packs, ready and synced. Returns the packs that can go; none if there is no space for new
 * ones, so that at least the dead packs go.
 */
async function moveLiving(
  state: StoreState,
  packs: readonly number[],
  live: Live,
  fresh: PackInfo[],
  betweenSegments: () => Promise<void>,
): Promise<number[]> {
  try {
    const moved = await repackLiving(state, packs, live.rows, fresh, betweenSegments);
    for (const pack of fresh) await putInPlace(state, pack);
    if (fresh.length > 0) await syncDirectory(state.paths.packs);
    return moved;
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== 'store-full') throw error;
    for (const pack of fresh.splice(0)) await removeNew(state, pack);
    return [];
  }
}

/** Syncs a new pack and gives it its name. */
async function putInPlace(state: StoreState, pack: PackInfo): Promise<void> {
  const handle = await open(pack.path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  state.onStep('sweep rename');
  await rename(pack.path, join(state.paths.packs, packFileName(pack.id)));
}

async function removeNew(state: StoreState, pack: PackInfo): Promise<void> {
  await unlink(pack.path).catch(() => {});
  await unlink(join(state.paths.packs, packFileName(pack.id))).catch(() => {});
}

function enter(state: StoreState, pack: PackInfo): void {
  const keys = deriveFileKeys(state.keys.data, pack.id, 'pack');
  const sealed = Buffer.from(pack.sealedDirectory);
  const directory = openDirectory(pack.path, sealed, pack.bytes - sealed.length - packTrailerBytes, keys);
  state.index.addPack({ id: pack.id, file: packFileName(pack.id), bytes: pack.bytes }, directory);
}

/** Packs that cannot be read are of no use to anybody once every snapshot finds its chunks elsewhere. */
async function removeDamagedPacks(state: StoreState): Promise<number> {
  let freed = 0;
  for (const file of [...state.damagedPacks.keys()]) {
    const path = join(state.paths.packs, file);
    freed += (await stat(path).catch(() => undefined))?.size ?? 0;
    await unlink(path).catch(() => {});
    state.damagedPacks.delete(file);
  }
  return freed;
}

/** Makes the removals durable and the cache fit. */
async function writeCache(state: StoreState, added: readonly PackInfo[]): Promise<void> {
  await syncDirectory(state.paths.packs);
  const present = new Set(state.index.packs.map((pack) => Buffer.from(pack.id).toString('hex')));
  const records: CachedDirectory[] = (await state.cache.read()).filter((record) =>
    present.has(record.id.toString('hex')),
  );
  for (const { id, bytes, sealedDirectory } of added)
    records.push({
      id: Buffer.from(id),
      packBytes: bytes,
      sealedDirectory: Buffer.from(sealedDirectory),
    });
  // Both are hints: a full file system does without.
  await state.cache.replace(records).catch(() => {});
  await writeDamaged(state.paths, state.damagedSegments).catch(() => {});
}
