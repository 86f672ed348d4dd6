import { createHash, randomBytes, sign, verify } from 'node:crypto';
import { open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { CairnError, messageOf, systemCode } from '../errors.ts';
import { badSignature, damagedManifest, unknownManifestVersion } from './damage.ts';
import { writeDurably } from './durable-file.ts';
import {
  formatVersion,
  manifestMagic,
  manifestPreambleBytes,
  maxManifestHeaderBytes,
  signatureBytes,
} from './format.ts';
import { deriveFileKeys, type StoreKeys } from './keys.ts';
import { decodeManifestBody, encodeManifestBody } from './manifest-codec.ts';
import type { SnapshotHeader, SnapshotManifest } from './manifest.ts';
import { openSegment, sealSegment } from './pack-format.ts';

/** The clear JSON header in the file. */
interface FileHeader {
  store: string;
  jobId: string;
  jobName: string;
  sequence: number;
  createdAt: string;
  state: 'local';
  pinned: boolean;
  note?: string;
  logicalBytes: number;
  storedBytes: number;
  /** 16 bytes, hexadecimal: the key of the body is derived from it; never the same for two manifests. */
  key: string;
  /** Of the encrypted body. */
  bodyBytes: number;
  /** Of the body before compression. */
  plainBytes: number;
  bodySha256: string;
}

const jobIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const fileNamePattern = /^(\d{10,})\.(manifest|removed)$/;

/** Directory of the manifests of a job; throws `job-id-invalid` (argument) for an identity that cannot be a file name. */
export function jobDirectory(snapshots: string, jobId: string): string {
  if (!jobIdPattern.test(jobId))
    throw new CairnError(
      'argument',
      'job-id-invalid',
      `${JSON.stringify(jobId)} cannot be the identity of a job`,
    );
  return join(snapshots, jobId);
}

export function manifestPath(snapshots: string, jobId: string, sequence: number): string {
  return join(jobDirectory(snapshots, jobId), `${String(sequence).padStart(10, '0')}.manifest`);
}

/** Path of the empty file that keeps the number of a removed snapshot from being used again. */
export function removedPath(snapshots: string, jobId: string, sequence: number): string {
  return manifestPath(snapshots, jobId, sequence).replace(/manifest$/, 'removed');
}

/** What the name of a file in the directory of a job says, or `undefined`. */
export function parseFileName(name: string): { sequence: number; removed: boolean } | undefined {
  const match = fileNamePattern.exec(name);
  return match === null ? undefined : { sequence: Number(match[1]), removed: match[2] === 'removed' };
}

/** Encrypts, signs and publishes a manifest: durable when it returns. `storedBytes`: what the snapshot added to the packs. */
export async function writeManifest(
  path: string,
  manifest: SnapshotManifest,
  sizes: { logicalBytes: number; storedBytes: number },
  store: { id: string; keys: StoreKeys },
  step?: (name: string) => void,
): Promise<void> {
  await writeDurably(path, encodeManifestFile(manifest, sizes, store), step);
}

/** The parts of a manifest file. `identity` is given only by tests: a key must never be used twice. */
export function encodeManifestFile(
  manifest: SnapshotManifest,
  sizes: { logicalBytes: number; storedBytes: number },
  store: { id: string; keys: StoreKeys },
  identity: Uint8Array = randomBytes(16),
): [preamble: Buffer, header: Buffer, signature: Buffer, body: Buffer] {
  const plain = encodeManifestBody(manifest);
  const frame = zstdCompressSync(plain, {
    chunkSize: plain.length + (plain.length >>> 7) + 512,
    params: { [constants.ZSTD_c_compressionLevel]: 1 },
  });
  const { encryption } = deriveFileKeys(store.keys.data, identity, 'manifest');
  const sealed = sealSegment(encryption, 0, frame);
  const body = Buffer.concat([sealed.body, sealed.tag]);
  const header: FileHeader = {
    store: store.id,
    jobId: manifest.job.id,
    jobName: manifest.job.name,
    sequence: manifest.sequence,
    createdAt: manifest.createdAt,
    state: 'local',
    pinned: manifest.pinned ?? false,
    ...(manifest.note === undefined ? {} : { note: manifest.note }),
    ...sizes,
    key: Buffer.from(identity).toString('hex'),
    bodyBytes: body.length,
    plainBytes: plain.length,
    bodySha256: createHash('sha256').update(body).digest('hex'),
  };
  const text = Buffer.from(JSON.stringify(header));
  if (text.length > maxManifestHeaderBytes)
    throw new CairnError('argument', 'note-too-long', `the header of the snapshot has ${text.length} bytes`);
  const preamble = Buffer.alloc(manifestPreambleBytes);
  preamble.write(manifestMagic, 0, 'latin1');
  preamble.writeUInt32LE(formatVersion, 8);
  preamble.writeUInt32LE(text.length, 12);
  const signature = sign(null, Buffer.concat([preamble, text]), store.keys.signing);
  return [preamble, text, signature, body];
}

/**
 * Reads the header of a manifest and checks its signature; the body is not looked at. A manifest that cannot be used gives
 * a header with `damaged`.
 */
export async function readManifestHeader(
  path: string,
  jobId: string,
  sequence: number,
  store: { id: string; keys: StoreKeys },
): Promise<SnapshotHeader | undefined> {
  try {
    const handle = await open(path, 'r');
    try {
      const { size } = await handle.stat();
      const start = Buffer.alloc(Math.min(size, 4096));
      await handle.read(start, 0, start.length, 0);
      const wanted = start.length < 16 ? 0 : manifestPreambleBytes + start.readUInt32LE(12) + signatureBytes;
      let bytes = start;
      if (
        wanted > start.length &&
        wanted <= manifestPreambleBytes + maxManifestHeaderBytes + signatureBytes
      ) {
        bytes = Buffer.alloc(Math.min(size, wanted));
        await handle.read(bytes, 0, bytes.length, 0);
      }
      const { header, bodyOffset } = openHeader(path, bytes, jobId, sequence, store);
      if (size !== bodyOffset + header.bodyBytes)
        throw damagedManifest(path, `it has ${size} bytes instead of ${bodyOffset + header.bodyBytes}`);
      return listed(header, size);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    return unusable(jobId, sequence, messageOf(error));
  }
}

/** Reads a whole manifest. Throws `manifest-…` (permanent) if it is not exactly what was signed, `snapshot-unknown` if absent. */
export async function readManifestFile(
  path: string,
  jobId: string,
  sequence: number,
  store: { id: string; keys: StoreKeys },
): Promise<{ manifest: SnapshotManifest; header: SnapshotHeader }> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') throw unknownSnapshot(jobId, sequence);
    throw damagedManifest(path, `it cannot be read: ${messageOf(error)}`);
  }
  return openManifest(path, bytes, jobId, sequence, store);
}

/** Checks and decodes the bytes of a manifest file; `path` is for messages. Throws `manifest-…` (permanent). */
export function openManifest(
  path: string,
  bytes: Buffer,
  jobId: string,
  sequence: number,
  store: { id: string; keys: StoreKeys },
): { manifest: SnapshotManifest; header: SnapshotHeader } {
  const { header, bodyOffset } = openHeader(path, bytes, jobId, sequence, store);
  const body = bytes.subarray(bodyOffset);
  if (body.length !== header.bodyBytes)
    throw damagedManifest(path, `it has ${bytes.length} bytes instead of ${bodyOffset + header.bodyBytes}`);
  if (createHash('sha256').update(body).digest('hex') !== header.bodySha256)
    throw damagedManifest(path, `its body (from offset ${bodyOffset}) is not what was signed`);
  const { encryption } = deriveFileKeys(store.keys.data, Buffer.from(header.key, 'hex'), 'manifest');
  const frame = openSegment(encryption, 0, body);
  if (frame === undefined) throw damagedManifest(path, 'its body cannot be decrypted');
  try {
    const plain = zstdDecompressSync(frame, {
      chunkSize: Math.max(64, header.plainBytes + 64),
      maxOutputLength: header.plainBytes + 1,
    });
    const manifest = decodeManifestBody(plain);
    if (manifest.job.id !== jobId || manifest.sequence !== sequence)
      throw new Error(`its body belongs to ${manifest.job.id}@${manifest.sequence}`);
    return { manifest, header: listed(header, bytes.length) };
  } catch (error) {
    throw damagedManifest(path, messageOf(error));
  }
}

export function unknownSnapshot(jobId: string, sequence: number): CairnError {
  return new CairnError('argument', 'snapshot-unknown', `job ${jobId} has no snapshot ${sequence}`, {
    remedy: '`cairn snapshots` lists those there are',
  });
}

/** Bytes of a manifest file, or 0. */
export async function fileBytes(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.size ?? 0;
}

function openHeader(
  path: string,
  bytes: Buffer,
  jobId: string,
  sequence: number,
  store: { id: string; keys: StoreKeys },
): { header: FileHeader; bodyOffset: number } {
  if (bytes.length < manifestPreambleBytes || bytes.toString('latin1', 0, 8) !== manifestMagic)
    throw damagedManifest(path, 'it does not begin as a manifest does');
  const version = bytes.readUInt32LE(8);
  if (version !== formatVersion) throw unknownManifestVersion(path, version);
  const length = bytes.readUInt32LE(12);
  const bodyOffset = manifestPreambleBytes + length + signatureBytes;
  if (length > maxManifestHeaderBytes || bodyOffset > bytes.length)
    throw damagedManifest(path, 'it was cut, or its length was altered');
  const signed = bytes.subarray(0, manifestPreambleBytes + length);
  const signature = bytes.subarray(manifestPreambleBytes + length, bodyOffset);
  if (!verify(null, signed, store.keys.verifying, signature))
    throw badSignature(path, 'its signature does not belong to its header and the key of this store');
  const header = JSON.parse(signed.toString('utf8', manifestPreambleBytes)) as FileHeader;
  if (header.store !== store.id) throw badSignature(path, `it belongs to the store ${header.store}`);
  if (header.jobId !== jobId || header.sequence !== sequence)
    throw badSignature(path, `it is the manifest of ${header.jobId}@${header.sequence}`);
  return { header, bodyOffset };
}

function listed(header: FileHeader, manifestBytes: number): SnapshotHeader {
  const { jobId, jobName, sequence, createdAt, state, pinned, logicalBytes, storedBytes } = header;
  return {
    jobId,
    jobName,
    sequence,
    createdAt,
    state,
    pinned,
    ...(header.note === undefined ? {} : { note: header.note }),
    logicalBytes,
    storedBytes,
    manifestBytes,
  };
}

function unusable(jobId: string, sequence: number, damaged: string): SnapshotHeader {
  return {
    jobId,
    jobName: '',
    sequence,
    createdAt: '',
    state: 'local',
    pinned: false,
    logicalBytes: 0,
    storedBytes: 0,
    manifestBytes: 0,
    damaged,
  };
}
