import { closeSync, openSync } from 'node:fs';
import { systemCode } from '../errors.ts';
import { pageFlags } from '../criu/pagemap.ts';
import { pageIs, scanPages } from '../linux/memory.ts';
import { type MemorySegments, pageSize, planSegments } from './memory-segments.ts';

/** End of user addresses on x86-64 and arm64 with 48-bit addresses, less the guard page. */
const addressSpaceEnd = 0x7ffffffff000n;
const regionsAtOnce = 1 << 14;

/**
 * The anonymous pages that a running process has now, as segments to read in advance of a checkpoint.
 *
 * Asks the kernel with PAGEMAP_SCAN (Linux 6.7); `undefined` where it is missing or the process is gone: then
 * nothing is read in advance. Pages of files are left out: CRIU keeps unchanged ones by reference.
 */
export function planMemory(pid: number): MemorySegments | undefined {
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
    for (let start = 0n; start < addressSpaceEnd; ) {
      const { count, walkEnd } = scanPages(
        fd,
        {
          start,
          end: addressSpaceEnd,
          mask: pageIs.file,
          inverted: pageIs.file,
          anyOf: pageIs.present | pageIs.swapped,
          report: pageIs.pfnZero,
        },
        regions,
      );
      for (let i = 0; i < count; i++) {
        if (Number(regions[i * 3 + 2]) & pageIs.pfnZero) continue;
        const from = Number(regions[i * 3]);
        runs.push(from, (Number(regions[i * 3 + 1]) - from) / pageSize, pageFlags.lazy);
      }
      if (walkEnd <= start) break;
      start = walkEnd;
    }
    return planSegments(runs);
  } catch (error) {
    if (isGone(error) || systemCode(error) === 'ENOTTY' || systemCode(error) === 'EINVAL') return undefined;
    throw error;
  } finally {
    closeSync(fd);
  }
}

function isGone(error: unknown): boolean {
  const code = systemCode(error);
  return code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES';
}
