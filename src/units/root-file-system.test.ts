import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMounts } from '../linux/mounts.ts';
import { coveredDirectories, visibleHostMounts } from './root-file-system.ts';

test('a unit on the host sees its disks, but nothing of the kernel, of /tmp, and of other units', () => {
  const mounts = parseMounts(`26 1 254:0 / / rw - ext4 /dev/vda rw
27 26 254:1 / /home rw - xfs /dev/vdb rw
28 26 0:50 / /srv/nfs rw - nfs4 server:/x rw
29 26 0:51 / /proc rw - proc proc rw
30 26 0:52 / /run rw - tmpfs tmpfs rw
31 26 254:2 / /tmp/disk rw - ext4 /dev/vdc rw
32 26 254:3 / /var/lib/cairn rw - ext4 /dev/vdd rw
33 26 254:4 / /opt/state/inner rw - ext4 /dev/vde rw
34 26 0:53 / /opt/x rw - overlay overlay rw
35 26 254:5 / /var rw - ext4 /dev/vdf rw`);
  assert.deepEqual(visibleHostMounts(mounts, ['/opt/state', '/run/cairn']), ['/home', '/srv/nfs', '/var']);
  assert.deepEqual(coveredDirectories(['/home', '/var'], ['/home/state', '/run/cairn', '/opt/state']), [
    '/var/tmp',
    '/var/lib/cairn',
    '/home/state',
  ]);
});
