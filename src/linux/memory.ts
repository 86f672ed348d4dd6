/** Memory of other processes: reading it, and asking which pages it has. */

import { addressOf, type Bytes, bytesOf, checked, lastErrno, libc, SystemCallError } from './libc.ts';

/** The most pieces one process_vm_readv takes (IOV_MAX). */
export const maxPieces = 1024;

const localVector = new BigUint64Array(2);

/**
 * Reads pieces of the memory of a process, one after the other, into one place: process_vm_readv(2), no copy in between.
 *
 * `pieces` holds pairs of address and length in bytes, `count` (at most `maxPieces`) says how many. Returns the bytes read:
 * fewer than asked for if a piece is not mapped. Throws ESRCH if the process is gone, EFAULT if the first piece is not mapped.
 */
export function readMemory(
  pid: number,
  into: Bytes,
  pieces: BigUint64Array<ArrayBufferLike>,
  count: number,
): number {
  localVector[0] = addressOf(into);
  localVector[1] = BigInt(into.byteLength);
  const read = libc().processVmReadv(pid, bytesOf(localVector), 1, bytesOf(pieces), count, 0);
  return checked(read, 'process_vm_readv', String(pid));
}

/** Categories of a page for PAGEMAP_SCAN (linux/fs.h). */
export const pageIs = {
  wpAllowed: 1,
  written: 2,
  file: 4,
  present: 8,
  swapped: 16,
  pfnZero: 32,
  huge: 64,
  softDirty: 128,
  /** Linux 6.15. */
  guard: 256,
} as const;

/** What PAGEMAP_SCAN looks for; categories are `pageIs` joined with |. */
export interface PageScan {
  start: bigint;
  end: bigint;
  /** A page matches if it has all of `mask` (after `inverted` flipped those) and, if given, one of `anyOf`. */
  mask?: number;
  inverted?: number;
  anyOf?: number;
  /** Categories to report; neighbours that are equal in them form one region. */
  report: number;
  /** Write-protect the matching pages again (PM_SCAN_WP_MATCHING and PM_SCAN_CHECK_WPASYNC): reports and re-arms at once. */
  protect?: boolean;
  /** Stop after this many pages; 0 or nothing: no limit. */
  maxPages?: number;
}

const PAGEMAP_SCAN = 0xc0606610;
const scanArgument = new BigUint64Array(12);

/**
 * PAGEMAP_SCAN (Linux 6.7) on an open `/proc/PID/pagemap`. Fills `regions` with triples of start, end and categories; returns
 * how many and where the scan ended (`end` when it is complete; otherwise go on from there). Throws ENOTTY on older kernels.
 */
export function scanPages(
  pagemapFd: number,
  scan: PageScan,
  regions: BigUint64Array<ArrayBufferLike>,
): { count: number; walkEnd: bigint } {
  const argument = scanArgument;
  argument[0] = 96n;
  argument[1] = scan.protect ? 3n : 0n;
  argument[2] = scan.start;
  argument[3] = scan.end;
  argument[4] = 0n;
  argument[5] = addressOf(regions);
  argument[6] = BigInt(Math.floor(regions.length / 3));
  argument[7] = BigInt(scan.maxPages ?? 0);
  argument[8] = BigInt(scan.inverted ?? 0);
  argument[9] = BigInt(scan.mask ?? 0);
  argument[10] = BigInt(scan.anyOf ?? 0);
  argument[11] = BigInt(scan.report);
  const count = libc().ioctl(pagemapFd, PAGEMAP_SCAN, bytesOf(argument));
  if (count < 0) throw new SystemCallError(lastErrno(), 'PAGEMAP_SCAN');
  // Linux (up to 6.18 at least) gathers 512 regions at a time and, when more than that fit and are all, returns where those ended.
  const complete = count < Math.floor(regions.length / 3) && scan.maxPages === undefined;
  return { count, walkEnd: complete ? scan.end : argument[4] };
}

const hugePage = 2 * 1024 * 1024;

/**
 * Asks for huge pages behind the whole 2 MiB ranges of a buffer (MADV_HUGEPAGE): one page fault instead of 512 when it is first
 * touched, which on virtual machines is the difference between 0.2 and 10 GB/s. Only advice: a refusal is no error.
 */
export function adviseHugePages(bytes: Bytes): void {
  const MADV_HUGEPAGE = 14;
  const address = Number(addressOf(bytes));
  const start = Math.ceil(address / hugePage) * hugePage;
  const end = Math.floor((address + bytes.byteLength) / hugePage) * hugePage;
  if (end > start) libc().madvise(start, end - start, MADV_HUGEPAGE);
}

/**
 * Has the pages of a buffer present and writable, in one system call instead of a page fault for each; false if the kernel
 * cannot (before 5.14). Leaves out the incomplete pages at both ends.
 */
export function populatePages(bytes: Bytes): boolean {
  const MADV_POPULATE_WRITE = 23;
  const address = Number(addressOf(bytes));
  const start = Math.ceil(address / 4096) * 4096;
  const end = Math.floor((address + bytes.byteLength) / 4096) * 4096;
  return end <= start || libc().madvise(start, end - start, MADV_POPULATE_WRITE) >= 0;
}

/** Gives memory that was freed, and that the C library keeps for later, back to the system (malloc_trim). */
export function returnFreeMemory(): void {
  libc().mallocTrim(0);
}
