import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ChunkList } from './chunk-list.ts';
import { ChunkNamer } from './chunk-name.ts';
import { decompress } from './compression.ts';
import { deriveFileKeys } from './keys.ts';
import { openManifest } from './manifest-file.ts';
import { readPack, segmentOffsets } from './pack-file.ts';
import { openSegment } from './pack-format.ts';
import { PackWriter } from './pack-writer.ts';

const page = readFileSync(new URL('../../docs/format.md', import.meta.url), 'utf8');

function vector(name: string): Buffer {
  const text = new RegExp('```hex ' + name + '\\n([0-9a-f\\n]+)```').exec(page)?.[1];
  assert.ok(text !== undefined, `docs/format.md has no vector ${name}`);
  return Buffer.from(text.replaceAll('\n', ''), 'hex');
}

function row(name: string): string {
  const value = new RegExp(`^\\| ${name}[^|]*\\| \`([0-9a-f]+)\` \\|$`, 'm').exec(page)?.[1];
  assert.ok(value !== undefined, `docs/format.md has no row ${name}`);
  return value;
}

function counting(first: number, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => first + i);
}

const dataKey = counting(0x00, 32);
const hashKey = counting(0x20, 32);
const storeId = counting(0x40, 16);
const packId = counting(0x50, 16);
const chunkOne = Buffer.from('Cairn chunk one');
const chunkTwo = Buffer.alloc(300, 'Cairn chunk two ');

function nameOf(chunk: Uint8Array): string {
  const namer = new ChunkNamer(hashKey);
  namer.compute(chunk);
  return Buffer.from(namer.name).toString('hex');
}

test('keys and names are those of the test vectors', () => {
  const pack = deriveFileKeys(dataKey, packId, 'pack');
  assert.equal(pack.encryption.toString('hex'), row('pack encryption key'));
  assert.equal(pack.authentication.toString('hex'), row('pack authentication key'));
  const manifest = deriveFileKeys(dataKey, counting(0x80, 16), 'manifest');
  assert.equal(manifest.encryption.toString('hex'), row('manifest encryption key'));
  assert.equal(nameOf(chunkOne), row('name of chunk one'));
  assert.equal(nameOf(chunkTwo), row('name of chunk two'));
});

test('the pack of the test vectors can be read, and is written again byte for byte', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'cairn-store-format-'));
  try {
    const path = join(directory, 'vector.pack');
    writeFileSync(path, vector('pack'));
    const pack = await readPack(path, packId, { idBytes: storeId, dataKey });
    const bytes = readFileSync(path);
    const offsets = segmentOffsets(pack.directory);
    const segments = [0, 1].map((ordinal) => {
      const at = offsets[ordinal] ?? 0;
      const sealed = bytes.subarray(at, at + (pack.directory.storedLengths[ordinal] ?? 0));
      return openSegment(pack.keys.encryption, ordinal, sealed);
    });
    assert.deepEqual(segments[0], chunkOne);
    assert.ok(segments[1] !== undefined);
    assert.deepEqual(decompress(segments[1], chunkTwo.length), chunkTwo);
    assert.deepEqual([...pack.directory.flags], [0, 1]);

    const incoming = join(directory, 'incoming');
    mkdirSync(incoming);
    const writer = new PackWriter({ dataKey, storeId, incoming, prefix: '' }, packId);
    writer.append(chunkOne, undefined, Buffer.from(nameOf(chunkOne), 'hex'), Uint32Array.of(chunkOne.length));
    writer.append(
      chunkTwo,
      segments[1],
      Buffer.from(nameOf(chunkTwo), 'hex'),
      Uint32Array.of(chunkTwo.length),
    );
    assert.deepEqual(readFileSync(writer.seal().path), vector('pack'));
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('the manifest of the test vectors can be read', () => {
  const prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
  const signing = createPrivateKey({
    key: Buffer.concat([prefix, counting(0x60, 32)]),
    format: 'der',
    type: 'pkcs8',
  });
  const verifying = createPublicKey(signing);
  const spki = verifying.export({ format: 'der', type: 'spki' });
  assert.equal(spki.subarray(12).toString('hex'), row('public signing key'));
  const keys = { data: dataKey, hash: hashKey, signing, verifying };
  const store = { id: Buffer.from(storeId).toString('hex'), keys };
  const { manifest, header } = openManifest('vector', vector('manifest'), 'job-1', 7, store);
  assert.equal(header.logicalBytes, 15 + 65521 + 300 + 5);
  const [memory, small] = manifest.units[0]?.images ?? [];
  assert.ok(memory?.content.chunks instanceof ChunkList);
  const { chunks } = memory.content;
  assert.deepEqual([...chunks.lengths], [15, 65521, 300]);
  assert.deepEqual(
    [chunks.idAt(0), chunks.idAt(2)].map((id) => Buffer.from(id).toString('hex')),
    [nameOf(chunkOne), nameOf(chunkTwo)],
  );
  assert.ok(chunks.isZero(1));
  assert.deepEqual(small?.content, { size: 5, chunks: new Uint8Array(Buffer.from('hello')) });
});
