import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeOverlayHandle, overlayLayers } from './overlay.ts';

test('the layers of an overlay are read, with the characters that are escaped', () => {
  const layers = (...superOptions: string[]) => overlayLayers({ type: 'overlay', superOptions });
  assert.deepEqual(layers('rw', 'lowerdir=/', 'upperdir=/u', 'workdir=/w', 'uuid=on'), {
    upper: '/u',
    lower: ['/'],
  });
  // As the kernel writes them: a blank, a comma and a backslash in octal, a colon of a name behind a backslash.
  assert.deepEqual(layers('lowerdir=/a\\040b\\134:c:/d\\054e', 'upperdir=/u\\134134x'), {
    upper: '/u134x',
    lower: ['/a b:c', '/d,e'],
  });
  assert.equal(layers('ro', 'lowerdir=/a:/b'), undefined);
  assert.equal(overlayLayers({ type: 'ext4', superOptions: ['rw'] }), undefined);
});

test('the handle of a real file is taken out of that of an overlay', () => {
  // Of Linux 6.18: a file in the upper layer of an overlay on ext4.
  const text = '00000000fb1d040100000000000000000000000000000000f4042100940ae90d';
  const bytes = Buffer.from(text, 'hex');
  assert.deepEqual(decodeOverlayHandle({ type: 0xf8, bytes }), {
    inUpper: true,
    type: 1,
    bytes: Buffer.from('f4042100940ae90d', 'hex'),
  });
  const lower = Buffer.from(bytes);
  lower[6] = 0;
  assert.equal(decodeOverlayHandle({ type: 0xf8, bytes: lower })?.inUpper, false);
  assert.equal(decodeOverlayHandle({ type: 1, bytes }), undefined, 'another file system');
  for (let length = 0; length < bytes.length; length++)
    assert.equal(
      decodeOverlayHandle({ type: 0xf8, bytes: bytes.subarray(0, length) }),
      undefined,
      `${length}`,
    );
});
