import { appendFile, readFile } from 'node:fs/promises';
import { systemCode } from '../errors.ts';
import { writeDurably } from './durable-file.ts';
import { formatVersion, indexMagic } from './format.ts';

const headBytes = 32;
const recordHeadBytes = 32;

/** The directory of one pack as the cache has it: still encrypted, as in the pack. */
export interface CachedDirectory {
  id: Buffer;
  /** Bytes of the pack file: another size means that the record is of no use. */
  packBytes: number;
  sealedDirectory: Buffer;
}

/**
 * The directories of all packs in one file, so that opening the store reads one file and not thousands. Only a cache: it is
 * never synced, records that do not fit their pack are ignored, and without it the packs are read.
 *
 * Head: magic, u32 version, u32 zero, store identity (16). Record: pack identity (16), u64 bytes of the pack, u32 bytes of the
 * directory, u32 zero, the directory.
 */
export class IndexCache {
  readonly path: string;
  readonly #head: Buffer;
  #usable = true;

  constructor(path: string, storeId: Uint8Array) {
    this.path = path;
    this.#head = Buffer.alloc(headBytes);
    this.#head.write(indexMagic, 0, 'latin1');
    this.#head.writeUInt32LE(formatVersion, 8);
    this.#head.set(storeId, 16);
  }

  /** All whole records; none if the file is absent or not a cache of this store. */
  async read(): Promise<CachedDirectory[]> {
    let bytes: Buffer;
    try {
      bytes = await readFile(this.path);
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return [];
      throw error;
    }
    if (!bytes.subarray(0, headBytes).equals(this.#head)) return [];
    const records: CachedDirectory[] = [];
    for (let at = headBytes; at + recordHeadBytes <= bytes.length; ) {
      const length = bytes.readUInt32LE(at + 24);
      const start = at + recordHeadBytes;
      if (start + length > bytes.length) break;
      records.push({
        id: bytes.subarray(at, at + 16),
        packBytes: Number(bytes.readBigUInt64LE(at + 16)),
        sealedDirectory: bytes.subarray(start, start + length),
      });
      at = start + length;
    }
    return records;
  }

  /** Adds records to a file that `replace` wrote or `read` understood; after a failure nothing more until `replace`. */
  async append(records: readonly CachedDirectory[]): Promise<void> {
    if (!this.#usable || records.length === 0) return;
    try {
      await appendFile(this.path, Buffer.concat(records.map(encode)), { mode: 0o600 });
    } catch (error) {
      this.#usable = false;
      throw error;
    }
  }

  /** Writes the file anew. */
  async replace(records: readonly CachedDirectory[]): Promise<void> {
    await writeDurably(this.path, [this.#head, ...records.map(encode)]);
    this.#usable = true;
  }
}

function encode(record: CachedDirectory): Buffer {
  const head = Buffer.alloc(recordHeadBytes);
  head.set(record.id, 0);
  head.writeBigUInt64LE(BigInt(record.packBytes), 16);
  head.writeUInt32LE(record.sealedDirectory.length, 24);
  return Buffer.concat([head, record.sealedDirectory]);
}
