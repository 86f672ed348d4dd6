import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { pageSize, windowSize } from './memory-segments.ts';
import {
  assemble,
  countWindows,
  type MemoryWindows,
  mergeWindows,
  runsToRead,
  unreadRuns,
  WindowLookup,
  WindowRecorder,
  windowsOf,
} from './memory-windows.ts';
import { randomPagemap } from './random-pagemap.ts';

const lazy = 2;

function records(
  list: readonly { window: number; pages: number; zeros?: number; id?: number }[],
): MemoryWindows {
  const recorder = new WindowRecorder(
    Float64Array.from(list.flatMap(({ window }) => [window * windowSize, 16, lazy])),
  );
  for (const { window, pages, zeros = 0, id = 1 } of list) {
    recorder.push(new Uint8Array(32).fill(id));
    recorder.add(window * windowSize, pages, zeros, Int32Array.of(window, pages, id, 7));
  }
  return recorder.build();
}

test('what workers read in turns comes together in the order of addresses', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 60 }), (owners) => {
      const parts = [0, 1, 2].map((worker) =>
        records(
          owners.flatMap((owner, w) =>
            owner === worker ? [{ window: w, pages: w + 1, id: (w % 255) + 1 }] : [],
          ),
        ),
      );
      const merged = mergeWindows(parts);
      assert.deepEqual(
        [...merged.addresses],
        owners.map((_, w) => w * windowSize),
      );
      assert.deepEqual(
        [...merged.pages],
        owners.map((_, w) => w + 1),
      );
      owners.forEach((_, w) => assert.equal(merged.ids[w * 32 + 31], (w % 255) + 1));
      owners.forEach((_, w) => assert.equal(merged.tags[w * 4], w));
    }),
  );
});

test('a window that was read twice is an error', () => {
  const one = records([{ window: 3, pages: 1 }]);
  assert.throws(() => mergeWindows([one, one]), /read twice/);
});

test('a record is found by its address, in any order, and compared by pages and tag', () => {
  const windows = records([1, 2, 5, 9].map((window) => ({ window, pages: 15 })));
  const lookup = new WindowLookup(windows);
  for (const [window, index] of [
    [1, 0],
    [2, 1],
    [3, -1],
    [9, 3],
    [5, 2],
    [0, -1],
    [10, -1],
    [1, 0],
  ] as const)
    assert.equal(lookup.find(window * windowSize), index, String(window));
  assert.ok(lookup.matches(1, 15, Int32Array.of(2, 15, 1, 7)));
  assert.ok(!lookup.matches(1, 14, Int32Array.of(2, 15, 1, 7)));
  for (let word = 0; word < 4; word++) {
    const tag = Int32Array.of(2, 15, 1, 7);
    tag[word] = 99;
    assert.ok(!lookup.matches(1, 15, tag), `word ${word}`);
  }
});

/** Pages of a page map as `address:flags`, to compare maps that are cut differently. */
function pagesOf(runs: ArrayLike<number>): string[] {
  const pages: string[] = [];
  for (let r = 0; r < runs.length; r += 3)
    for (let p = 0; p < (runs[r + 1] as number); p++)
      pages.push(`${(runs[r] as number) + p * pageSize}:${runs[r + 2]}`);
  return pages;
}

const pagemaps = randomPagemap({ minGap: 0, maxPages: 50, maxRuns: 30 });

test('windows of a page map hold every page once', () => {
  fc.assert(
    fc.property(pagemaps, (runs) => {
      const found: string[] = [];
      for (const { address, pages, lazy: lazyPages } of windowsOf(runs))
        for (let p = 0; p < 16; p++)
          if ((pages >> p) & 1) found.push(`${address + p * pageSize}:${(lazyPages >> p) & 1}`);
      const expected = pagesOf(runs).map((page) => {
        const [address, flags] = page.split(':').map(Number) as [number, number];
        return `${address}:${(flags & lazy) === 0 ? 0 : 1}`;
      });
      assert.deepEqual(found, expected);
    }),
  );
});

test('what a plan lacks, or has of other pages, is read again, and the two together are whole', () => {
  fc.assert(
    fc.property(pagemaps, fc.infiniteStream(fc.integer({ min: 0, max: 5 })), (runs, choices) => {
      const wanted = [...windowsOf(runs)];
      const planned: number[] = [];
      const early: Parameters<typeof records>[0][number][] = [];
      /** Not read again. */
      const good = new Set<number>();
      /** Taken from the plan's reading: nothing is left out that must be there. */
      const taken = new Set<number>();
      const plan = (address: number, pages: number) => {
        for (let p = 0; p < 16; p++) if ((pages >> p) & 1) planned.push(address + p * pageSize, 1, lazy);
        // It takes all for lazy, and may leave out any of them.
        early.push({ window: address / windowSize, pages, zeros: pages & 0x5555, id: 2 });
      };
      for (const { address, pages, lazy: lazyPages } of wanted) {
        const kind = choices.next().value as number;
        if (kind === 0) continue;
        if (kind === 1) plan(address, pages ^ 1 || 2);
        else {
          plan(address, pages);
          if (lazyPages === pages) good.add(address);
          if ((pages & 0x5555 & ~lazyPages) === 0) taken.add(address);
        }
      }
      const first = records(early);
      const rest = Float64Array.from(runsToRead(runs, Float64Array.from(planned)));
      const again = wanted.filter(({ address }) => !good.has(address));
      assert.deepEqual([...windowsOf(rest)], again);
      const second = records(
        again.map(({ address, pages }) => ({ window: address / windowSize, pages, id: 3 })),
      );
      // The page map decides: a record that does not fit is not taken although it comes first.
      const result = assemble(runs, [first, second]);
      for (const [i, { address, pages, lazy: lazyPages }] of wanted.entries()) {
        const from = taken.has(address) ? first : second;
        const at = from.addresses.indexOf(address);
        assert.deepEqual(result.windows.ids[i * 32], from.ids[at * 32], 'the chunk of the reading that fits');
        assert.equal(lazyPages & ~pages, 0);
      }
      const zeros = new Set(
        early.flatMap(({ window, zeros: left = 0 }) =>
          taken.has(window * windowSize)
            ? Array.from({ length: 16 }, (_, p) => p)
                .filter((p) => (left >> p) & 1)
                .map((p) => window * windowSize + p * pageSize)
            : [],
        ),
      );
      const left = pagesOf(runs).filter((page) => !zeros.has(Number(page.split(':')[0])));
      assert.deepEqual(pagesOf(result.runs), left);
      assert.equal(result.chunks.size, left.length * pageSize);
      assert.deepEqual(
        [...result.windows.addresses],
        wanted.map(({ address }) => address),
      );
    }),
  );
});

test('what was planned and not read after all is found, and only that', () => {
  fc.assert(
    fc.property(pagemaps, fc.infiniteStream(fc.integer({ min: 0, max: 3 })), (runs, choices) => {
      const read: Parameters<typeof records>[0][number][][] = [[], []];
      const missing: ReturnType<typeof windowsOf> extends Generator<infer W> ? W[] : never = [];
      let count = 0;
      for (const wanted of windowsOf(runs)) {
        count++;
        const window = wanted.address / windowSize;
        const kind = choices.next().value as number;
        if (kind < 2) read[kind]?.push({ window, pages: wanted.pages });
        else missing.push(wanted);
        // Other pages, as they were before.
        if (kind === 3) read[0]?.push({ window, pages: wanted.pages ^ 1 || 2 });
      }
      assert.equal(countWindows(runs), count);
      const readings = read.map((list) => records(list));
      assert.deepEqual([...windowsOf(Float64Array.from(unreadRuns(runs, readings)))], missing);
    }),
  );
});

test('a window that nobody read is an error', () => {
  const runs = Float64Array.of(0, 3, 2);
  assert.throws(() => assemble(runs, [records([{ window: 0, pages: 3 }])]), /0x0 was not read/);
  assert.throws(() => assemble(runs, []), /0x0 was not read/);
});
