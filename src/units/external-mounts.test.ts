import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMounts } from '../linux/mounts.ts';
import { dumpExternals, externalMounts, restoreExternals } from './external-mounts.ts';

const host = parseMounts(`26 1 254:0 / / rw - ext4 /dev/vda rw
40 26 254:1 / /data rw - xfs /dev/vdb rw
43 26 0:42 / /run/cairn/units/u/shm rw - tmpfs tmpfs rw`);

const unit = parseMounts(`81 54 0:40 / / rw,relatime - overlay overlay rw,lowerdir=/
83 81 0:50 / /proc rw - proc proc rw
84 81 0:43 / /dev/pts rw - devpts devpts rw
85 81 0:42 / /dev/shm rw - tmpfs tmpfs rw
86 81 0:48 / /dev/mqueue rw - mqueue mqueue rw
87 81 0:51 / /sys ro - sysfs sysfs ro
88 87 254:0 /run/cairn/empty /sys/firmware ro - ext4 /dev/vda rw
89 81 0:6 /null /dev/null rw - devtmpfs devtmpfs rw
90 81 0:43 /0 /dev/console rw - devpts devpts rw
91 83 0:50 /sys /proc/sys ro - proc proc rw
92 83 0:6 /null /proc/keys rw - devtmpfs devtmpfs rw
93 81 254:1 /shared /srv/with\\040space rw - xfs /dev/vdb rw
94 93 254:2 / /srv/with\\040space/inner rw - ext4 /dev/vdc rw
95 81 254:1 /other /run/other rw - xfs /dev/vdb rw
96 81 0:77 / /mnt rw - tmpfs own rw`);

const binds = [
  { destination: '/dev/pts', source: '/run/cairn/units/u/pts' },
  { destination: '/dev/shm', source: '/run/cairn/units/u/shm' },
  { destination: '/sys/firmware', source: '/run/cairn/empty' },
  { destination: '/srv/with space', source: '/data/shared' },
  // In the unit /var/run is a symbolic link to /run.
  { destination: '/var/run/other', source: '/data/other' },
];

test('mounts from outside are told from those of the unit, each with its source on the host', () => {
  const found = externalMounts(unit, { binds, pts: '/run/cairn/units/u/pts', host });
  assert.deepEqual(restoreExternals(found), [
    'mnt[/dev/pts]:/run/cairn/units/u/pts',
    'mnt[/dev/shm]:/run/cairn/units/u/shm',
    'mnt[/sys/firmware]:/run/cairn/empty',
    'mnt[/dev/null]:/dev/null',
    'mnt[/dev/console]:/run/cairn/units/u/pts/0',
    'mnt[/proc/keys]:/dev/null',
    'mnt[/srv/with space]:/data/shared',
    'mnt[/srv/with space/inner]:/data/shared/inner',
    'mnt[/run/other]:/data/other',
  ]);
  assert.equal(dumpExternals(found)[6], 'mnt[/srv/with space]:/srv/with space');
});
