import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CairnError } from '../errors.ts';
import { ChunkIndex } from './chunk-index.ts';
import type { CachedDirectory, IndexCache } from './index-cache.ts';
import { deriveFileKeys } from './keys.ts';
import { openDirectory, type PackDirectory } from './pack-format.ts';
import { packIdOf, readPack } from './pack-file.ts';
import type { DamagedSegments } from './store-files.ts';

/** An index read from the disk. */
export interface LoadedIndex {
  index: ChunkIndex;
  /** Packs that cannot be used, by file name, with the reason. */
  damagedPacks: Map<string, string>;
}

/**
 * Builds the index from the packs that are there: their directories come from the cache where it has them, from the packs
 * otherwise; then the cache is written anew (unless `readOnly`). A damaged pack is left out and reported.
 */
export async function loadIndex(
  packDirectory: string,
  store: { idBytes: Uint8Array; dataKey: Uint8Array },
  cache: IndexCache,
  damaged: DamagedSegments,
  options: { useCache: boolean; readOnly: boolean },
): Promise<LoadedIndex> {
  const cached = new Map<string, CachedDirectory>();
  const records = options.useCache ? await cache.read() : [];
  for (const record of records) cached.set(record.id.toString('hex'), record);
  const present: CachedDirectory[] = [];
  const damagedPacks = new Map<string, string>();
  const packs: { file: string; id: Buffer; bytes: number; directory: PackDirectory }[] = [];
  let chunks = 0;
  let read = 0;
  for (const file of (await readdir(packDirectory)).sort()) {
    const id = packIdOf(file);
    if (id === undefined) continue;
    const path = join(packDirectory, file);
    const { size } = await stat(path);
    try {
      const found = fromCache(cached.get(id.toString('hex')), path, size, store.dataKey);
      const pack = found ?? (await readPack(path, id, store));
      if (found === undefined) read++;
      packs.push({ file, id, bytes: size, directory: pack.directory });
      present.push({ id, packBytes: size, sealedDirectory: pack.sealedDirectory });
      chunks += pack.directory.chunkCount;
    } catch (error) {
      if (!(error instanceof CairnError)) throw error;
      damagedPacks.set(file, error.message);
    }
  }
  const index = new ChunkIndex(chunks);
  for (const { file, id, bytes, directory } of packs)
    index.addPack({ id, file, bytes }, directory, 0, damaged.get(id.toString('hex')));
  const stale = read > 0 || records.length !== present.length || present.length === 0;
  if (!options.readOnly && (stale || !options.useCache))
    // A full file system must not keep the store from opening.
    await cache.replace(present).catch(() => {});
  return { index, damagedPacks };
}

function fromCache(
  record: CachedDirectory | undefined,
  path: string,
  packBytes: number,
  dataKey: Uint8Array,
): { directory: PackDirectory; sealedDirectory: Buffer } | undefined {
  if (record === undefined || record.packBytes !== packBytes) return undefined;
  const keys = deriveFileKeys(dataKey, record.id, 'pack');
  const offset = packBytes - record.sealedDirectory.length - 32;
  try {
    const directory = openDirectory(path, record.sealedDirectory, offset, keys);
    return { directory, sealedDirectory: record.sealedDirectory };
  } catch {
    return undefined;
  }
}
