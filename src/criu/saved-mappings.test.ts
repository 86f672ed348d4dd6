import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeImage } from './image-file.ts';
import { decodeMappings } from './messages.ts';
import { Message } from './protobuf.ts';
import { pageFlags } from './pagemap.ts';
import { privateMappings, withoutLazyOwn, withWholeMappings } from './saved-mappings.ts';

const regular = 1;
const anonymous = 1 << 9;
const guard = 1 << 16;

function mm(...mappings: { start: number; pages: number; flags?: number; status: number }[]): Uint8Array {
  const message = new Message().set(1, 0x400000).set(12, 7);
  for (const { start, pages, flags = 0x22, status } of mappings)
    message.add(
      14,
      new Message()
        .set(1, start)
        .set(2, start + pages * 0x1000)
        .set(6, flags)
        .set(7, status)
        .set(8, 1)
        .encode(),
    );
  return encodeImage('mm', [message.set(15, 1)]);
}

test('R06 shortened mappings get their true ends, and nothing else changes', () => {
  const small = { start: 0x1000, pages: 2, status: regular | anonymous };
  // A guard is no mapping, even where it begins with one.
  const guards = { start: 0x10000, pages: 1, status: guard };
  const shown = mm(small, { start: 0x10000, pages: 1, status: regular | anonymous }, guards);
  const whole = mm(small, { start: 0x10000, pages: 256, status: regular | anonymous }, guards);
  assert.deepEqual(withWholeMappings(shown, [{ start: 0x10000, end: 0x110000 }]), whole);
  assert.throws(() => withWholeMappings(shown, [{ start: 0x20000, end: 0x120000 }]), {
    code: 'image-damaged',
    message: /0x20000/,
  });
});

test('R06 the mappings with pages of their own, and which of them may be lazy, are those of CRIU', () => {
  const image = mm(
    { start: 0x1000, pages: 1, status: regular | anonymous },
    // Locked memory is not lazy, and a private file mapping is not either.
    { start: 0x2000, pages: 1, flags: 0x2022, status: regular | anonymous },
    { start: 0x3000, pages: 1, flags: 0x02, status: regular | (1 << 6) },
    // Shared memory, the vvar, droppable memory, and a guard have no pages of their own.
    { start: 0x4000, pages: 1, flags: 0x21, status: regular | (1 << 8) },
    { start: 0x5000, pages: 1, status: regular | anonymous | (1 << 12) },
    { start: 0x6000, pages: 1, flags: 0x28, status: regular | anonymous },
    { start: 0x1000, pages: 1, status: guard },
  );
  assert.deepEqual(privateMappings(decodeMappings(image)), [
    { start: 0x1000, end: 0x2000, lazy: true },
    { start: 0x2000, end: 0x3000, lazy: false },
    { start: 0x3000, end: 0x4000, lazy: false },
  ]);
});

test('R23 memory that a child does not inherit is not lazy', () => {
  const mapping = (first: number, last: number, advice: number) => ({
    ...{ start: BigInt(first * 4096), end: BigInt(last * 4096), offset: 0n, sharedId: 0n },
    ...{ protection: 3, flags: 0x22, status: regular | anonymous, advice },
  });
  const present = pageFlags.present;
  const lazy = pageFlags.lazy | present;
  const runs = Float64Array.of(0x1000, 4, lazy, 0x8000, 8, lazy, 0x20000, 2, lazy);
  const dontFork = 1 << 10;
  const wipeOnFork = 1 << 18;
  const mappings = [
    mapping(1, 3, wipeOnFork),
    mapping(3, 5, 1 << 14),
    mapping(10, 12, dontFork),
    mapping(14, 40, dontFork),
  ];
  assert.deepEqual(
    [...withoutLazyOwn(runs, mappings)],
    [
      ...[0x1000, 2, present, 0x3000, 2, lazy],
      ...[0x8000, 2, lazy, 0xa000, 2, present, 0xc000, 2, lazy, 0xe000, 2, present],
      ...[0x20000, 2, present],
    ],
  );
  assert.equal(withoutLazyOwn(runs, [mapping(1, 40, 1 << 14)]), runs);
});
