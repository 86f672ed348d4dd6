import { statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { CairnError, messageOf } from '../errors.ts';
import { damagedPack } from './damage.ts';
import { packHeaderBytes, packTrailerBytes } from './format.ts';
import { deriveFileKeys, type FileKeys } from './keys.ts';
import { checkPackHeader, decodePackTrailer, openDirectory, type PackDirectory } from './pack-format.ts';

const fileNamePattern = /^([0-9a-f]{32})\.pack$/;

/** A pack as it tells of itself. */
export interface ReadPack {
  /** Bytes of the file. */
  bytes: number;
  directory: PackDirectory;
  sealedDirectory: Buffer;
  keys: FileKeys;
}

/** Identity of a pack from the name of its file, or `undefined` if the file is none. */
export function packIdOf(file: string): Buffer | undefined {
  const digits = fileNamePattern.exec(file)?.[1];
  return digits === undefined ? undefined : Buffer.from(digits, 'hex');
}

/**
 * Checks header and trailer of a pack and reads its directory; the segments are not looked at. Throws `pack-damaged` or
 * `pack-version` (permanent).
 */
export async function readPack(
  path: string,
  id: Uint8Array,
  store: { idBytes: Uint8Array; dataKey: Uint8Array },
): Promise<ReadPack> {
  const keys = deriveFileKeys(store.dataKey, id, 'pack');
  try {
    const handle = await open(path, 'r');
    try {
      const { size } = await handle.stat();
      const read = async (offset: number, length: number): Promise<Buffer> => {
        const bytes = Buffer.alloc(length);
        const { bytesRead } = await handle.read(bytes, 0, length, offset);
        return bytes.subarray(0, bytesRead);
      };
      checkPackHeader(path, await read(0, packHeaderBytes), keys, store.idBytes, id);
      const trailer = await read(Math.max(0, size - packTrailerBytes), packTrailerBytes);
      const place = decodePackTrailer(path, size, trailer, keys);
      const sealedDirectory = await read(place.offset, place.length);
      const directory = openDirectory(path, sealedDirectory, place.offset, keys);
      return { bytes: size, directory, sealedDirectory, keys };
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof CairnError) throw error;
    throw damagedPack(path, `it cannot be read: ${messageOf(error)}`);
  }
}

/** Compares the sizes of packs (bytes) with what they had. Throws `pack-damaged` (permanent) for the first that is gone or differs. */
export function requireWholePacks(
  directory: string,
  packs: readonly { file: string; bytes: number }[],
): void {
  for (const { file, bytes } of packs) {
    const path = join(directory, file);
    let size: number;
    try {
      ({ size } = statSync(path));
    } catch (error) {
      throw damagedPack(path, `it cannot be read: ${messageOf(error)}`);
    }
    if (size !== bytes) throw damagedPack(path, `it has ${size} bytes instead of ${bytes}`);
  }
}

/** Where the segments of a pack begin in the file. */
export function segmentOffsets(directory: PackDirectory): Float64Array {
  const offsets = new Float64Array(directory.segmentCount);
  let offset = packHeaderBytes;
  for (let i = 0; i < directory.segmentCount; i++) {
    offsets[i] = offset;
    offset += directory.storedLengths[i] ?? 0;
  }
  return offsets;
}
