import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  decodeImage,
  encodeImage,
  encodeRecord,
  imageHeader,
  isImageName,
  pagemapId,
  pagesId,
} from './image-file.ts';
import { decodeCore, decodeInventory, decodeMappings, decodeTaskTree } from './messages.ts';
import {
  decodePagemap,
  encodePagemap,
  pageFlags,
  presentBytes,
  withLazyPages,
  withoutLazyPages,
  withoutLongRuns,
} from './pagemap.ts';
import { decodeMessage, Message } from './protobuf.ts';
import { decodeDumpStats, decodeRestoreStats } from './stats.ts';

const seed = Math.floor(Math.random() * 2 ** 31);
console.log(`seed ${seed}`);

test('R06 a page map is the same after encoding and decoding', () => {
  const run = fc.tuple(
    fc.bigInt({ min: 0n, max: 2n ** 48n - 1n }).map((page) => Number(page * 4096n)),
    fc.integer({ min: 1, max: 2 ** 40 }),
    fc.integer({ min: 0, max: 7 }),
  );
  fc.assert(
    fc.property(fc.array(run), fc.integer({ min: 1, max: 2 ** 31 }), (runs, id) => {
      const pagemap = { pagesId: id, runs: Float64Array.from(runs.flat()) };
      const decoded = decodePagemap(encodePagemap(pagemap));
      assert.deepEqual(decoded, pagemap);
    }),
    { seed },
  );
});

test('R06 long runs are cut into pieces of at most 64 MiB that follow on each other', () => {
  const run = fc.tuple(fc.nat({ max: 1000 }), fc.integer({ min: 1, max: 100_000 }), fc.constantFrom(2, 4, 6));
  fc.assert(
    fc.property(fc.array(run, { maxLength: 10 }), (list) => {
      let address = 0;
      const runs = list.flatMap(([gap, pages, flags]) => {
        const start = address + gap * 4096;
        address = start + pages * 4096;
        return [start, pages, flags];
      });
      const cut = withoutLongRuns(Float64Array.from(runs));
      const joined: number[] = [];
      for (let i = 0; i < cut.length; i += 3) {
        const [start, pages, flags] = cut.subarray(i, i + 3) as unknown as [number, number, number];
        assert.ok(pages >= 1 && pages * 4096 <= 64 * 2 ** 20);
        // A piece belongs to the run that the address lies in.
        if (runs.some((value, at) => at % 3 === 0 && value === start)) joined.push(start, pages, flags);
        else {
          assert.equal(start, (joined.at(-3) as number) + (joined.at(-2) as number) * 4096);
          assert.equal(flags, joined.at(-1));
          joined[joined.length - 2] = (joined.at(-2) as number) + pages;
        }
      }
      assert.deepEqual(joined, runs);
    }),
    { seed },
  );
});

test('R06 a page map of every CRIU version is read as CRIU reads it', () => {
  const entry = (fields: [number, number][]) => fields.reduce((m, [n, v]) => m.add(n, v), new Message());
  const image = encodeImage('pagemap', [
    entry([[1, 7]]),
    // ≤ 4.1: the old length; no flags: present; in_parent.
    entry([
      [1, 0x1000],
      [2, 3],
    ]),
    entry([
      [1, 0x9000],
      [2, 1],
      [3, 1],
    ]),
    // 4.2: the old length is 0.
    entry([
      [1, 0x20000],
      [2, 0],
      [4, 6],
      [5, 5],
    ]),
  ]);
  const { pagesId: id, runs } = decodePagemap(image);
  assert.equal(id, 7);
  assert.deepEqual([...runs], [0x1000, 3, 4, 0x9000, 1, 1, 0x20000, 5, 6]);
});

test('an unknown field or flag, and a cut image, are refused by name', () => {
  const head = new Message().add(1, 1);
  const run = () => new Message().add(1, 0x1000).add(2, 1);
  const refused = (records: Message[], code: string) =>
    assert.throws(() => decodePagemap(encodeImage('pagemap', records), 'pagemap-5.img'), {
      name: 'CairnError',
      class: 'permanent',
      code,
      message: /pagemap-5\.img/,
    });
  refused([head, run().add(6, 1)], 'image-unknown');
  refused([head, run().add(4, 8)], 'image-unknown');
  refused([new Message().add(1, 1).add(2, 1), run()], 'image-unknown');
  refused([head, new Message().add(2, 1)], 'image-damaged');
  refused([], 'image-damaged');
  const whole = encodeImage('pagemap', [head, run()]);
  for (let length = 0; length < whole.length; length++) {
    const cut = whole.subarray(0, length);
    // Between two records a cut cannot be seen here; the digest of the snapshot tells.
    const boundary = length === imageHeader('pagemap').length + 4 + 2;
    if (boundary) assert.equal(decodePagemap(cut).runs.length, 0);
    else assert.throws(() => decodePagemap(cut), { code: 'image-damaged' }, `cut at ${length}`);
  }
  const wrong = Uint8Array.from(whole);
  wrong[4] = (wrong[4] ?? 0) ^ 1;
  assert.throws(() => decodePagemap(wrong), { code: 'image-damaged' });
});

test('lazy runs are present for a full restore and absent for a lazy one', () => {
  const runs = Float64Array.of(
    0x1000,
    1,
    pageFlags.present,
    0x2000,
    2,
    pageFlags.lazy,
    0x5000,
    3,
    6,
    0x9000,
    1,
    1,
  );
  assert.equal(presentBytes(runs, 4096), 4 * 4096);
  assert.equal(presentBytes(withLazyPages(runs), 4096), 6 * 4096);
  assert.equal(presentBytes(withoutLazyPages(runs), 4096), 4096);
  assert.deepEqual([...withoutLazyPages(withLazyPages(runs))], [...withoutLazyPages(runs)]);
  assert.equal(runs[5], pageFlags.lazy, 'the argument is unchanged');
});

test('fields that are not known survive a rewrite, in their order', () => {
  const value = fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.uint8Array({ maxLength: 20 }));
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 2 ** 29 - 1 }), value)), (fields) => {
      const message = new Message();
      for (const [number, content] of fields) message.add(number, content);
      const bytes = message.encode();
      assert.deepEqual(decodeMessage(bytes).encode(), bytes);
      const first = fields[0];
      if (first === undefined) return;
      const changed = decodeMessage(bytes).set(first[0], 5);
      assert.equal(changed.uint(first[0]), 5);
      const others = (m: Message) =>
        m.fields.filter((field) => field.number !== first[0]).map((f) => f.number);
      assert.deepEqual(others(decodeMessage(changed.encode())), others(message));
    }),
    { seed },
  );
});

test('numbers of every kind: signed, fixed, packed, text', () => {
  const bytes = Uint8Array.of(0x09, 1, 0, 0, 0, 0, 0, 0, 0x80, 0x15, 2, 0, 0, 0x80, 0x1a, 3, 1, 0xac, 2);
  const message = decodeMessage(bytes);
  assert.equal(message.uint64(1), 0x8000000000000001n);
  assert.equal(message.uint(2), 0x80000002);
  assert.deepEqual(message.uints(3), [1n, 300n]);
  assert.deepEqual(message.encode(), bytes);
  assert.equal(new Message().add(1, -1).int(1), -1);
  assert.equal(decodeMessage(new Message().add(1, -1).encode()).int(1), -1);
  assert.equal(new Message().add(1, 'ä').text(1), 'ä');
  assert.equal(new Message().add(1, true).bool(1), true);
  assert.throws(() => decodeMessage(Uint8Array.of(0x1a, 9, 1)), { code: 'image-damaged' });
  assert.throws(() => decodeMessage(Uint8Array.of(0x0b)), { code: 'image-damaged' });
  assert.throws(() => decodeMessage(Uint8Array.of(0x08, 0x80)), { code: 'image-damaged' });
});

test('inventory, task tree, core and mappings', () => {
  const inventory = encodeImage('inventory', [
    new Message().set(1, 2).set(3, new Message().set(5, 3).set(12, 9).encode()),
  ]);
  assert.deepEqual(decodeInventory(inventory), {
    imageVersion: 2,
    uptime: undefined,
    tcpClosed: false,
    rootNamespaces: { pid: 3, time: 9 },
  });
  const tree = encodeImage('pstree', [
    new Message().set(1, 1).set(2, 0).set(3, 1).set(4, 1).add(5, 1).add(5, 4),
    new Message().set(1, 9).set(2, 1).set(3, 9).set(4, 1).add(5, 9),
  ]);
  assert.deepEqual(
    decodeTaskTree(tree).map(({ pid, parent, threads }) => [pid, parent, threads]),
    [
      [1, 0, [1, 4]],
      [9, 1, [9]],
    ],
  );
  const core = encodeImage('core', [
    new Message().set(1, 1).set(3, new Message().set(1, 1).set(6, 'redis').encode()),
  ]);
  assert.deepEqual(decodeCore(core), { name: 'redis', state: 1, exitCode: 0 });
  assert.equal(decodeCore(encodeImage('core', [new Message().set(1, 1)])), undefined);
  const vma = new Message().set(1, 0x7fff0000).set(2, 0x7fff1000).set(5, 3).set(6, 0x22).set(8, 1);
  const [mapping] = decodeMappings(encodeImage('mm', [new Message().add(14, vma.encode())]));
  assert.equal(mapping?.end, 0x7fff1000n);
  assert.equal(mapping?.protection, 3);
  assert.throws(() => decodeTaskTree(encodeImage('pstree', [new Message()])), { code: 'image-damaged' });
});

test('H07 statistics of a dump and of a restore', () => {
  const dump = new Message().set(1, 1500).set(2, 20_000).set(7, 42).set(9, 7);
  const image = encodeImage('stats', [new Message().set(1, dump.encode())]);
  assert.equal(decodeDumpStats(image)?.freezingMs, 1.5);
  assert.equal(decodeDumpStats(image)?.pagesWritten, 42);
  assert.equal(decodeRestoreStats(image), undefined);
  const restore = encodeImage('stats', [
    new Message().set(2, new Message().set(4, 100_000).set(5, 3).encode()),
  ]);
  assert.deepEqual(
    [decodeRestoreStats(restore)?.restoreMs, decodeRestoreStats(restore)?.pagesRestored],
    [100, 3],
  );
  assert.throws(() => decodeImage(image, 'pstree'), { code: 'image-damaged', message: /0x55105940/ });
});

test('names of images', () => {
  assert.ok(
    isImageName('pagemap-shmem-12.img') && isImageName('tmpfs-dev-5.tar.gz.img') && isImageName('stats-dump'),
  );
  for (const name of [
    '',
    '.',
    '..',
    '../x',
    'a/b',
    '/etc/passwd',
    '.hidden',
    'a\0b',
    'a b',
    'x'.repeat(300),
  ]) {
    assert.ok(!isImageName(name), name);
  }
  assert.deepEqual(pagemapId('pagemap-12.img'), { kind: 'process', id: 12 });
  assert.deepEqual(pagemapId('pagemap-shmem-3.img'), { kind: 'shared', id: 3 });
  assert.equal(pagemapId('pages-12.img'), undefined);
  assert.equal(pagesId('pages-12.img'), 12);
  const [length, bytes] = encodeRecord(new Message().set(1, true));
  assert.deepEqual([...length, ...bytes], [2, 0, 0, 0, 8, 1]);
});
