import assert from 'node:assert/strict';
import { test } from 'node:test';
import { shortenMappings } from './mapping-cover.ts';

test('R06 only long anonymous private mappings are shortened, and only what CRIU reads is left', () => {
  const entry = (head: string, flags = 'rd wr mr mw me ac ') =>
    `${head}\nSize:   1 kB\nRss:    1 kB\nVmFlags: ${flags}\n`;
  const smaps = [
    entry('55d0c0000000-55d0c0100000 rw-p 00000000 00:00 0                          [heap]'),
    entry('7f0000000000-7f0040000000 rw-p 00000000 00:00 0 '),
    entry('7f0050000000-7f0050100000 rw-p 00000000 00:00 0                          [anon:pool]'),
    entry('7f0060000000-7f0060020000 rw-p 00000000 00:00 0 '),
    entry('7f0070000000-7f0070100000 rw-s 00000000 00:01 4711                       /dev/zero (deleted)'),
    entry('7f0080000000-7f0080100000 r--p 00000000 fe:00 4712                       /usr/lib/large.so'),
    entry('7f0090000000-7f0090100000 rw-p 00000000 00:00 0 ', 'rd wr mr mw me gd ac '),
    // Names may hold what ends a line elsewhere.
    entry(
      '7f00a0000000-7f00a0100000 rw-s 00000000 00:01 4713                       /memfd:a\rb\u2028c (deleted)',
    ),
    entry('7ffc00000000-7ffc00100000 rw-p 00000000 00:00 0                          [stack]', 'rd wr gd'),
    entry('7ffc00200000-7ffc00300000 r--p 00000000 00:00 0                          [vvar]', 'rd io pf'),
  ].join('');
  const { text, shortened } = shortenMappings(smaps);
  assert.deepEqual(shortened, [
    { start: 0x55d0c0000000, end: 0x55d0c0100000 },
    { start: 0x7f0000000000, end: 0x7f0040000000 },
    { start: 0x7f0050000000, end: 0x7f0050100000 },
  ]);
  const expected = smaps
    .replace('55d0c0000000-55d0c0100000', '55d0c0000000-55d0c0001000')
    .replace('7f0000000000-7f0040000000', '7f0000000000-7f0000001000')
    .replace('7f0050000000-7f0050100000', '7f0050000000-7f0050001000')
    .replace(/^(Size|Rss):.*\n/gm, '');
  assert.equal(text, expected);
});
