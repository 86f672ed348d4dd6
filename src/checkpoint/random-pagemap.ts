/** For tests: page maps at random. */

import fc from 'fast-check';
import { pageSize } from './memory-segments.ts';

/** Ascending runs (`[address, pages, flags] …`) with gaps between them of `minGap` to 40 pages. */
export function randomPagemap(limits: {
  minGap: number;
  maxPages: number;
  maxRuns: number;
}): fc.Arbitrary<Float64Array<ArrayBuffer>> {
  const run = fc.record({
    gap: fc.integer({ min: limits.minGap, max: 40 }),
    pages: fc.integer({ min: 1, max: limits.maxPages }),
    flags: fc.constantFrom(2, 4, 6),
  });
  return fc.array(run, { maxLength: limits.maxRuns }).map((list) => {
    const runs: number[] = [];
    let address = 0x7f0000000000;
    for (const { gap, pages, flags } of list) {
      address += gap * pageSize;
      runs.push(address, pages, flags);
      address += pages * pageSize;
    }
    return Float64Array.from(runs);
  });
}
