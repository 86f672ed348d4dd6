/**
 * What was read of a process's memory, window by window (see `memory-segments.ts`): which pages there were, and the chunk that holds them.
 * Each also has a tag of its pages as they were read, so that a later look at the same window needs a tag and no name.
 */

import { ChunkList, ChunkListBuilder, type ChunkSink } from '../store/chunk-list.ts';
import { chunkIdBytes } from '../store/format.ts';
import { pageFlags } from '../criu/pagemap.ts';
import { gmacTagBytes } from '../linux/gmac.ts';
import { pageSize, runFields, windowSize } from './memory-segments.ts';
import { appendRun } from './page-runs.ts';

const tagWords = gmacTagBytes / 4;
const windowPages = windowSize / pageSize;

/** Records of windows, ascending addresses, in shared memory. Sets of pages are bits: 1 is the first page of the window. */
export interface MemoryWindows {
  addresses: Float64Array<SharedArrayBuffer>;
  /** Pages that were read. */
  pages: Uint16Array<SharedArrayBuffer>;
  /** Those of them that are left out because they are all zeros. */
  zeros: Uint16Array<SharedArrayBuffer>;
  /** `gmacTagBytes` for each window, over all pages that were read. */
  tags: Int32Array<SharedArrayBuffer>;
  /** Names of the chunks, 32 bytes each, as in `ChunkList`; of no meaning where all pages are left out. */
  ids: Uint8Array<SharedArrayBuffer>;
}

function allocate(count: number): MemoryWindows {
  const shared = (bytes: number) => new SharedArrayBuffer(bytes);
  return {
    addresses: new Float64Array(shared(count * 8)),
    pages: new Uint16Array(shared(count * 2)),
    zeros: new Uint16Array(shared(count * 2)),
    tags: new Int32Array(shared(count * gmacTagBytes)),
    ids: new Uint8Array(shared(count * chunkIdBytes)),
  };
}

function copyRecords(from: MemoryWindows, start: number, count: number, to: MemoryWindows, at: number): void {
  const end = start + count;
  to.addresses.set(from.addresses.subarray(start, end), at);
  to.pages.set(from.pages.subarray(start, end), at);
  to.zeros.set(from.zeros.subarray(start, end), at);
  to.tags.set(from.tags.subarray(start * tagWords, end * tagWords), at * tagWords);
  to.ids.set(from.ids.subarray(start * chunkIdBytes, end * chunkIdBytes), at * chunkIdBytes);
}

/** Collects records; as a sink it takes the one chunk of the record that comes next. */
export class WindowRecorder implements ChunkSink {
  readonly #windows: MemoryWindows;
  #count = 0;
  readonly #id = new Uint8Array(chunkIdBytes);

  /** With room for the windows of `runs`: memory that is not used is never touched, so that it costs nothing. */
  constructor(runs: Float64Array) {
    let room = 0;
    for (let r = 0; r < runs.length; r += runFields)
      room += Math.ceil((runs[r + 1] as number) / windowPages) + 1;
    this.#windows = allocate(room);
  }

  push(id: Uint8Array): void {
    this.#id.set(id);
  }

  pushZeros(): void {
    this.#id.fill(0);
  }

  /** Adds a record with the chunk that was pushed last. */
  add(address: number, pages: number, zeros: number, tag: Int32Array): void {
    const at = this.#count++;
    this.#windows.addresses[at] = address;
    this.#windows.pages[at] = pages;
    this.#windows.zeros[at] = zeros;
    this.#windows.tags.set(tag, at * tagWords);
    this.#windows.ids.set(this.#id, at * chunkIdBytes);
  }

  /** The records, in place. */
  build(): MemoryWindows {
    const { addresses, pages, zeros, tags, ids } = this.#windows;
    const count = this.#count;
    return {
      addresses: addresses.subarray(0, count),
      pages: pages.subarray(0, count),
      zeros: zeros.subarray(0, count),
      tags: tags.subarray(0, count * tagWords),
      ids: ids.subarray(0, count * chunkIdBytes),
    };
  }
}

/** Looks up records of windows that are asked for in ascending order, several times from the start if need be. */
export class WindowLookup {
  readonly #windows: MemoryWindows;
  #at = 0;

  constructor(windows: MemoryWindows) {
    this.#windows = windows;
  }

  /** Index of the record of the window at `address`, or -1. */
  find(address: number): number {
    const { addresses } = this.#windows;
    if (this.#at >= addresses.length || (addresses[this.#at] as number) > address) this.#at = 0;
    // The next one is mostly the right one; otherwise halve.
    let low = this.#at;
    if (addresses[low] !== address) {
      let high = addresses.length;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if ((addresses[middle] as number) < address) low = middle + 1;
        else high = middle;
      }
    }
    if (addresses[low] !== address) return -1;
    this.#at = low + 1;
    return low;
  }

  /** Whether record `i` is of exactly these pages with this content. */
  matches(i: number, pages: number, tag: Int32Array): boolean {
    if (this.#windows.pages[i] !== pages) return false;
    for (let word = 0; word < tagWords; word++)
      if (this.#windows.tags[i * tagWords + word] !== tag[word]) return false;
    return true;
  }
}

/** Joins what several threads read, each in ascending order. Throws if a window was read twice. */
export function mergeWindows(parts: readonly MemoryWindows[]): MemoryWindows {
  const merged = allocate(parts.reduce((sum, { pages }) => sum + pages.length, 0));
  const next = parts.map(() => 0);
  let last = -1;
  for (let at = 0; at < merged.pages.length; ) {
    let from = -1;
    let lowest = Number.POSITIVE_INFINITY;
    let limit = Number.POSITIVE_INFINITY;
    parts.forEach(({ addresses }, p) => {
      const address = addresses[next[p] as number] ?? Number.POSITIVE_INFINITY;
      if (address < lowest) {
        limit = lowest;
        lowest = address;
        from = p;
      } else if (address < limit) limit = address;
    });
    const part = parts[from];
    if (part === undefined) throw new Error('records that are not in order');
    // Everything of this part up to where another goes on, at once.
    const start = next[from] as number;
    let end = start;
    while (end < part.pages.length && (part.addresses[end] as number) < limit) {
      if ((part.addresses[end] as number) <= last) throw new Error('a window was read twice');
      last = part.addresses[end] as number;
      end++;
    }
    if (end === start) throw new Error('a window was read twice');
    copyRecords(part, start, end - start, merged, at);
    at += end - start;
    next[from] = end;
  }
  return merged;
}

/** One window of a page map. */
export interface WantedWindow {
  address: number;
  pages: number;
  /** Those of its pages that are private anonymous memory, in which zeros need not be kept. */
  lazy: number;
}

/** The windows of a page map, in order. */
export function* windowsOf(runs: Float64Array): Generator<WantedWindow, void, void> {
  let current: WantedWindow | undefined;
  for (let r = 0; r < runs.length; r += runFields) {
    const start = runs[r] as number;
    const end = start + (runs[r + 1] as number) * pageSize;
    const lazy = ((runs[r + 2] as number) & pageFlags.lazy) !== 0;
    for (let at = start; at < end; ) {
      const address = at - (at % windowSize);
      if (current?.address !== address) {
        if (current !== undefined) yield current;
        current = { address, pages: 0, lazy: 0 };
      }
      const upTo = Math.min(end, address + windowSize);
      const bits = pageBits((at - address) / pageSize, (upTo - at) / pageSize);
      current.pages |= bits;
      if (lazy) current.lazy |= bits;
      at = upTo;
    }
  }
  if (current !== undefined) yield current;
}

/** How many pages a set has. */
export function countPages(set: number): number {
  let count = 0;
  for (let rest = set; rest !== 0; rest &= rest - 1) count++;
  return count;
}

function pageBits(first: number, count: number): number {
  return ((1 << count) - 1) << first;
}

/** Whether a record is good for a window of a page map: the same pages, and nothing left out that has to be there. */
function fits(windows: MemoryWindows, i: number, wanted: { pages: number; lazy: number }): boolean {
  return i >= 0 && windows.pages[i] === wanted.pages && ((windows.zeros[i] as number) & ~wanted.lazy) === 0;
}

/**
 * The runs of a page map whose windows are not read by a plan: it has other pages of them, or takes them for lazy, so that it may leave out
 * zeros, and they are not. Whole windows. Linear: both are in order.
 */
export function runsToRead(runs: Float64Array, planned: Float64Array): number[] {
  const plan = windowsOf(planned);
  let next = plan.next();
  const missing: number[] = [];
  for (const wanted of windowsOf(runs)) {
    while (!next.done && next.value.address < wanted.address) next = plan.next();
    const found = next.done ? undefined : next.value;
    if (
      found?.address === wanted.address &&
      found.pages === wanted.pages &&
      (found.lazy & ~wanted.lazy) === 0
    )
      continue;
    appendWindow(missing, wanted);
  }
  return missing;
}

function appendWindow(runs: number[], { address, pages, lazy }: WantedWindow): void {
  for (let page = 0; page < windowPages; page++)
    if ((pages >> page) & 1)
      appendPage(runs, address + page * pageSize, (lazy >> page) & 1 ? pageFlags.lazy : 0);
}

/** The runs of a page map of which no reading has a good record; whole windows. */
export function unreadRuns(runs: Float64Array, readings: readonly MemoryWindows[]): number[] {
  const sources = readings.map((windows) => ({ windows, lookup: new WindowLookup(windows) }));
  const missing: number[] = [];
  for (const wanted of windowsOf(runs)) {
    if (sources.some(({ windows, lookup }) => fits(windows, lookup.find(wanted.address), wanted))) continue;
    appendWindow(missing, wanted);
  }
  return missing;
}

/** How many windows a page map has. */
export function countWindows(runs: Float64Array): number {
  let count = 0;
  for (const _ of windowsOf(runs)) count++;
  return count;
}

/** The memory of one process: which pages it has and the chunks that hold them, in the same order. */
export interface AssembledMemory {
  /** `runFields` numbers for each run; all-zero pages of private anonymous memory are left out. */
  runs: Float64Array<ArrayBuffer>;
  chunks: ChunkList;
  /** The records that were used. */
  windows: MemoryWindows;
}

/** Puts together what a page map asks for from the first of `readings` that has a good record of a window. Throws if none has. */
export function assemble(runs: Float64Array, readings: readonly MemoryWindows[]): AssembledMemory {
  const sources = readings.map((windows) => ({ windows, lookup: new WindowLookup(windows) }));
  const kept: number[] = [];
  const chunks = new ChunkListBuilder(1024);
  const used = new RangeCopy(readings.reduce((sum, { pages }) => sum + pages.length, 0));
  let run = 0;
  for (const wanted of windowsOf(runs)) {
    let i = -1;
    const source = sources.find(({ windows, lookup }) => {
      i = lookup.find(wanted.address);
      return fits(windows, i, wanted);
    });
    if (source === undefined) throw new Error(`memory at 0x${wanted.address.toString(16)} was not read`);
    const { windows } = source;
    used.add(windows, i);
    const left = wanted.pages & ~(windows.zeros[i] as number);
    if (left === 0) continue;
    let pages = 0;
    for (let page = 0; page < windowPages; page++) {
      if (!((left >> page) & 1)) continue;
      const address = wanted.address + page * pageSize;
      while (address >= endOfRun(runs, run)) run++;
      appendPage(kept, address, runs[run * runFields + 2] as number);
      pages++;
    }
    const id = windows.ids.subarray(i * chunkIdBytes, (i + 1) * chunkIdBytes);
    if (id.every((byte) => byte === 0)) chunks.pushZeros(pages * pageSize);
    else chunks.push(id, pages * pageSize);
  }
  return { runs: Float64Array.from(kept), chunks: chunks.build(), windows: used.build() };
}

/** Copies records one by one, neighbours together. */
class RangeCopy {
  readonly #target: MemoryWindows;
  #count = 0;
  #pending: { from: MemoryWindows; start: number; count: number } | undefined;

  constructor(capacity: number) {
    this.#target = allocate(capacity);
  }

  add(from: MemoryWindows, i: number): void {
    const last = this.#pending;
    if (last?.from === from && last.start + last.count === i) {
      last.count++;
      return;
    }
    this.#flush();
    this.#pending = { from, start: i, count: 1 };
  }

  build(): MemoryWindows {
    this.#flush();
    const exact = allocate(this.#count);
    copyRecords(this.#target, 0, this.#count, exact, 0);
    return exact;
  }

  #flush(): void {
    if (this.#pending === undefined) return;
    const { from, start, count } = this.#pending;
    copyRecords(from, start, count, this.#target, this.#count);
    this.#count += count;
    this.#pending = undefined;
  }
}

function endOfRun(runs: Float64Array, run: number): number {
  return (runs[run * runFields] as number) + (runs[run * runFields + 1] as number) * pageSize;
}

function appendPage(runs: number[], address: number, flags: number): void {
  appendRun(runs, address, address + pageSize, flags);
}
