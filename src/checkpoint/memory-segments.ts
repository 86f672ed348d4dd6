/**
 * Memory is read in segments and named in windows.
 *
 * A window is a 64 KiB aligned range of addresses; its chunk is made of the pages of the window that exist, so that
 * unchanged memory gives the same chunks again even when pages before it come or go. A segment is the unit of work that
 * a worker takes: whole windows, at most about 1 MiB of pages, read with one system call.
 */
export const pageSize = 4096;
export const windowSize = 64 * 1024;
/** Pages in one segment at the most (1 MiB). */
export const segmentPages = 256;
/** Runs in one segment at the most: IOV_MAX of process_vm_readv is 1024. */
export const segmentRuns = 512;

/** A run of pages: three numbers, address, pages and flags (as in CRIU's pagemap entries). */
export const runFields = 3;

export interface MemorySegments {
  /** `runFields` numbers for each run, ascending addresses; no run crosses a window boundary that ends a segment. */
  runs: Float64Array<SharedArrayBuffer>;
  /** First run of each segment, and one more entry: the number of runs. */
  starts: Uint32Array<SharedArrayBuffer>;
  /** All pages of all runs. */
  pages: number;
}

/**
 * Cuts runs (`[address, pages, flags] …`, ascending, page-aligned) at window boundaries where needed and gathers them into
 * segments. Pure; the result lies in shared memory so that workers can take segments without copies.
 */
export function planSegments(runs: Float64Array | readonly number[]): MemorySegments {
  const cut: number[] = [];
  const starts: number[] = [0];
  let inSegment = 0;
  let firstRun = 0;
  let total = 0;
  let lastWindow = -1;
  for (let i = 0; i < runs.length; i += runFields) {
    let address = runs[i] as number;
    let left = runs[i + 1] as number;
    const flags = runs[i + 2] as number;
    total += left;
    while (left > 0) {
      const window = Math.floor(address / windowSize);
      const runsSoFar = cut.length / runFields - firstRun;
      const full = inSegment >= segmentPages || runsSoFar >= segmentRuns;
      if (full && window !== lastWindow) {
        firstRun = cut.length / runFields;
        starts.push(firstRun);
        inSegment = 0;
      }
      // Up to the end of the last window that this segment may still hold, at least one window.
      const room = Math.max(segmentPages - inSegment, 1);
      const toWindowEnd = (windowSize - (address % windowSize)) / pageSize;
      const span = toWindowEnd + Math.floor(Math.max(room - toWindowEnd, 0) / 16) * 16;
      const pages = Math.min(left, span);
      cut.push(address, pages, flags);
      inSegment += pages;
      address += pages * pageSize;
      left -= pages;
      lastWindow = Math.floor((address - pageSize) / windowSize);
    }
  }
  if (cut.length / runFields > firstRun) starts.push(cut.length / runFields);
  const sharedRuns = new Float64Array(new SharedArrayBuffer(cut.length * 8));
  sharedRuns.set(cut);
  const sharedStarts = new Uint32Array(new SharedArrayBuffer(starts.length * 4));
  sharedStarts.set(starts);
  return { runs: sharedRuns, starts: sharedStarts, pages: total };
}
