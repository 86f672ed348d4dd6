import { randomBytes } from 'node:crypto';
import { closeSync, fchmodSync, fsyncSync, openSync, unlinkSync, writevSync } from 'node:fs';
import { join } from 'node:path';
import { storeWriteError } from './durable-file.ts';
import { chunkIdBytes, tagBytes } from './format.ts';
import { grown } from './growing.ts';
import { releaseBuffer } from './release-buffer.ts';
import { deriveFileKeys, type FileKeys } from './keys.ts';
import {
  encodePackHeader,
  encodePackTrailer,
  type PackDirectory,
  sealDirectory,
  sealSegment,
  segmentCompressed,
} from './pack-format.ts';

/** A finished pack in the directory of incoming ones, synced, as its writer hands it to the store. */
export interface PackInfo {
  /** 16 bytes. */
  id: Uint8Array;
  /** Path of the file now. */
  path: string;
  /** Bytes of the file. */
  bytes: number;
  /** The encrypted directory as it is in the file. */
  sealedDirectory: Uint8Array;
  chunkCount: number;
}

/** What a pack writer needs to know. */
export interface PackPlace {
  dataKey: Uint8Array;
  storeId: Uint8Array;
  /** Directory in which unfinished packs lie. */
  incoming: string;
  /** Begins the names of unfinished packs, so that the files of one snapshot can be told from others. */
  prefix: string;
}

/** Name of a finished pack file. */
export function packFileName(id: Uint8Array): string {
  return `${Buffer.from(id).toString('hex')}.pack`;
}

/** Writes one pack file, segment after segment; synchronous. After an error only `abort` makes sense. */
export class PackWriter {
  readonly id: Uint8Array;
  readonly path: string;
  readonly #keys: FileKeys;
  readonly #fd: number;
  #bytes = 0;
  #segments = 0;
  #chunks = 0;
  #storedLengths = new Uint32Array(64);
  #plainLengths = new Uint32Array(64);
  #flags = new Uint16Array(64);
  #chunkCounts = new Uint16Array(64);
  #ids = new Uint8Array(256 * chunkIdBytes);
  #chunkLengths = new Uint32Array(256);
  #open = true;

  /** `id` is given only by tests: a key must never be used for two packs. */
  constructor(place: PackPlace, id: Uint8Array = randomBytes(16)) {
    this.id = id;
    this.#keys = deriveFileKeys(place.dataKey, id, 'pack');
    this.path = join(place.incoming, `${place.prefix}${packFileName(id)}.tmp`);
    try {
      this.#fd = openSync(this.path, 'wx', 0o600);
      fchmodSync(this.#fd, 0o600);
    } catch (error) {
      throw storeWriteError(this.path, error);
    }
    try {
      this.#write([encodePackHeader(this.#keys, place.storeId, id)]);
    } catch (error) {
      this.abort();
      throw error;
    }
  }

  /** Bytes of the file so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Appends the chunks whose plain bytes are `plain`, one after the other. `frame` is their compressed form, if it pays.
   * Returns the bytes that this added to the file. Throws `store-full`.
   */
  append(plain: Uint8Array, frame: Uint8Array | undefined, ids: Uint8Array, lengths: Uint32Array): number {
    const { body, tag } = sealSegment(this.#keys.encryption, this.#segments, frame ?? plain);
    const stored = body.length + tagBytes;
    this.#write([body, tag]);
    releaseBuffer(body);
    this.#storedLengths = grown(this.#storedLengths, this.#segments + 1);
    this.#plainLengths = grown(this.#plainLengths, this.#segments + 1);
    this.#flags = grown(this.#flags, this.#segments + 1);
    this.#chunkCounts = grown(this.#chunkCounts, this.#segments + 1);
    this.#storedLengths[this.#segments] = stored;
    this.#plainLengths[this.#segments] = plain.length;
    this.#flags[this.#segments] = frame === undefined ? 0 : segmentCompressed;
    this.#chunkCounts[this.#segments] = lengths.length;
    this.#segments++;
    this.#ids = grown(this.#ids, (this.#chunks + lengths.length) * chunkIdBytes);
    this.#chunkLengths = grown(this.#chunkLengths, this.#chunks + lengths.length);
    this.#ids.set(ids, this.#chunks * chunkIdBytes);
    this.#chunkLengths.set(lengths, this.#chunks);
    this.#chunks += lengths.length;
    return stored;
  }

  /** Writes the directory, syncs and closes. With `sync` false the caller must sync the file before it counts on it. */
  seal(sync = true): PackInfo {
    const directory: PackDirectory = {
      segmentCount: this.#segments,
      chunkCount: this.#chunks,
      storedLengths: this.#storedLengths,
      plainLengths: this.#plainLengths,
      flags: this.#flags,
      chunkCounts: this.#chunkCounts,
      ids: this.#ids,
      chunkLengths: this.#chunkLengths,
    };
    const sealedDirectory = sealDirectory(this.#keys, directory);
    this.#write([sealedDirectory, encodePackTrailer(this.#keys, this.#bytes, sealedDirectory.length)]);
    try {
      if (sync) fsyncSync(this.#fd);
    } catch (error) {
      throw storeWriteError(this.path, error);
    }
    this.#close();
    return {
      id: this.id,
      path: this.path,
      bytes: this.#bytes,
      sealedDirectory: new Uint8Array(sealedDirectory),
      chunkCount: this.#chunks,
    };
  }

  /** Closes and removes the file; may be called at any time, also again. */
  abort(): void {
    this.#close();
    try {
      unlinkSync(this.path);
    } catch {
      // Gone already, or the next open of the store removes it.
    }
  }

  #close(): void {
    if (this.#open) closeSync(this.#fd);
    this.#open = false;
  }

  #write(parts: Uint8Array[]): void {
    if (!this.#open) throw new Error(`pack ${this.path} is closed`);
    let rest = parts;
    try {
      while (rest.length > 0) {
        let written = writevSync(this.#fd, rest);
        this.#bytes += written;
        while (rest.length > 0 && written >= (rest[0]?.length ?? 0)) {
          written -= rest[0]?.length ?? 0;
          rest = rest.slice(1);
        }
        if (written > 0 && rest[0] !== undefined) rest = [rest[0].subarray(written), ...rest.slice(1)];
      }
    } catch (error) {
      throw storeWriteError(this.path, error);
    }
  }
}
