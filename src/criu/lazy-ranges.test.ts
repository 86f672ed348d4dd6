import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LazyRanges } from './lazy-ranges.ts';

const page = 4096;
const size = 64;
const length = fc.integer({ min: 1, max: 20 });
const place = fc.integer({ min: 0, max: size - 1 });
const action = fc.oneof(
  fc.record({ kind: fc.constant('drop' as const), start: place, length }),
  fc.record({ kind: fc.constant('move' as const), start: place, length, to: place }),
);

test('R23 what is still to come follows the memory that a program moves and gives up', () => {
  const present = fc.array(fc.boolean(), { minLength: size, maxLength: size });
  fc.assert(
    fc.property(present, fc.array(action, { maxLength: 30 }), (pages, actions) => {
      // Of each page: where it was in the snapshot, or nothing.
      let model: (number | undefined)[] = pages.map((here, i) => (here ? i : undefined));
      const pairs: number[] = [];
      for (let i = 0; i < size; i++)
        if (pages[i]) {
          if (pairs.at(-1) === i * page) pairs[pairs.length - 1] = (i + 1) * page;
          else pairs.push(i * page, (i + 1) * page);
        }
      const original = new LazyRanges(pairs);
      const ranges = original.clone();
      for (const one of actions) {
        const count = one.length;
        const last = one.start + count;
        if (one.kind === 'drop') {
          ranges.drop(one.start * page, last * page);
          model = model.map((image, i) => (i >= one.start && i < last ? undefined : image));
        } else {
          const { start, to } = one;
          // mremap never moves a mapping onto itself.
          if (Math.abs(to - start) < count) continue;
          ranges.move(start * page, to * page, count * page);
          const next = [...model];
          for (let i = 0; i < count; i++) next[start + i] = undefined;
          for (let i = 0; i < count; i++) next[to + i] = model[start + i];
          model = next;
        }
        for (let i = 0; i < model.length; i++) {
          const found = ranges.at(i * page);
          assert.equal(found?.image, model[i] === undefined ? undefined : (model[i] as number) * page);
          if (found !== undefined)
            for (let j = 0; i * page + j * page < found.end; j++)
              assert.equal(model[i + j], (model[i] as number) + j, 'without a gap');
        }
        assert.equal(ranges.bytes, model.filter((image) => image !== undefined).length * page);
        assert.equal(ranges.isEmpty, ranges.bytes === 0);
      }
      assert.equal(original.bytes, pages.filter(Boolean).length * page, 'a copy of its own');
    }),
  );
});
