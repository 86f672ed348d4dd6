import assert from 'node:assert/strict';
import test from 'node:test';
import { encodeImage } from '../criu/image-file.ts';
import { encodePagemap } from '../criu/pagemap.ts';
import { Message } from '../criu/protobuf.ts';
import type { ArrivedMappings } from './capture-protocol.ts';
import { ImageCollector } from './image-collector.ts';
import type { StreamSink } from './layer-read.ts';

/** A collector whose sinks remember what was pushed. */
function collector() {
  const pagemaps: { pid: number; pagesId: number; runs: number[] }[] = [];
  const blocks: number[][] = [];
  const open = (): StreamSink => {
    const sizes: number[] = [];
    blocks.push(sizes);
    let size = 0;
    return {
      push: (bytes) => {
        sizes.push(bytes.byteLength);
        size += bytes.byteLength;
      },
      end: () => ({ size, chunks: new Uint8Array() }),
    };
  };
  const arrived: ArrivedMappings[] = [];
  const images = new ImageCollector(
    open,
    ({ pid, pagesId, runs }) => pagemaps.push({ pid, pagesId, runs: [...runs] }),
    (mappings) => arrived.push(mappings),
  );
  return { images, pagemaps, arrived, blocks };
}

const pagemap = (pagesId: number) => encodePagemap({ pagesId, runs: Float64Array.of(0x1000, 2, 6) });

test('memory of processes is left to the readers, that of shared memory is kept', () => {
  const { images, pagemaps, blocks } = collector();
  images.open(0, 'pagemap-7.img');
  images.open(1, 'pages-3.img');
  images.data(1, new Uint8Array(100_000));
  images.data(0, pagemap(3));
  images.end(1);
  images.end(0);
  images.open(2, 'pagemap-shmem-9.img');
  images.open(3, 'pages-4.img');
  images.data(2, pagemap(4));
  images.data(3, new Uint8Array(200_000));
  images.end(3);
  images.end(2);
  assert.deepEqual(pagemaps, [{ pid: 7, pagesId: 3, runs: [0x1000, 2, 6] }]);
  const names = images.finish(false).map(({ name, content }) => `${name}:${content.size}`);
  assert.deepEqual(names, ['pages-4.img:200000', `pagemap-shmem-9.img:${pagemap(4).length}`]);
  assert.deepEqual(blocks, [[196_608, 3392]], 'whole blocks of 64 KiB first, then the rest');
});

test('pages that were thrown away and belong to no process are an error', () => {
  const { images } = collector();
  images.open(0, 'pagemap-7.img');
  images.open(1, 'pages-3.img');
  images.data(0, pagemap(8));
  images.end(0);
  images.end(1);
  assert.throws(() => images.finish(false), { code: 'image-order' });
});

test('R07 timers in the table of open files are repaired, however long it is', () => {
  const timer = (value: number) =>
    new Message()
      .set(1, 17)
      .set(2, 1)
      .set(12, new Message().set(5, 1).set(7, value).set(8, 0).set(9, 6).encode());
  const many = Array.from({ length: 5000 }, (_, id) =>
    new Message().set(1, 2).set(2, id).set(18, new Uint8Array(20)),
  );
  for (const others of [[], many]) {
    const { images, blocks } = collector();
    const image = encodeImage('files', [...others, timer(0)]);
    images.open(0, 'files.img');
    for (let at = 0; at < image.length; at += 10_000) images.data(0, image.subarray(at, at + 10_000));
    images.end(0);
    const [kept] = images.finish(false);
    assert.equal(kept?.content.size, image.length);
    if (others.length === 0)
      assert.deepEqual(kept?.content, { size: image.length, inline: encodeImage('files', [timer(6)]) });
    else
      assert.equal(
        blocks.flat().reduce((sum, size) => sum + size, 0),
        image.length,
      );
  }
});

test('small images stay as they are', () => {
  const { images, blocks } = collector();
  images.open(0, 'core-1.img');
  images.data(0, Uint8Array.of(1, 2));
  images.data(0, Uint8Array.of(3));
  assert.equal(images.openImages, 1);
  images.end(0);
  assert.equal(images.openImages, 0);
  assert.deepEqual(images.finish(false), [
    { name: 'core-1.img', content: { size: 3, inline: Uint8Array.of(1, 2, 3) } },
  ]);
  assert.equal(blocks.length, 0);
});

test('R08 a file with another name that was unlinked is an error unless CRIU held for it', () => {
  for (const type of [undefined, 0, 1, 2]) {
    const { images } = collector();
    const entry = new Message().set(1, 5).set(2, 6);
    if (type !== undefined) entry.set(3, type);
    const ghost = new Message().set(1, 7).set(2, 8).set(3, 1);
    images.open(0, 'remap-fpath.img');
    images.data(0, encodeImage('remap-fpath', [ghost, entry]));
    images.end(0);
    if (type === 1 || type === 2) assert.equal(images.finish(false).length, 1);
    else assert.throws(() => images.finish(false), { code: 'links-not-held', class: 'temporary' });
    assert.equal(images.finish(true).length, 1);
  }
});

test('the image of the mappings of a process is told and kept', () => {
  const { images, arrived } = collector();
  const image = encodeImage('mm', [new Message().set(1, 0x400000)]);
  images.open(0, 'mm-7.img');
  images.data(0, image);
  images.end(0);
  assert.deepEqual(arrived, [{ pid: 7, image }]);
  const [kept] = images.finish(false);
  assert.equal(kept?.name, 'mm-7.img');
  assert.deepEqual(kept?.content.inline, new Uint8Array(image));
});
