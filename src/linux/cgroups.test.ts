import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { findHierarchies } from './cgroup-hierarchies.ts';
import { Cgroup } from './cgroups.ts';
import { parseMounts } from './mounts.ts';
import { readStat } from './process.ts';

const skip =
  process.getuid?.() !== 0
    ? 'needs root'
    : findHierarchies().length === 0
      ? 'needs a mounted cgroup file system'
      : false;

test('hierarchies of version 1, 2 and both are found, each once and only with its own root', () => {
  const hybrid = parseMounts(`31 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
32 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpuacct
39 30 0:36 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
40 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
41 30 0:37 / /other rw - cgroup2 cgroup2 rw
42 30 0:38 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`);
  assert.deepEqual(
    findHierarchies(hybrid).map(({ mountPoint, version, controllers }) => [
      mountPoint,
      version,
      ...controllers,
    ]),
    [
      ['/sys/fs/cgroup/cpu', 1, 'cpu'],
      ['/sys/fs/cgroup/cpu,cpuacct', 1, 'cpuacct'],
      ['/sys/fs/cgroup/systemd', 1, 'name=systemd'],
      ['/sys/fs/cgroup/unified', 2],
    ],
  );
});

test('a name that leads elsewhere is refused', () => {
  for (const name of ['', '.', '..', '../x', 'a/b', '/', ' ']) {
    assert.throws(() => new Cgroup(name, []), RangeError, name);
  }
});

test('a group is made, limited, frozen, killed and removed; a busy one is not removed', {
  skip,
}, async () => {
  const group = new Cgroup(`test-${process.pid}`);
  group.create();
  group.create();
  group.restrictDevices();
  group.limit({ memoryBytes: 64 * 2 ** 20, pids: 50 });
  await assert.rejects(async () => group.limit({ pids: -5 }), { code: 'cgroup-limit-refused' });
  // A process that would not be missed, and one that forks.
  const child = spawn('sh', ['-c', 'while :; do sleep 0.01; done'], { stdio: 'ignore' });
  const pid = child.pid ?? 0;
  const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
  try {
    group.add(pid);
    assert.ok(group.holds(pid) && group.processes().includes(pid));
    assert.ok(!group.holds(process.pid));
    await group.freeze();
    assert.ok(group.isFrozen());
    const ticks = () => (readStat(pid)?.userTicks ?? 0) + (readStat(pid)?.systemTicks ?? 0);
    const before = ticks();
    await assert.rejects(group.remove(50), { class: 'temporary', code: 'cgroup-busy' });
    assert.equal(ticks(), before);
    assert.ok(group.memoryBytes() >= 0 && group.oomKills() === 0);
    for (const directory of group.directories()) mkdirSync(path.join(directory, 'inner'));
  } finally {
    await group.kill();
  }
  assert.equal(await ended, 'SIGKILL');
  const other = new Cgroup(`test-${process.pid}-other`);
  other.create();
  await group.remove();
  assert.ok(!group.exists());
  assert.ok(
    other.directories().every((directory) => existsSync(directory)),
    'others stay',
  );
  await other.remove();
});

test('the last group takes /cairn along, also while others are being made', { skip }, async () => {
  const program = `import { Cgroup } from ${JSON.stringify(import.meta.resolve('./cgroups.ts'))};
    const group = new Cgroup('test-race-' + process.pid);
    for (let i = 0; i < 60; i++) { group.create(); await group.remove(); }`;
  const racers = [1, 2, 3].map(async () => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let errors = '';
    child.stderr.on('data', (bytes) => (errors += bytes));
    const [code] = await once(child, 'close');
    assert.equal(code, 0, errors);
  });
  await Promise.all(racers);
  for (const { mountPoint } of findHierarchies()) {
    const parent = path.join(mountPoint, 'cairn');
    // Another Cairn of this host may have groups now.
    if (existsSync(parent))
      assert.ok(
        readdirSync(parent, { withFileTypes: true }).some((entry) => entry.isDirectory()),
        `${parent} is left behind`,
      );
  }
});
