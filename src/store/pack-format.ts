import { createCipheriv, createDecipheriv } from 'node:crypto';
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { damagedPack, unknownPackVersion } from './damage.ts';
import {
  chunkIdBytes,
  formatVersion,
  maxChunkBytes,
  maxSegmentBytes,
  nonceBytes,
  packHeaderBytes,
  packMagic,
  packTrailerBytes,
  tagBytes,
} from './format.ts';
import type { FileKeys } from './keys.ts';

/** Flag of a segment: its plain bytes are one zstd frame. */
export const segmentCompressed = 1;

const macBytes = 16;
const headerMacAt = packHeaderBytes - macBytes;
const trailerMacAt = packTrailerBytes - macBytes;
const directoryHeadBytes = 8;
const segmentEntryBytes = 12;
const chunkEntryBytes = chunkIdBytes + 4;
/** Ordinal of the directory in the nonce; segments count from 0 and never get there. */
const directoryOrdinal = 2 ** 48 - 1;

/** What a pack holds: its segments in the order of the file, and the chunks of each in order. */
export interface PackDirectory {
  segmentCount: number;
  chunkCount: number;
  /** Bytes in the file, tag included. The first segment follows the header, each other its predecessor. */
  storedLengths: Uint32Array<ArrayBuffer>;
  /** Bytes of the chunks together. */
  plainLengths: Uint32Array<ArrayBuffer>;
  flags: Uint16Array<ArrayBuffer>;
  /** Chunks of each segment. */
  chunkCounts: Uint16Array<ArrayBuffer>;
  /** Names, 32 bytes for each chunk. */
  ids: Uint8Array<ArrayBuffer>;
  /** Bytes of each chunk. */
  chunkLengths: Uint32Array<ArrayBuffer>;
}

/** Magic, u32 version, u32 zero, store identity (16), pack identity (16), MAC (16). */
export function encodePackHeader(keys: FileKeys, store: Uint8Array, pack: Uint8Array): Buffer {
  const header = Buffer.alloc(packHeaderBytes);
  header.write(packMagic, 0, 'latin1');
  header.writeUInt32LE(formatVersion, 8);
  header.set(store, 16);
  header.set(pack, 32);
  header.set(mac(keys, header.subarray(0, headerMacAt)), headerMacAt);
  return header;
}

/** Throws `pack-version` or `pack-damaged` unless this is the header of that pack of that store. */
export function checkPackHeader(
  file: string,
  header: Buffer,
  keys: FileKeys,
  store: Uint8Array,
  pack: Uint8Array,
): void {
  if (header.length < packHeaderBytes || header.toString('latin1', 0, packMagic.length) !== packMagic)
    throw damagedPack(file, 'it does not begin as a pack does');
  const version = header.readUInt32LE(8);
  if (version !== formatVersion) throw unknownPackVersion(file, version);
  if (!header.equals(encodePackHeader(keys, store, pack)))
    throw damagedPack(file, 'its header is not the one that was written (or belongs to another store)');
}

/** u64 offset of the directory, u32 its bytes with tag, u32 zero, MAC (16). */
export function encodePackTrailer(keys: FileKeys, directoryOffset: number, directoryBytes: number): Buffer {
  const trailer = Buffer.alloc(packTrailerBytes);
  trailer.writeBigUInt64LE(BigInt(directoryOffset), 0);
  trailer.writeUInt32LE(directoryBytes, 8);
  trailer.set(mac(keys, trailer.subarray(0, trailerMacAt)), trailerMacAt);
  return trailer;
}

/** Where the directory is; throws `pack-damaged` if the file was cut or the trailer altered. */
export function decodePackTrailer(
  file: string,
  fileBytes: number,
  trailer: Buffer,
  keys: FileKeys,
): { offset: number; length: number } {
  if (trailer.length < packTrailerBytes || fileBytes < packHeaderBytes + packTrailerBytes)
    throw damagedPack(file, `it was cut: ${fileBytes} bytes are too few`);
  if (!mac(keys, trailer.subarray(0, trailerMacAt)).equals(trailer.subarray(trailerMacAt)))
    throw damagedPack(file, `its last ${packTrailerBytes} bytes are not what was written (cut or altered)`);
  const offset = Number(trailer.readBigUInt64LE(0));
  const length = trailer.readUInt32LE(8);
  if (offset + length + packTrailerBytes !== fileBytes)
    throw damagedPack(file, `it has ${fileBytes} bytes instead of ${offset + length + packTrailerBytes}`);
  return { offset, length };
}

/** Encrypts the directory: u32 segments, u32 chunks, 12 bytes for each segment, 36 for each chunk. */
export function sealDirectory(keys: FileKeys, directory: PackDirectory): Buffer {
  const { segmentCount, chunkCount } = directory;
  const plain = Buffer.allocUnsafe(
    directoryHeadBytes + segmentCount * segmentEntryBytes + chunkCount * chunkEntryBytes,
  );
  plain.writeUInt32LE(segmentCount, 0);
  plain.writeUInt32LE(chunkCount, 4);
  let at = directoryHeadBytes;
  for (let i = 0; i < segmentCount; i++, at += segmentEntryBytes) {
    plain.writeUInt32LE(directory.storedLengths[i] ?? 0, at);
    plain.writeUInt32LE(directory.plainLengths[i] ?? 0, at + 4);
    plain.writeUInt16LE(directory.flags[i] ?? 0, at + 8);
    plain.writeUInt16LE(directory.chunkCounts[i] ?? 0, at + 10);
  }
  for (let i = 0; i < chunkCount; i++, at += 4) plain.writeUInt32LE(directory.chunkLengths[i] ?? 0, at);
  plain.set(directory.ids.subarray(0, chunkCount * chunkIdBytes), at);
  const cipher = createCipheriv('aes-256-gcm', keys.encryption, nonceOf(directoryOrdinal));
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** Decrypts and checks a directory; `offset` is where it lies in the file. Throws `pack-damaged`. */
export function openDirectory(file: string, sealed: Buffer, offset: number, keys: FileKeys): PackDirectory {
  const plain = decrypt(keys.encryption, directoryOrdinal, sealed);
  if (plain === undefined)
    throw damagedPack(
      file,
      `its directory (${sealed.length} bytes at offset ${offset}) is not what was written`,
    );
  const segmentCount = plain.readUInt32LE(0);
  const chunkCount = plain.readUInt32LE(4);
  const directory: PackDirectory = {
    segmentCount,
    chunkCount,
    storedLengths: new Uint32Array(segmentCount),
    plainLengths: new Uint32Array(segmentCount),
    flags: new Uint16Array(segmentCount),
    chunkCounts: new Uint16Array(segmentCount),
    ids: new Uint8Array(chunkCount * chunkIdBytes),
    chunkLengths: new Uint32Array(chunkCount),
  };
  let at = directoryHeadBytes;
  let end = packHeaderBytes;
  let chunks = 0;
  for (let i = 0; i < segmentCount; i++, at += segmentEntryBytes) {
    end += directory.storedLengths[i] = plain.readUInt32LE(at);
    directory.plainLengths[i] = plain.readUInt32LE(at + 4);
    directory.flags[i] = plain.readUInt16LE(at + 8);
    chunks += directory.chunkCounts[i] = plain.readUInt16LE(at + 10);
  }
  for (let i = 0; i < chunkCount; i++, at += 4) directory.chunkLengths[i] = plain.readUInt32LE(at);
  directory.ids.set(plain.subarray(at));
  // The tag says that Cairn wrote this; the sums only guard against a defect of Cairn itself.
  if (end !== offset || chunks !== chunkCount)
    throw damagedPack(file, 'its directory does not fit its content');
  return directory;
}

/** Encrypts the bytes of a segment; ordinal = its place in the pack, which makes the nonce. */
export function sealSegment(
  encryption: Uint8Array,
  ordinal: number,
  bytes: Uint8Array,
): { body: Buffer; tag: Buffer } {
  const cipher = createCipheriv('aes-256-gcm', encryption, nonceOf(ordinal));
  const body = cipher.update(bytes);
  cipher.final();
  return { body, tag: cipher.getAuthTag() };
}

/** Decrypts what `sealSegment` made (body and tag together); `undefined` if it is not what was written. */
export function openSegment(encryption: Uint8Array, ordinal: number, sealed: Uint8Array): Buffer | undefined {
  return decrypt(encryption, ordinal, sealed);
}

/** Whether the numbers of a segment are possible at all. */
export function plausibleSegment(plainLength: number, storedLength: number, chunkLength: number): boolean {
  return (
    plainLength <= maxSegmentBytes &&
    storedLength <= maxSegmentBytes + tagBytes &&
    chunkLength <= maxChunkBytes
  );
}

/** Twelve bytes: four zero, then the ordinal as u64. Unique under the key, because each pack has its own. */
function nonceOf(ordinal: number): Buffer {
  const nonce = Buffer.alloc(nonceBytes);
  nonce.writeUIntLE(ordinal, 4, 6);
  return nonce;
}

function decrypt(encryption: Uint8Array, ordinal: number, sealed: Uint8Array): Buffer | undefined {
  if (sealed.length < tagBytes) return undefined;
  const decipher = createDecipheriv('aes-256-gcm', encryption, nonceOf(ordinal), { authTagLength: tagBytes });
  decipher.setAuthTag(sealed.subarray(sealed.length - tagBytes));
  const plain = decipher.update(sealed.subarray(0, sealed.length - tagBytes));
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  return plain;
}

function mac(keys: FileKeys, bytes: Uint8Array): Buffer {
  // Its types ask for a Buffer; every Uint8Array is one to it.
  return Blake3Hasher.newKeyed(keys.authentication)
    .update(bytes as Buffer)
    .digestBuffer()
    .subarray(0, macBytes);
}
