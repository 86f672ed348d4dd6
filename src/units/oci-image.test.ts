import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { type Header, pack } from 'tar-stream';
import { commandOf, loadImage } from './oci-image.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: files of an image have owners';

type Entry = Partial<Header> & { name: string; content?: string };

async function tar(entries: readonly Entry[]): Promise<Buffer> {
  const archive = pack();
  for (const { content, ...header } of entries) archive.entry(header, content ?? '');
  archive.finalize();
  const pieces: Buffer[] = [];
  for await (const piece of archive) pieces.push(Buffer.from(piece as Uint8Array));
  return Buffer.concat(pieces);
}

const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** A layout directory being made. */
class Layout {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
    mkdirSync(path.join(directory, 'blobs/sha256'), { recursive: true });
  }

  add(bytes: Uint8Array, mediaType: string) {
    const digest = digestOf(bytes);
    writeFileSync(this.file(digest), bytes);
    return { mediaType, digest, size: bytes.length };
  }

  file(digest: string): string {
    return path.join(this.directory, 'blobs/sha256', digest.slice('sha256:'.length));
  }

  json(value: unknown, mediaType: string) {
    return this.add(Buffer.from(JSON.stringify(value)), mediaType);
  }

  /** Adds an image of these layers; `index` writes index.json. */
  async image(layers: readonly Entry[][], config: object = {}, compress: ((b: Buffer) => Buffer)[] = []) {
    const tars = await Promise.all(layers.map(tar));
    const blobs = tars.map((bytes, i) => this.add((compress[i] ?? gzipSync)(bytes), 'layer'));
    const rootfs = { type: 'layers', diff_ids: tars.map(digestOf) };
    const configuration = this.json({ os: 'linux', architecture: 'amd64', config, rootfs }, 'config');
    return {
      manifest: this.json({ schemaVersion: 2, config: configuration, layers: blobs }, 'manifest'),
      blobs,
    };
  }

  index(manifests: object[]): void {
    writeFileSync(path.join(this.directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
  }
}

function scratch() {
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-image-'));
  return {
    images: path.join(directory, 'images'),
    layout: new Layout(path.join(directory, 'layout')),
    directory,
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

const base: Entry[] = [
  { name: './', type: 'directory', mode: 0o755 },
  { name: 'usr/bin/', type: 'directory', mode: 0o755 },
  { name: 'srv/', type: 'directory', mode: 0o755, mtime: new Date(5000) },
  { name: 'srv/file', content: 'later than its directory' },
  {
    name: 'usr/bin/tool',
    content: 'tool',
    mode: 0o4755,
    uid: 0,
    gid: 33,
    mtime: new Date(1_700_000_000_000),
  },
  { name: 'bin', type: 'symlink', linkname: 'usr/bin' },
  { name: 'etc/passwd', content: 'root:x:0:0::/root:/bin/sh\n' },
  { name: 'old/a', content: 'a' },
  { name: 'old/b', content: 'b' },
  { name: 'gone', content: 'gone' },
];

test('P05 a layout is unpacked layer by layer: owners, modes, times, links, whiteouts', {
  skip,
}, async () => {
  using place = scratch();
  const upper: Entry[] = [
    { name: '.wh.gone' },
    { name: 'old/c', content: 'c' },
    { name: 'old/.wh..wh..opq' },
    { name: 'bin/second', content: 'second', uid: 1000, gid: 1000 },
    { name: 'bin/hard', type: 'link', linkname: 'bin/second' },
    { name: 'etc/fifo', type: 'fifo', mode: 0o600 },
    { name: 'dev/sda', type: 'block-device', devmajor: 8, devminor: 0 },
  ];
  const config = {
    Entrypoint: ['/entry'],
    Cmd: ['a'],
    Env: ['A=1=2', 'B='],
    User: 'postgres',
    WorkingDir: '/srv',
  };
  const { manifest } = await place.layout.image([base, upper], config, [gzipSync, zstdCompressSync]);
  place.layout.index([manifest]);
  const image = await loadImage(place.images, place.layout.directory);
  const at = (name: string) => path.join(image.rootfs, name);
  const tool = lstatSync(at('usr/bin/tool'));
  assert.deepEqual(
    [tool.mode & 0o7777, tool.uid, tool.gid, tool.mtimeMs],
    [0o4755, 0, 33, 1_700_000_000_000],
  );
  assert.equal(lstatSync(at('srv')).mtimeMs, 5000);
  assert.ok(lstatSync(at('bin')).isSymbolicLink(), 'an entry below a symbolic link does not replace it');
  assert.equal(lstatSync(at('usr/bin/second')).uid, 1000);
  assert.equal(lstatSync(at('usr/bin/hard')).ino, lstatSync(at('usr/bin/second')).ino);
  assert.ok(lstatSync(at('etc/fifo')).isFIFO());
  assert.ok(!existsSync(at('gone')) && !existsSync(at('dev/sda')));
  assert.deepEqual(readdirSync(at('old')), ['c']);
  assert.deepEqual(image.config, {
    entrypoint: ['/entry'],
    command: ['a'],
    environment: { A: '1=2', B: '' },
    user: 'postgres',
    workingDirectory: '/srv',
  });
  assert.deepEqual(commandOf(image.config, []), ['/entry', 'a']);
  assert.deepEqual(commandOf(image.config, ['b']), ['/entry', 'b']);
  assert.deepEqual(readdirSync(place.images), [image.digest.replace(':', '-')], 'nothing temporary is left');
  rmSync(place.layout.file(manifest.digest));
  place.layout.index([manifest]);
  await assert.rejects(loadImage(place.images, place.layout.directory), { code: 'image-damaged' });
});

test('an archive of a layout, plain or compressed, is the same image and is unpacked once', {
  skip,
}, async () => {
  using place = scratch();
  const { manifest } = await place.layout.image([base]);
  place.layout.index([manifest]);
  const names = [
    'index.json',
    ...readdirSync(path.join(place.layout.directory, 'blobs/sha256')).map((n) => `blobs/sha256/${n}`),
  ];
  const archive = await tar(
    names.map((name) => ({
      name,
      content: readFileSync(path.join(place.layout.directory, name)) as unknown as string,
    })),
  );
  const first = await loadImage(place.images, place.layout.directory);
  const inode = lstatSync(first.rootfs).ino;
  for (const [name, bytes] of [
    ['a.tar', archive],
    ['a.tar.gz', gzipSync(archive)],
    ['a.tar.zst', zstdCompressSync(archive)],
  ] as const) {
    const file = path.join(place.directory, name);
    writeFileSync(file, bytes);
    const again = await loadImage(place.images, file);
    assert.equal(again.digest, first.digest);
    assert.equal(lstatSync(again.rootfs).ino, inode);
  }
  writeFileSync(
    path.join(place.directory, 'text'),
    'this is no archive, but it is long enough to look like one'.repeat(40),
  );
  await assert.rejects(loadImage(place.images, path.join(place.directory, 'text')), {
    code: 'image-damaged',
  });
  await assert.rejects(loadImage(place.images, path.join(place.directory, 'none')), {
    code: 'image-missing',
  });
});

test('one of several images is chosen by its name, and by this machine', { skip }, async () => {
  using place = scratch();
  const one = await place.layout.image([[{ name: 'one', content: '1' }]]);
  const two = await place.layout.image([[{ name: 'two', content: '2' }]]);
  const named = (manifest: object, name: string) => ({
    ...manifest,
    annotations: { 'org.opencontainers.image.ref.name': name },
  });
  const arch = process.arch === 'x64' ? 'amd64' : process.arch;
  const platforms = place.layout.json(
    {
      manifests: [
        { ...one.manifest, platform: { os: 'linux', architecture: 's390x' } },
        { ...two.manifest, platform: { os: 'linux', architecture: arch } },
      ],
    },
    'index',
  );
  place.layout.index([named(one.manifest, 'docker.io/library/app:1'), named(platforms, 'app:2')]);
  const load = (reference?: string) => loadImage(place.images, place.layout.directory, reference);
  assert.deepEqual(readdirSync((await load('app:1')).rootfs), ['one']);
  assert.deepEqual(readdirSync((await load('2')).rootfs), ['two']);
  for (const wrong of [undefined, 'app:3']) {
    await assert.rejects(load(wrong), { class: 'argument', code: 'image-reference-unknown' });
  }
});

test('M01 a damaged or hostile image is refused, and nothing is written outside or left behind', {
  skip,
}, async () => {
  using place = scratch();
  const hostile: [string, Entry[]][] = [
    ['dots', [{ name: '../escaped', content: 'x' }]],
    ['dots inside', [{ name: 'a/../../escaped', content: 'x' }]],
    ['hard link to the outside', [{ name: 'x', type: 'link', linkname: '../../escaped' }]],
    ['whiteout of the parent', [{ name: 'a/.wh...' }]],
    [
      'loop of links',
      [
        { name: 'l', type: 'symlink', linkname: 'l' },
        { name: 'l/x', content: 'x' },
      ],
    ],
  ];
  for (const [what, entries] of hostile) {
    const { manifest } = await place.layout.image([entries]);
    place.layout.index([manifest]);
    await assert.rejects(loadImage(place.images, place.layout.directory), { code: 'image-damaged' }, what);
  }
  // A symbolic link that leads outside is followed as inside the unit: it leads nowhere else.
  const secret = path.join(place.directory, 'secret');
  mkdirSync(secret);
  const { manifest } = await place.layout.image([
    [
      { name: 'out', type: 'symlink', linkname: secret },
      { name: 'up', type: 'symlink', linkname: '../../../..' },
      { name: 'out/escaped', content: 'x' },
      { name: 'up/escaped', content: 'x' },
    ],
  ]);
  place.layout.index([manifest]);
  const image = await loadImage(place.images, place.layout.directory);
  assert.deepEqual(readdirSync(secret), []);
  assert.ok(
    existsSync(path.join(image.rootfs, secret, 'escaped')) && existsSync(path.join(image.rootfs, 'escaped')),
  );

  const { manifest: other, blobs } = await place.layout.image([[{ name: 'file', content: 'content' }]]);
  place.layout.index([other]);
  const layer = place.layout.file(blobs[0]?.digest ?? '');
  const bytes = readFileSync(layer);
  for (const at of [15, bytes.length - 6]) {
    const flipped = Buffer.from(bytes);
    flipped[at] = (flipped[at] ?? 0) ^ 1;
    writeFileSync(layer, flipped);
    await assert.rejects(loadImage(place.images, place.layout.directory), { code: 'image-damaged' });
  }
  writeFileSync(layer, bytes.subarray(0, bytes.length - 20));
  await assert.rejects(loadImage(place.images, place.layout.directory), { code: 'image-damaged' });
  place.layout.index([{ ...other, digest: 'sha256:../../etc/passwd' }]);
  await assert.rejects(loadImage(place.images, place.layout.directory), { code: 'image-damaged' });
  assert.deepEqual(readdirSync(place.images), [image.digest.replace(':', '-')]);
  assert.ok(
    !existsSync(path.join(place.directory, 'escaped')) && !existsSync(path.join(place.images, 'escaped')),
  );
});
