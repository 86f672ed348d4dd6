import { closeSync, openSync } from 'node:fs';
import { systemCode } from '../errors.ts';
import { asynchronousRing } from '../criu/asynchronous-io.ts';
import type { PrivateMapping } from '../criu/saved-mappings.ts';
import { pageFlags } from '../criu/pagemap.ts';
import { pageIs, scanPages } from '../linux/memory.ts';
import { readStackPointers } from '../linux/process.ts';
import { readMaps } from '../linux/process-maps.ts';
import { type MemorySegments, pageSize, planSegments, runFields } from './memory-segments.ts';
import { appendRun, joinRuns, RunCursor, withoutLazyAt } from './page-runs.ts';

/** End of user addresses on x86-64 and arm64 with 48-bit addresses, less the guard page. */
const addressSpaceEnd = 0x7ffffffff000;
const regionsAtOnce = 1 << 14;

/** What `planMemory` found. */
export interface MemoryPlan {
  segments: MemorySegments;
  /** Where these are all pages: `[start, end] …`, ascending, neighbours joined. */
  ranges: number[];
}

/**
 * The anonymous pages that a running process has now, as segments to read in advance of a checkpoint.
 *
 * Asks the kernel with PAGEMAP_SCAN (Linux 6.7); `undefined` where it is missing or the process is gone: then
 * nothing is read in advance. Pages of files are left out: CRIU keeps unchanged ones by reference.
 *
 * `frozen`: the process is being dumped, and what is read counts. Then only memory is planned that neither CRIU nor the kernel can write
 * to meanwhile: nothing executable, where CRIU puts its system calls, and nothing at all of a process with asynchronous I/O under way.
 */
export function planMemory(pid: number, frozen: boolean): MemoryPlan | undefined {
  return withPagemap(pid, (scan) => {
    const runs: number[] = [];
    const ranges = frozen ? quietMappings(pid) : [0, addressSpaceEnd];
    for (let i = 0; i < ranges.length; i += 2)
      scan(ranges[i] as number, ranges[i + 1] as number, pageFlags.lazy, runs);
    return { segments: planSegments(runs), ranges };
  });
}

/** As `planMemory` of a frozen process, from pages that are expected: they may not be there, and there may be others. */
export function planExpected(pid: number, expected: MemorySegments): MemoryPlan {
  const quiet = quietMappings(pid);
  const pages = new RunCursor(expected.runs);
  const runs: number[] = [];
  for (let i = 0; i < quiet.length; i += 2)
    pages.copy(quiet[i] as number, quiet[i + 1] as number, pageFlags.lazy, runs);
  return { segments: planSegments(runs), ranges: [] };
}

/** Whether this kernel tells the pages of a process; without that nothing is planned. */
export function canListPages(): boolean {
  return withPagemap(process.pid, (scan) => scan(0, pageSize, 0, []) === undefined) ?? false;
}

/**
 * The page map of a process of which CRIU has not seen some mappings whole (`MappingCover`): what CRIU lists, and the pages of those mappings by the rules of
 * CRIU itself (criu/mem.c: generate_iovs). The process is still stopped, and nothing of CRIU is left in it. `plan` is of the same
 * moment: what it has is not asked for again. `undefined` as for `planMemory`.
 */
export function listPages(
  pid: number,
  mappings: readonly PrivateMapping[],
  plan: { runs: Float64Array; ranges: readonly number[] } | undefined,
  listed: Float64Array,
): MemorySegments | undefined {
  return withPagemap(pid, (scan) => {
    const runs: number[] = [];
    const planned = new RunCursor(plan?.runs ?? []);
    const ranges = plan?.ranges ?? [];
    let range = 0;
    for (const { start, end, lazy } of mappings) {
      const flags = lazy ? pageFlags.lazy : pageFlags.present;
      while (range < ranges.length && (ranges[range + 1] as number) <= start) range += 2;
      const covered =
        range < ranges.length && (ranges[range] as number) <= start && end <= (ranges[range + 1] as number);
      if (covered) planned.copy(start, end, flags, runs);
      else scan(start, end, flags, runs);
    }
    return planSegments(joinRuns(withoutLazyStacks(runs, pid), listed));
  });
}

/** The same pages, those on which the threads of the process have their stack pointers not lazy; none if a thread does not tell. */
function withoutLazyStacks(runs: readonly number[], pid: number): readonly number[] {
  const pointers = readStackPointers(pid);
  if (pointers === undefined)
    return runs.map((value, i) => (i % runFields === 2 ? pageFlags.present : value));
  return withoutLazyAt(runs, new Set(pointers.map((pointer) => pointer - (pointer % pageSize))));
}

type Scan = (start: number, end: number, flags: number, runs: number[]) => void;

function withPagemap<T>(pid: number, work: (scan: Scan) => T): T | undefined {
  let fd: number;
  try {
    fd = openSync(`/proc/${pid}/pagemap`, 'r');
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
  try {
    const regions = new BigUint64Array(regionsAtOnce * 3);
    if (guard !== 0 && !knowsGuards(fd, regions)) guard = 0;
    return work((start, end, flags, runs) => scanRange(fd, start, end, flags, regions, runs));
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
function scanRange(
  fd: number,
  from: number,
  to: number,
  flags: number,
  regions: BigUint64Array,
  runs: number[],
): void {
  const without = pageIs.file | guard;
  const end = BigInt(to);
  for (let start = BigInt(from); start < end; ) {
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
      appendRun(runs, Number(regions[i * 3]), Number(regions[i * 3 + 1]), flags);
    }
    if (walkEnd <= start) break;
    start = walkEnd;
  }
}

/** Private anonymous mappings in which nothing happens while a process is dumped: `[start, end] …`, neighbours joined. */
function quietMappings(pid: number): number[] {
  const mappings = readMaps(pid) ?? [];
  // Its requests complete while the process is stopped.
  if (mappings.some(({ path }) => path === asynchronousRing)) return [];
  const quiet: number[] = [];
  for (const { start, end, shared, executable, inode, path } of mappings) {
    if (shared || executable || inode !== 0 || !/^($|\[heap\]$|\[stack|\[anon:)/.test(path)) continue;
    if (quiet.at(-1) === Number(start)) quiet[quiet.length - 1] = Number(end);
    else quiet.push(Number(start), Number(end));
  }
  return quiet;
}

function isGone(error: unknown): boolean {
  const code = systemCode(error);
  return code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES';
}
