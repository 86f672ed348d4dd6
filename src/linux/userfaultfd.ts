/** Userfaultfd: bringing missing memory into another process (linux/userfaultfd.h). */

import { addressOf, bytesOf, lastErrno, libc, read, SystemCallError } from './libc.ts';

const UFFDIO_COPY = 0xc028aa03;
const UFFDIO_ZEROPAGE = 0xc020aa04;
const UFFDIO_WAKE = 0x8010aa02;

/** What happened in the process. Addresses are bytes. */
export type MemoryEvent =
  /** A thread waits for this page. */
  | { kind: 'fault'; address: number }
  /** The process has forked: the child's memory has a userfaultfd of its own, which belongs to the caller. */
  | { kind: 'fork'; fd: number }
  | { kind: 'remap'; from: number; to: number; length: number }
  /** Given up by the program (MADV_DONTNEED): reads as zeros from now on. */
  | { kind: 'remove'; start: number; end: number }
  | { kind: 'unmap'; start: number; end: number };

const kinds = { fault: 0x12, fork: 0x13, remap: 0x14, remove: 0x15, unmap: 0x16 } as const;
const eventBytes = 32;
const buffer = new Uint8Array(new SharedArrayBuffer(eventBytes));
const view = new DataView(buffer.buffer);

/**
 * The next event of a non-blocking userfaultfd; `undefined` if there is none now. The process does not go on with what it was about to do
 * (`munmap`, `fork` …) before it has been read. Throws for events that were not asked for.
 */
export function readMemoryEvent(fd: number): MemoryEvent | undefined {
  const length = read(fd, buffer);
  if (length === undefined || length === 0) return undefined;
  const word = (i: number) => Number(view.getBigUint64(8 + 8 * i, true));
  switch (view.getUint8(0)) {
    case kinds.fault:
      return { kind: 'fault', address: word(1) };
    case kinds.fork:
      return { kind: 'fork', fd: view.getUint32(8, true) };
    case kinds.remap:
      return { kind: 'remap', from: word(0), to: word(1), length: word(2) };
    case kinds.remove:
      return { kind: 'remove', start: word(0), end: word(1) };
    case kinds.unmap:
      return { kind: 'unmap', start: word(0), end: word(1) };
    default:
      throw new Error(`userfaultfd: event 0x${view.getUint8(0).toString(16)}`);
  }
}

/**
 * How far pages were put in place, in bytes, and why not all of them: the next page is there already; it is no mapping any more; the
 * mappings are being changed (read the events, then try again); the process has ended.
 */
export interface Placed {
  bytes: number;
  stopped?: 'present' | 'unmapped' | 'changing' | 'ended';
}

/** Puts whole pages where they are missing, and wakes who waits for them. Throws other system errors. */
export function placePages(fd: number, address: number, pages: Uint8Array): Placed {
  const argument = BigUint64Array.of(BigInt(address), addressOf(pages), BigInt(pages.byteLength), 0n, 0n);
  const result = libc().ioctl(fd, UFFDIO_COPY, bytesOf(argument));
  return placed(result, argument[4] as bigint, pages.byteLength, 'UFFDIO_COPY');
}

/** The same with pages of zeros. */
export function placeZeros(fd: number, address: number, bytes: number): Placed {
  const argument = BigUint64Array.of(BigInt(address), BigInt(bytes), 0n, 0n);
  const result = libc().ioctl(fd, UFFDIO_ZEROPAGE, bytesOf(argument));
  return placed(result, argument[3] as bigint, bytes, 'UFFDIO_ZEROPAGE');
}

/** Wakes who waits for pages that are there already. */
export function wakeWaiters(fd: number, address: number, bytes: number): void {
  const argument = BigUint64Array.of(BigInt(address), BigInt(bytes));
  libc().ioctl(fd, UFFDIO_WAKE, bytesOf(argument));
}

const reasons: Readonly<Record<number, NonNullable<Placed['stopped']>>> = {
  17: 'present',
  2: 'unmapped',
  14: 'unmapped',
  22: 'unmapped',
  11: 'changing',
  3: 'ended',
  28: 'ended',
};

function placed(result: number, count: bigint, wanted: number, call: string): Placed {
  if (result >= 0) return { bytes: wanted };
  const errno = lastErrno();
  const done = BigInt.asIntN(64, count);
  // Some pages, and then EAGAIN: what stopped it the next call tells.
  if (done > 0n) return { bytes: Number(done) };
  const stopped = reasons[done < 0n ? Number(-done) : errno] ?? reasons[errno];
  if (stopped === undefined) throw new SystemCallError(errno, call);
  return { bytes: 0, stopped };
}
