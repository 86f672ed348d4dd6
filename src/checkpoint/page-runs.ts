/**
 * Lists of runs of pages: address, pages and flags of each (as in CRIU's page maps), ascending. A page is either lazy or present. Pure.
 */

import { pageFlags } from '../criu/pagemap.ts';
import { pageSize, runFields } from './memory-segments.ts';

/** Adds the pages from `start` to `end` to a list, joining them to its last run where they follow on. */
export function appendRun(runs: number[], start: number, end: number, flags: number): void {
  const last = runs.length - runFields;
  if (
    last >= 0 &&
    runs[last + 2] === flags &&
    (runs[last] as number) + (runs[last + 1] as number) * pageSize === start
  )
    runs[last + 1] = (runs[last + 1] as number) + (end - start) / pageSize;
  else runs.push(start, (end - start) / pageSize, flags);
}

/** Walks over a list together with ascending ranges of addresses. */
export class RunCursor {
  readonly #runs: Float64Array | readonly number[];
  #at = 0;

  constructor(runs: Float64Array | readonly number[]) {
    this.#runs = runs;
  }

  /** Appends the pages between `start` and `end` to `into`, with other flags. */
  copy(start: number, end: number, flags: number, into: number[]): void {
    for (; this.#at < this.#runs.length; this.#at += runFields) {
      const first = this.#runs[this.#at] as number;
      const last = first + (this.#runs[this.#at + 1] as number) * pageSize;
      if (first >= end) return;
      if (last > start) appendRun(into, Math.max(first, start), Math.min(last, end), flags);
      // The rest of it belongs to the next range.
      if (last > end) return;
    }
  }
}

/** The pages of both lists; lazy only if they are so in each list that has them. */
export function joinRuns(a: Float64Array | readonly number[], b: Float64Array | readonly number[]): number[] {
  const joined: number[] = [];
  const left = { runs: a, i: 0, start: 0, end: 0 };
  const right = { runs: b, i: 0, start: 0, end: 0 };
  const sides = [left, right];
  let at = 0;
  for (;;) {
    for (const side of sides) {
      side.end = 0;
      for (; side.i < side.runs.length; side.i += runFields) {
        const first = side.runs[side.i] as number;
        side.start = Math.max(first, at);
        side.end = first + (side.runs[side.i + 1] as number) * pageSize;
        if (side.end > at) break;
      }
      if (side.i >= side.runs.length) side.start = side.end = Number.POSITIVE_INFINITY;
    }
    const start = Math.min(left.start, right.start);
    if (start === Number.POSITIVE_INFINITY) return joined;
    let end = Number.POSITIVE_INFINITY;
    let lazy = true;
    for (const side of sides) {
      if (side.start > start) end = Math.min(end, side.start);
      else {
        end = Math.min(end, side.end);
        lazy &&= ((side.runs[side.i + 2] as number) & pageFlags.lazy) !== 0;
      }
    }
    appendRun(joined, start, end, lazy ? pageFlags.lazy : pageFlags.present);
    at = end;
  }
}

/** The same pages, those at `addresses` not lazy. */
export function withoutLazyAt(runs: readonly number[], addresses: ReadonlySet<number>): number[] {
  const sorted = [...addresses].sort((a, b) => a - b);
  const result: number[] = [];
  let next = 0;
  for (let i = 0; i < runs.length; i += runFields) {
    let start = runs[i] as number;
    const end = start + (runs[i + 1] as number) * pageSize;
    const flags = runs[i + 2] as number;
    while (next < sorted.length && (sorted[next] as number) < start) next++;
    for (; next < sorted.length && (sorted[next] as number) < end; next++) {
      const address = sorted[next] as number;
      if (address > start) appendRun(result, start, address, flags);
      appendRun(result, address, address + pageSize, pageFlags.present);
      start = address + pageSize;
    }
    if (start < end) appendRun(result, start, end, flags);
  }
  return result;
}
