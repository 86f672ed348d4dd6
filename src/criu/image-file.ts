/**
 * The frame of CRIU's image files: magic numbers and records (CRIU images/README, criu/include/magic.h; version 1.1).
 *
 *     file := magic magic? record*      record := u32 length, protocol buffer, payload of some kinds
 */

import { CairnError } from '../errors.ts';
import { decodeMessage, type Message } from './protobuf.ts';

const commonMagic = 0x54564319;
const serviceMagic = 0x55105940;

/** Second magic number by kind of image; inventory has only its own. */
export const imageMagics = {
  inventory: 0x58313116,
  pstree: 0x50273030,
  fdinfo: 0x56213732,
  pagemap: 0x56084025,
  core: 0x55053847,
  ids: 0x54432030,
  mm: 0x57492820,
  files: 0x56303138,
  'reg-files': 0x50363636,
  'ns-files': 0x61394011,
  fs: 0x51403912,
  creds: 0x54023547,
  'pipes-data': 0x56453709,
  'remap-fpath': 0x59133954,
  'ghost-file': 0x52583605,
  mountpoints: 0x55563928,
  'tty-info': 0x59453036,
  cgroup: 0x59383330,
  cpuinfo: 0x61404013,
  userns: 0x55474906,
  timens: 0x43114433,
  seccomp: 0x64413049,
  memfd: 0x48453499,
  stats: 0x57093306,
  'irmap-cache': 0x57004059,
} as const;

export type ImageKind = keyof typeof imageMagics;

const serviceKinds: ReadonlySet<string> = new Set<ImageKind>(['stats', 'irmap-cache']);

/** Longest single record Cairn accepts; CRIU's largest are the mm images of processes with very many mappings. */
const longestRecord = 64 * 1024 * 1024;

function u32(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] ?? 0) |
      ((bytes[at + 1] ?? 0) << 8) |
      ((bytes[at + 2] ?? 0) << 16) |
      ((bytes[at + 3] ?? 0) << 24)) >>>
    0
  );
}

/** Where the records of an image begin. Throws `permanent` `image-damaged` if it is not of this kind. */
export function recordsStart(image: Uint8Array, kind: ImageKind, name: string): number {
  const words = kind === 'inventory' ? [] : [serviceKinds.has(kind) ? serviceMagic : commonMagic];
  words.push(imageMagics[kind]);
  for (const [i, expected] of words.entries()) {
    const found = image.length >= 4 * i + 4 ? u32(image, 4 * i) : undefined;
    if (found !== expected) {
      const what = found === undefined ? 'ends' : `is 0x${found.toString(16)}`;
      throw new CairnError(
        'permanent',
        'image-damaged',
        `Tried to read CRIU image ${name}: its magic number ${what} where 0x${expected.toString(16)} (${kind}) is expected.`,
      );
    }
  }
  return words.length * 4;
}

/** The next record's bytes (a view) and where the one after it begins; `undefined` at the end. */
export function nextRecord(
  image: Uint8Array,
  at: number,
  name: string,
): { bytes: Uint8Array; next: number } | undefined {
  if (at === image.length) return undefined;
  const length = u32(image, at);
  const next = at + 4 + length;
  if (at + 4 > image.length || length > longestRecord || next > image.length) {
    throw new CairnError(
      'permanent',
      'image-damaged',
      `Tried to read CRIU image ${name}: record at byte ${at} is cut off.`,
    );
  }
  return { bytes: image.subarray(at + 4, next), next };
}

/** Decodes all records of an image whose kind has no payload after the records. */
export function decodeImage(image: Uint8Array, kind: ImageKind, name: string = `${kind}.img`): Message[] {
  const messages: Message[] = [];
  let at = recordsStart(image, kind, name);
  for (;;) {
    const record = nextRecord(image, at, name);
    if (record === undefined) return messages;
    messages.push(decodeMessage(record.bytes));
    at = record.next;
  }
}

/** The first bytes of an image of this kind. */
export function imageHeader(kind: ImageKind): Uint8Array<ArrayBuffer> {
  const words = kind === 'inventory' ? [] : [serviceKinds.has(kind) ? serviceMagic : commonMagic];
  words.push(imageMagics[kind]);
  return new Uint8Array(Uint32Array.from(words).buffer);
}

/** Builds an image from records. */
export function encodeImage(kind: ImageKind, messages: Iterable<Message>): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [imageHeader(kind)];
  for (const message of messages) parts.push(...encodeRecord(message));
  return concat(parts);
}

/** A message with its length before it, as in images and on the streamer's socket. */
export function encodeRecord(message: Message): [Uint8Array, Uint8Array] {
  const bytes = message.encode();
  return [new Uint8Array(Uint32Array.of(bytes.length).buffer), bytes];
}

function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Whether CRIU could have written a file of this name: one path segment of the characters that CRIU uses. */
export function isImageName(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/.test(name);
}

/** PID of a `pagemap-PID.img`, and of its shared-memory kind the identifier. */
export function pagemapId(name: string): { kind: 'process' | 'shared'; id: number } | undefined {
  const match = /^pagemap-(shmem-)?(\d+)\.img$/.exec(name);
  return match === null ? undefined : { kind: match[1] ? 'shared' : 'process', id: Number(match[2]) };
}

/** Number of a `pages-N.img`. */
export function pagesId(name: string): number | undefined {
  const match = /^pages-(\d+)\.img$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}
