import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CairnError } from '../errors.ts';
import { ChunkList, ChunkListBuilder } from './chunk-list.ts';
import { maxZeroRunBytes } from './format.ts';

const entry = fc.oneof(
  fc.record({
    id: fc.uint8Array({ minLength: 32, maxLength: 32 }).filter((id) => id.some((byte) => byte !== 0)),
    length: fc.integer({ min: 1, max: 65536 }),
  }),
  fc.record({ length: fc.integer({ min: 1, max: 2 ** 33 }) }),
);

test('a chunk list keeps every entry, also when written and read', () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 200 }), (entries) => {
      const builder = new ChunkListBuilder(1);
      for (const item of entries)
        if ('id' in item) builder.push(item.id, item.length);
        else builder.pushZeros(item.length);
      const list = builder.build();
      const size = entries.reduce((sum, { length }) => sum + length, 0);
      assert.equal(builder.size, size);
      const read = ChunkList.deserialize(list.serialize());
      for (const candidate of [list, read]) {
        assert.equal(candidate.size, size);
        let i = 0;
        let zeros = 0;
        for (const item of entries) {
          if (!('id' in item)) {
            zeros += item.length;
            continue;
          }
          for (; zeros > 0; i++) {
            assert.ok(candidate.isZero(i));
            zeros -= candidate.lengths[i] ?? 0;
          }
          assert.equal(zeros, 0);
          assert.deepEqual(candidate.idAt(i), item.id);
          assert.equal(candidate.lengths[i++], item.length);
        }
      }
    }),
    { numRuns: 100 },
  );
});

test('R06 zero runs cost one entry, however long', () => {
  const builder = new ChunkListBuilder();
  for (let i = 0; i < 1000; i++) builder.pushZeros(65536);
  assert.equal(builder.build().count, 1);
  builder.pushZeros(maxZeroRunBytes);
  assert.equal(builder.build().count, 2);
  assert.equal(builder.build().size, 65536 * 1000 + maxZeroRunBytes);
});

test('a chunk list that was cut or has impossible lengths is refused', () => {
  const builder = new ChunkListBuilder();
  builder.push(new Uint8Array(32).fill(7), 100);
  const bytes = builder.build().serialize();
  const refused = { name: 'CairnError', class: 'permanent', code: 'chunk-list-damaged' };
  for (let length = 0; length < bytes.length; length++)
    assert.throws(() => ChunkList.deserialize(bytes.subarray(0, length)), refused);
  new DataView(bytes.buffer).setUint32(4, 65537, true);
  assert.throws(() => ChunkList.deserialize(bytes), CairnError);
});
