import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeImage, encodeImage } from './image-file.ts';
import { Message } from './protobuf.ts';
import { repairTimers } from './timerfd-repair.ts';

/** A timerfd in the table of open files: `value` and `interval` are seconds and nanoseconds. */
function timer(
  id: number,
  ticks: number,
  value: [number, number],
  interval: [number, number],
  { clock = 1, flags = 0 } = {},
): Message {
  const owner = new Message().set(1, 0).encode();
  const entry = new Message().set(1, id).set(2, 0o4002).set(3, owner).set(4, clock);
  entry.set(5, ticks).set(6, flags);
  entry.set(7, value[0]).set(8, value[1]).set(9, interval[0]).set(10, interval[1]);
  return new Message().set(1, 17).set(2, id).set(12, entry.encode());
}

const pipe = new Message().set(1, 2).set(2, 99).set(18, new Message().set(1, 99).set(2, 7).encode());

test('R07 a periodic timer with an unread expiry is started anew; all else stays as it is', () => {
  const entries = [
    pipe,
    timer(1, 3, [0, 0], [5, 7]),
    timer(2, 1, [0, 0], [0, 0]),
    timer(3, 0, [0, 0], [5, 7]),
    timer(4, 1, [0, 9], [5, 7]),
    pipe,
    timer(5, 1, [0, 0], [0, 7]),
  ];
  const image = encodeImage('files', entries);
  const repaired = repairTimers(image);
  const times = decodeImage(repaired, 'files').map((entry) => {
    const found = entry.message(12);
    return (
      found && [found.uint(1), found.uint(5), found.uint(7), found.uint(8), found.uint(9), found.uint(10)]
    );
  });
  assert.deepEqual(times, [
    undefined,
    [1, 3, 5, 7, 5, 7],
    [2, 1, 0, 0, 0, 0],
    [3, 0, 0, 0, 5, 7],
    [4, 1, 0, 9, 5, 7],
    undefined,
    [5, 1, 0, 7, 0, 7],
  ]);
  assert.deepEqual(repairTimers(repaired), repaired, 'once is enough');
  const [, first] = decodeImage(repaired, 'files');
  assert.deepEqual(first?.message(12)?.message(3)?.uint(1), 0, 'other fields are kept');
});

test('R07 a timer that was set to a point in time is set to what remains, unless it follows the wall clock', () => {
  const [realtime, monotonic, boottime] = [0, 1, 7];
  const cases: [ticks: number, remaining: number, clock: number, flags: number, repaired: number][] = [
    [0, 5, monotonic, 1, 0],
    [0, 5, boottime, 1, 0],
    [0, 5, realtime, 3, 3],
    [0, 0, realtime, 3, 2],
    [1, 0, realtime, 1, 0],
    [0, 0, monotonic, 1, 0],
    [0, 5, monotonic, 0, 0],
  ];
  const entries = cases.map(([ticks, remaining, clock, flags], id) =>
    timer(id, ticks, [remaining, 0], [0, 0], { clock, flags }),
  );
  const repaired = decodeImage(repairTimers(encodeImage('files', entries)), 'files');
  assert.deepEqual(
    repaired.map((entry) => [entry.message(12)?.uint(6), entry.message(12)?.uint(7)]),
    cases.map(([, remaining, , , flags]) => [flags, remaining]),
  );
});

test('a table of open files without such timers is returned as it is, a damaged one is refused', () => {
  const image = encodeImage('files', [pipe, timer(2, 1, [0, 0], [0, 0])]);
  assert.equal(repairTimers(image), image);
  assert.throws(() => repairTimers(image.subarray(0, -1)), { code: 'image-damaged' });
  assert.throws(() => repairTimers(Uint8Array.of(1, 2, 3, 4)), { code: 'image-damaged' });
});
