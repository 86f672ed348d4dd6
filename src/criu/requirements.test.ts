import assert from 'node:assert/strict';
import { test } from 'node:test';
import { minimumCriu, provenCriu, whyCriuTooOld } from './requirements.ts';

// What the distributions ship, on the kernels that they ship and on a newer one.
const cases: { criu: string; kernel: string; reason: RegExp | undefined }[] = [
  { criu: '3.17.1', kernel: '6.1.0-37-amd64', reason: /page map format that came with 4.2/ },
  { criu: '3.17.1', kernel: '6.18.44', reason: /vDSO/ },
  { criu: '4.1.1', kernel: '6.12.48+deb13-amd64', reason: /page map format that came with 4.2/ },
  { criu: '4.1.1', kernel: '6.16.3', reason: /internet sockets/ },
  { criu: '4.2', kernel: '6.8.0-45-generic', reason: undefined },
  { criu: provenCriu, kernel: '6.18.44', reason: undefined },
  { criu: '4.10', kernel: '7.1.0', reason: undefined },
];

for (const { criu, kernel, reason } of cases) {
  test(`R24 CRIU ${criu} on Linux ${kernel} is ${reason === undefined ? 'accepted' : 'refused'}`, () => {
    const why = whyCriuTooOld(criu, kernel);
    if (reason === undefined) assert.equal(why, undefined);
    else assert.match(why ?? 'accepted', reason);
  });
}

test('the minimum itself is accepted', () => {
  assert.equal(whyCriuTooOld(minimumCriu, '6.18'), undefined);
});
