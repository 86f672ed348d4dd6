/**
 * `pagemap-PID.img`: which pages of a process an image holds, and where (CRIU images/pagemap.proto).
 *
 * Decoded by hand into one typed array: large processes have hundreds of thousands of entries.
 */

import { CairnError } from '../errors.ts';
import { decodeMessage } from './protobuf.ts';
import { imageHeader, nextRecord, recordsStart } from './image-file.ts';

/** Flags of a run: the pages lie in the parent image; may be fetched later; follow in the pages file. */
export const pageFlags = { parent: 1, lazy: 2, present: 4 } as const;

/** Numbers for each run in `Pagemap.runs`. */
export const runFields = 3;

export interface Pagemap {
  /** The pages are in `pages-<pagesId>.img`. */
  pagesId: number;
  /** For each run, in ascending order: address in bytes, number of pages, flags. */
  runs: Float64Array<ArrayBufferLike>;
}

const knownFlags = pageFlags.parent | pageFlags.lazy | pageFlags.present;

/**
 * Decodes a pagemap image (of a process or of shared memory).
 *
 * Throws `permanent` `image-damaged`, and `image-unknown` for fields or flags that a newer CRIU may have added: they may
 * change where pages lie (compression does), so that guessing would corrupt memory.
 */
export function decodePagemap(image: Uint8Array, name = 'pagemap.img'): Pagemap {
  const head = nextRecord(image, recordsStart(image, 'pagemap', name), name);
  const pagesId = head && decodeMessage(head.bytes);
  const id = pagesId?.uint(1);
  if (head === undefined || id === undefined) throw damaged(name, 'it has no head');
  if (pagesId?.fields.some((field) => field.number !== 1)) throw unknown(name, 'a field of the head');

  let runs = new Float64Array(Math.ceil((image.length - head.next) / 10) * runFields + runFields);
  let count = 0;
  const cursor = { at: head.next };
  while (cursor.at < image.length) {
    const record = nextRecord(image, cursor.at, name);
    if (record === undefined) break;
    if ((count + 1) * runFields > runs.length) {
      const larger = new Float64Array(runs.length * 2);
      larger.set(runs);
      runs = larger;
    }
    cursor.at += 4;
    decodeEntry(image, cursor, record.next, runs, count++ * runFields, name);
  }
  return { pagesId: id, runs: runs.slice(0, count * runFields) };
}

function decodeEntry(
  image: Uint8Array,
  cursor: { at: number },
  end: number,
  runs: Float64Array,
  index: number,
  name: string,
): void {
  let address = -1;
  let compatPages = -1;
  let pages = -1;
  let flags = -1;
  let inParent = 0;
  while (cursor.at < end) {
    const key = varint(image, cursor, end, name);
    switch (key) {
      case 0x08:
        address = varint(image, cursor, end, name);
        break;
      case 0x10:
        compatPages = varint(image, cursor, end, name);
        break;
      case 0x18:
        inParent = varint(image, cursor, end, name);
        break;
      case 0x20:
        flags = varint(image, cursor, end, name);
        break;
      case 0x28:
        pages = varint(image, cursor, end, name);
        break;
      default:
        throw unknown(name, `field ${key >>> 3} of a run`);
    }
  }
  if (address < 0 || compatPages < 0) throw damaged(name, 'a run lacks its address or length');
  // As CRIU itself reads images of all versions (init_compat_pagemap_entry).
  if (inParent > 0) flags = Math.max(flags, 0) | pageFlags.parent;
  else if (flags < 0) flags = pageFlags.present;
  if ((flags & ~knownFlags) !== 0) throw unknown(name, `flags 0x${flags.toString(16)} of a run`);
  runs[index] = address;
  runs[index + 1] = pages >= 0 ? pages : compatPages;
  runs[index + 2] = flags;
}

/** Addresses are multiples of the page size, so that a double holds each of them exactly. */
function varint(image: Uint8Array, cursor: { at: number }, end: number, name: string): number {
  let value = 0;
  let scale = 1;
  for (let i = 0; i < 10 && cursor.at < end; i++) {
    const byte = image[cursor.at++] as number;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return value;
    scale *= 128;
  }
  throw damaged(name, 'a number is cut off');
}

/** Encodes a pagemap image that every CRIU reads: the length stands in the old and in the new (4.2) field. */
export function encodePagemap(pagemap: Pagemap): Uint8Array<ArrayBuffer> {
  const { runs, pagesId } = pagemap;
  const header = imageHeader('pagemap');
  // Per run at most: 4 length, 1 + 10 address, 1 + 5 and 1 + 10 lengths, 1 + 1 flags.
  const out = new Uint8Array(header.length + 16 + (runs.length / runFields) * 34);
  out.set(header);
  let at = header.length;
  const put = (value: number) => {
    let rest = value;
    while (rest >= 128) {
      out[at++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    out[at++] = rest;
  };
  const record = (write: () => void) => {
    const start = at;
    at += 4;
    write();
    const length = at - start - 4;
    out[start] = length & 0xff;
    out[start + 1] = (length >>> 8) & 0xff;
    out[start + 2] = 0;
    out[start + 3] = 0;
  };
  record(() => {
    put(0x08);
    put(pagesId);
  });
  for (let i = 0; i < runs.length; i += runFields) {
    record(() => {
      const pages = runs[i + 1] as number;
      put(0x08);
      put(runs[i] as number);
      put(0x10);
      put(pages < 2 ** 32 ? pages : 0);
      put(0x20);
      put(runs[i + 2] as number);
      put(0x28);
      put(pages);
    });
  }
  return out.slice(0, at);
}

/**
 * The same runs for a restore that reads everything: lazy runs are present, so that all pages lie in the pages file, in this
 * order. Runs that the dump left to a page server (lazy and not present) become whole.
 */
export function withLazyPages(runs: Float64Array<ArrayBufferLike>): Float64Array<ArrayBuffer> {
  return mapFlags(runs, (flags) => ((flags & pageFlags.lazy) !== 0 ? flags | pageFlags.present : flags));
}

/** The same runs for a restore with a page server: lazy runs are not in the pages file. */
export function withoutLazyPages(runs: Float64Array<ArrayBufferLike>): Float64Array<ArrayBuffer> {
  return mapFlags(runs, (flags) => ((flags & pageFlags.lazy) !== 0 ? flags & ~pageFlags.present : flags));
}

/** Pages in a run that CRIU gets from Cairn, at the most: 64 MiB. In places CRIU counts bytes of a run in an int (uffd.c). */
const longestRun = 1 << 14;

/** The same pages in runs that are short enough for every part of CRIU. */
export function withoutLongRuns(
  runs: Float64Array<ArrayBufferLike>,
  pageSize = 4096,
): Float64Array<ArrayBuffer> {
  const cut: number[] = [];
  for (let i = 0; i < runs.length; i += runFields) {
    const pages = runs[i + 1] as number;
    for (let done = 0; done < pages; done += longestRun)
      cut.push(
        (runs[i] as number) + done * pageSize,
        Math.min(longestRun, pages - done),
        runs[i + 2] as number,
      );
  }
  return Float64Array.from(cut);
}

function mapFlags(
  runs: Float64Array<ArrayBufferLike>,
  change: (flags: number) => number,
): Float64Array<ArrayBuffer> {
  const changed = Float64Array.from(runs);
  for (let i = 2; i < changed.length; i += runFields) changed[i] = change(changed[i] as number);
  return changed;
}

/** Bytes that the runs take in the pages file (those that are present). */
export function presentBytes(runs: Float64Array<ArrayBufferLike>, pageSize: number): number {
  let pages = 0;
  for (let i = 0; i < runs.length; i += runFields) {
    if (((runs[i + 2] as number) & pageFlags.present) !== 0) pages += runs[i + 1] as number;
  }
  return pages * pageSize;
}

function damaged(name: string, what: string): CairnError {
  return new CairnError('permanent', 'image-damaged', `Tried to read CRIU image ${name}: ${what}.`);
}

function unknown(name: string, what: string): CairnError {
  return new CairnError(
    'permanent',
    'image-unknown',
    `Tried to read CRIU image ${name}: ${what} is not known to this version of Cairn.`,
    {
      remedy:
        'Use the Cairn that made the snapshot or a newer one, or the CRIU version that `cairn doctor` asks for.',
    },
  );
}
