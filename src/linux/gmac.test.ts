import assert from 'node:assert/strict';
import { createCipheriv, randomBytes } from 'node:crypto';
import test from 'node:test';
import { Gmac, gmacKeyBytes } from './gmac.ts';

test('GMAC gives the tags of AES-128-GCM over additional data, of shared memory too', () => {
  const key = randomBytes(gmacKeyBytes);
  using gmac = new Gmac(key);
  const shared = Buffer.from(new SharedArrayBuffer(65536));
  randomBytes(65536).copy(shared);
  for (const length of [0, 1, 15, 16, 4096, 65536]) {
    const bytes = shared.subarray(0, length);
    const cipher = createCipheriv('aes-128-gcm', key, Buffer.alloc(12));
    cipher.setAAD(Buffer.from(bytes));
    cipher.final();
    gmac.compute(bytes);
    assert.equal(Buffer.from(gmac.tag.buffer).toString('hex'), cipher.getAuthTag().toString('hex'));
  }
});

test('a changed bit changes the tag, and so does another key', () => {
  const bytes = randomBytes(4096);
  using gmac = new Gmac(Buffer.alloc(gmacKeyBytes, 1));
  using other = new Gmac(Buffer.alloc(gmacKeyBytes, 2));
  gmac.compute(bytes);
  other.compute(bytes);
  const before = [...gmac.tag];
  assert.notDeepEqual([...other.tag], before);
  const at = Math.floor(Math.random() * bytes.length);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  gmac.compute(bytes);
  assert.notDeepEqual([...gmac.tag], before, `byte ${at}`);
});
