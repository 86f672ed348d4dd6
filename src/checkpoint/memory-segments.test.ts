import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  pageSize,
  planSegments,
  runFields,
  segmentPages,
  segmentRuns,
  windowSize,
} from './memory-segments.ts';
import { randomPagemap } from './random-pagemap.ts';

const pagemaps = randomPagemap({ minGap: 1, maxPages: 1200, maxRuns: 60 });

test('segments hold every page once, in order, and never split a window', () => {
  fc.assert(
    fc.property(pagemaps, (flat) => {
      const plan = planSegments(flat);
      const expected: string[] = [];
      for (let i = 0; i < flat.length; i += runFields)
        for (let p = 0; p < (flat[i + 1] as number); p++)
          expected.push(`${(flat[i] as number) + p * pageSize}:${flat[i + 2]}`);
      const seen: string[] = [];
      const owner = new Map<number, number>();
      for (let s = 0; s + 1 < plan.starts.length; s++) {
        const from = plan.starts[s] as number;
        const to = plan.starts[s + 1] as number;
        assert.ok(to > from, 'no empty segment');
        assert.ok(to - from <= segmentRuns + 16);
        let pages = 0;
        for (let r = from; r < to; r++) {
          const address = plan.runs[r * runFields] as number;
          const count = plan.runs[r * runFields + 1] as number;
          pages += count;
          for (let p = 0; p < count; p++) {
            const at = address + p * pageSize;
            seen.push(`${at}:${plan.runs[r * runFields + 2]}`);
            const window = Math.floor(at / windowSize);
            const before = owner.get(window);
            assert.ok(before === undefined || before === s, 'a window belongs to one segment');
            owner.set(window, s);
          }
        }
        assert.ok(pages <= segmentPages + 16, `segment of ${pages} pages`);
      }
      assert.deepEqual(seen, expected);
      assert.equal(plan.pages, expected.length);
    }),
  );
});

test('no runs give no segments', () => {
  const plan = planSegments([]);
  assert.equal(plan.starts.length, 1);
  assert.equal(plan.pages, 0);
});
