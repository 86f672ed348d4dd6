import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { ReadMemory } from './capture-protocol.ts';
import { mergeMemory } from './memory-merge.ts';

/** What a worker returns for some segments; segment s holds one page at s MiB and one chunk whose name is full of s. */
function part(segments: readonly number[]): ReadMemory {
  return {
    segments: Uint32Array.from(segments.flatMap((s, i) => [s, i, 1, i, 1])),
    runs: Float64Array.from(segments.flatMap((s) => [s * 2 ** 20, 256, 6])),
    ids: Uint8Array.from(segments.flatMap((s) => Array.from({ length: 32 }, () => s + 1))),
    lengths: Uint32Array.from(segments.map((s) => s + 1)),
  };
}

test('what workers read in turns comes together in the order of addresses', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 40 }), (owners) => {
      const parts = [0, 1, 2].map((worker) =>
        part(owners.flatMap((owner, s) => (owner === worker ? [s] : []))),
      );
      const merged = mergeMemory(parts, owners.length);
      // Neighbouring runs with the same flags are one.
      assert.deepEqual([...merged.runs], owners.length === 0 ? [] : [0, owners.length * 256, 6]);
      assert.deepEqual(
        [...merged.chunks.lengths],
        owners.map((_, s) => s + 1),
      );
      owners.forEach((_, s) => assert.equal(merged.chunks.idAt(s)[0], s + 1));
    }),
  );
});

test('a segment that is missing, or was read twice, is an error', () => {
  assert.throws(() => mergeMemory([part([0, 2])], 3), /segment 1 was not read/);
  assert.throws(() => mergeMemory([part([0, 1]), part([1])], 2), /segment 1 was read twice/);
});
