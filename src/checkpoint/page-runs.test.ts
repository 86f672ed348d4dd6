import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { pageFlags } from '../criu/pagemap.ts';
import { pageSize, runFields } from './memory-segments.ts';
import { appendRun, joinRuns, RunCursor, withoutLazyAt } from './page-runs.ts';
import { randomPagemap } from './random-pagemap.ts';

/** Where `randomPagemap` begins. */
const firstPage = 0x7f0000000000 / pageSize;
const somePage = fc.nat(600).map((page) => firstPage + page);
const { lazy, present } = pageFlags;
/** As CRIU's page maps of a dump are: each page is one of the two. */
const pagemaps = randomPagemap({ minGap: 0, maxPages: 20, maxRuns: 20 }).map((runs) =>
  runs.map((value, i) =>
    i % runFields === 2 ? value & (lazy | present) && (value & lazy ? lazy : present) : value,
  ),
);

/** Flags of each page by its number. Fails where runs are not in order or neighbours were not joined. */
function pagesOf(runs: ArrayLike<number>, joined: boolean): Map<number, number> {
  const pages = new Map<number, number>();
  let last = -1;
  let lastFlags = -1;
  for (let i = 0; i < runs.length; i += runFields) {
    const first = (runs[i] as number) / pageSize;
    assert.ok(first >= last, 'in order');
    assert.ok((runs[i + 1] as number) > 0, 'no empty run');
    if (joined) assert.ok(first > last || runs[i + 2] !== lastFlags, 'neighbours are joined');
    for (let page = 0; page < (runs[i + 1] as number); page++) pages.set(first + page, runs[i + 2] as number);
    last = first + (runs[i + 1] as number);
    lastFlags = runs[i + 2] as number;
  }
  return pages;
}

test('two lists are joined page by page, and a page is lazy only where both say so', () => {
  fc.assert(
    fc.property(pagemaps, pagemaps, (a, b) => {
      const left = pagesOf(a, false);
      const right = pagesOf(b, false);
      const joined = pagesOf(joinRuns(a, b), true);
      assert.deepEqual(new Set(joined.keys()), new Set([...left.keys(), ...right.keys()]));
      for (const [page, flags] of joined)
        assert.equal(flags, [left, right].some((side) => side.get(page) === present) ? present : lazy);
    }),
  );
});

test('ranges take their pages out of a list, each once', () => {
  const ranges = fc.uniqueArray(somePage, { maxLength: 12 }).map((ends) => ends.sort((a, b) => a - b));
  fc.assert(
    fc.property(pagemaps, ranges, (runs, ends) => {
      const cursor = new RunCursor(runs);
      const taken: number[] = [];
      const expected = new Set<number>();
      const all = pagesOf(runs, false);
      for (let i = 0; i + 1 < ends.length; i += 2) {
        const [start, end] = [ends[i] as number, ends[i + 1] as number];
        cursor.copy(start * pageSize, end * pageSize, 5, taken);
        for (const page of all.keys()) if (page >= start && page < end) expected.add(page);
      }
      assert.deepEqual(new Set(pagesOf(taken, true).keys()), expected);
    }),
  );
});

test('pages with a stack pointer are not lazy, and no other changes', () => {
  fc.assert(
    fc.property(pagemaps, fc.uniqueArray(somePage, { maxLength: 12 }), (runs, numbers) => {
      const before = pagesOf(runs, false);
      const joined: number[] = [];
      for (let i = 0; i < runs.length; i += runFields)
        appendRun(
          joined,
          runs[i] as number,
          (runs[i] as number) + (runs[i + 1] as number) * pageSize,
          runs[i + 2] as number,
        );
      const after = pagesOf(withoutLazyAt(joined, new Set(numbers.map((number) => number * pageSize))), true);
      assert.deepEqual(new Set(after.keys()), new Set(before.keys()));
      for (const [page, flags] of before)
        assert.equal(after.get(page), numbers.includes(page) ? present : flags);
    }),
  );
});
