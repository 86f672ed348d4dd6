import { closeSync, openSync } from 'node:fs';
import { systemCode } from '../errors.ts';
import { pageFlags } from '../criu/pagemap.ts';
import { pageIs, scanPages } from '../linux/memory.ts';
import { readMaps } from '../linux/process-maps.ts';
import { asynchronousRing } from './hold.ts';
import { type MemorySegments, pageSize, planSegments } from './memory-segments.ts';

/** End of user addresses on x86-64 and arm64 with 48-bit addresses, less the guard page. */
const addressSpaceEnd = 0x7ffffffff000n;
const regionsAtOnce = 1 << 14;

/**
 * The anonymous pages that a running process has now, as segments to read in advance of a checkpoint.
 *
 * Asks the kernel with PAGEMAP_SCAN (Linux 6.7); `undefined` where it is missing or the process is gone: then
 * nothing is read in advance. Pages of files are left out: CRIU keeps unchanged ones by reference.
 *
 * `frozen`: the process is being dumped, and what is read counts. Then only memory is planned that neither CRIU nor the kernel can write
 * to meanwhile: nothing executable, where CRIU puts its system calls, and nothing at all of a process with asynchronous I/O under way.
 */
export function planMemory(pid: number, frozen: boolean): MemorySegments | undefined {
  let fd: number;
  try {
    fd = openSync(`/proc/${pid}/pagemap`, 'r');
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
  try {
    const regions = new BigUint64Array(regionsAtOnce * 3);
    const runs: number[] = [];
    const ranges = frozen ? quietMappings(pid) : [{ start: 0n, end: addressSpaceEnd }];
    if (guard !== 0 && !knowsGuards(fd, regions)) guard = 0;
    for (const { start, end } of ranges) scanRange(fd, start, end, regions, runs);
    return planSegments(runs);
  } catch (error) {
    if (isGone(error) || systemCode(error) === 'ENOTTY' || systemCode(error) === 'EINVAL') return undefined;
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** The category of guard pages (MADV_GUARD_INSTALL), which look like swapped ones and cannot be read; 0 where the kernel does not tell. */
let guard: number = pageIs.guard;

function knowsGuards(fd: number, regions: BigUint64Array): boolean {
  try {
    scanPages(fd, { start: 0n, end: 4096n, mask: pageIs.guard, report: 0 }, regions);
    return true;
  } catch (error) {
    if (systemCode(error) === 'EINVAL') return false;
    throw error;
  }
}

/** Appends the anonymous pages of a range to `runs`; `regions` is room to work in. */
function scanRange(fd: number, from: bigint, end: bigint, regions: BigUint64Array, runs: number[]): void {
  const without = pageIs.file | guard;
  for (let start = from; start < end; ) {
    const { count, walkEnd } = scanPages(
      fd,
      {
        start,
        end,
        mask: without,
        inverted: without,
        anyOf: pageIs.present | pageIs.swapped,
        report: pageIs.pfnZero,
      },
      regions,
    );
    for (let i = 0; i < count; i++) {
      if (Number(regions[i * 3 + 2]) & pageIs.pfnZero) continue;
      const first = Number(regions[i * 3]);
      runs.push(first, (Number(regions[i * 3 + 1]) - first) / pageSize, pageFlags.lazy);
    }
    if (walkEnd <= start) break;
    start = walkEnd;
  }
}

/** Private anonymous mappings in which nothing happens while a process is dumped, neighbours joined. */
function quietMappings(pid: number): { start: bigint; end: bigint }[] {
  const mappings = readMaps(pid) ?? [];
  // Its requests complete while the process is stopped.
  if (mappings.some(({ path }) => path === asynchronousRing)) return [];
  const quiet: { start: bigint; end: bigint }[] = [];
  for (const { start, end, shared, executable, inode, path } of mappings) {
    if (shared || executable || inode !== 0 || !/^($|\[heap\]$|\[stack|\[anon:)/.test(path)) continue;
    const last = quiet.at(-1);
    if (last?.end === start) last.end = end;
    else quiet.push({ start, end });
  }
  return quiet;
}

function isGone(error: unknown): boolean {
  const code = systemCode(error);
  return code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES';
}
