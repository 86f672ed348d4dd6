import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeImage } from './image-file.ts';
import { decodeMappings } from './messages.ts';
import { Message } from './protobuf.ts';
import { withGuards } from './saved-mappings.ts';

const guard = 1 << 16;

function mm(...mappings: { start: number; status: number }[]): Uint8Array {
  const message = new Message().set(1, 0x400000).set(12, 7);
  for (const { start, status } of mappings)
    message.add(
      14,
      new Message()
        .set(1, start)
        .set(2, start + 0x4000)
        .set(7, status)
        .encode(),
    );
  return encodeImage('mm', [message.set(15, 1)]);
}

test('R06 guard pages of another process are taken out of an image, and those of this one put in', () => {
  const image = mm({ start: 0x1000, status: 0x201 }, { start: 0x9000, status: guard });
  const changed = withGuards(image, [0x2000, 0x3000, 0x4000, 0x5000]) ?? assert.fail('nothing changed');
  assert.deepEqual(
    decodeMappings(changed).map(({ start, end, status }) => [Number(start), Number(end), status]),
    [
      [0x1000, 0x5000, 0x201],
      [0x2000, 0x3000, guard],
      [0x4000, 0x5000, guard],
    ],
  );
  assert.deepEqual(withGuards(changed, []), mm({ start: 0x1000, status: 0x201 }));
});

test('an image without guard pages stays as it is where there are none', () => {
  assert.equal(withGuards(mm({ start: 0x1000, status: 0x201 }), []), undefined);
});
