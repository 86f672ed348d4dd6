import { CairnError } from '../errors.ts';

const restore = 'restart from another snapshot; `cairn verify` tells which are whole';

/** One thing that is wrong in the store, as `Store.verify` reports it. */
export interface Damage {
  /** `chunk-damaged`, `chunk-missing`, `pack-damaged`, `manifest-damaged`, `manifest-signature`, `manifest-version`. */
  code: string;
  /** Path of the pack or manifest file. */
  file: string;
  /** Where in the file, bytes; absent if it concerns the whole file. */
  offset?: number;
  /** Bytes concerned. */
  length?: number;
  /** Name of the chunk, hexadecimal. */
  chunk?: string;
  /** Streams of the snapshot that need it: `unit/image`, `unit:root/path`. */
  streams?: string[];
  message: string;
}

/** `chunk-damaged`: the bytes at `offset` of `file` are not what was written. */
export function damagedChunk(file: string, offset: number, length: number, what: string): CairnError {
  return new CairnError(
    'permanent',
    'chunk-damaged',
    `cannot read ${length} bytes at offset ${offset} of pack ${file}: ${what}`,
    { remedy: restore },
  );
}

/** `chunk-missing`: no pack has this chunk. */
export function missingChunk(chunk: string, suspects: readonly string[]): CairnError {
  return new CairnError('permanent', 'chunk-missing', `chunk ${chunk} is in no pack of the store`, {
    remedy: restore,
    lines: suspects.map((file) => `damaged pack: ${file}`),
  });
}

/** `pack-damaged`: header, directory or trailer of a pack are wrong, or it was cut. */
export function damagedPack(file: string, what: string): CairnError {
  return new CairnError('permanent', 'pack-damaged', `pack ${file} is damaged: ${what}`, { remedy: restore });
}

/** `pack-version`: written by another version of Cairn. */
export function unknownPackVersion(file: string, version: number): CairnError {
  return new CairnError(
    'permanent',
    'pack-version',
    `pack ${file} has the unknown format version ${version}`,
    {
      remedy: 'use the version of Cairn that wrote it',
    },
  );
}

export function damagedManifest(file: string, what: string): CairnError {
  return new CairnError('permanent', 'manifest-damaged', `manifest ${file} is damaged: ${what}`, {
    remedy: restore,
  });
}

export function badSignature(file: string, what: string): CairnError {
  return new CairnError('permanent', 'manifest-signature', `manifest ${file} is refused: ${what}`, {
    remedy: restore,
  });
}

export function unknownManifestVersion(file: string, version: number): CairnError {
  return new CairnError(
    'permanent',
    'manifest-version',
    `manifest ${file} has the unknown format version ${version}`,
    { remedy: 'use the version of Cairn that wrote it' },
  );
}

export function damagedList(what: string): CairnError {
  return new CairnError('permanent', 'chunk-list-damaged', `a chunk list is damaged: ${what}`);
}
