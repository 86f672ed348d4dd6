import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseWatches } from './watches.ts';

test('watches are read from fdinfo, with and without a handle', () => {
  const text = `pos:	0
flags:	02004000
mnt_id:	17
ino:	1061
inotify wd:3 ino:2104f4 sdev:28 mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:f4042100940ae90d
inotify wd:a ino:ffffffffffffffff sdev:800001 mask:300 ignored_mask:0 
`;
  assert.deepEqual(parseWatches(text), [
    {
      watch: 3,
      inode: 0x2104f4n,
      device: 0x28,
      handle: { type: 1, bytes: Buffer.from('f4042100940ae90d', 'hex') },
    },
    { watch: 10, inode: 0xffffffffffffffffn, device: 0x800001, handle: undefined },
  ]);
});
