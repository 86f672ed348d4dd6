import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import { test } from 'node:test';
import {
  identityOf,
  isAlive,
  parseStat,
  readAllPids,
  readCgroups,
  readChildren,
  readCommandLine,
  readNamespaces,
  readProcessLink,
  readStat,
  readStatus,
  readThreads,
  readTimeOffsets,
  readTree,
} from './process.ts';
import {
  inodeOfTarget,
  parseDescriptorInfo,
  readDescriptorInfo,
  readDescriptors,
} from './process-descriptors.ts';
import { parseMaps, readMaps, readMapUsage, readMemoryTotals } from './process-maps.ts';

test('a name with parentheses and spaces does not shift the fields of stat', () => {
  const rest = Array.from({ length: 50 }, (_, i) => i + 4).join(' ');
  const stat = parseStat(`42 (a) R (b c) S ${rest}`);
  assert.equal(stat.pid, 42);
  assert.equal(stat.name, 'a) R (b c');
  assert.equal(stat.state, 'S');
  assert.equal(stat.parent, 4);
  assert.equal(stat.session, 6);
  assert.equal(stat.startTime, 22);
  assert.equal(stat.residentPages, 24);
});

test('this process and its child as /proc shows them', async () => {
  const child = spawn('sh', ['-c', 'sleep 60 & wait'], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  const pid = child.pid ?? 0;
  const deadline = Date.now() + 5000;
  // The child is there before it has become `sleep`.
  while (readCommandLine(readTree(pid)[1] ?? 0)?.[0] !== 'sleep' && Date.now() < deadline)
    await new Promise((resolve) => setTimeout(resolve, 5));
  const tree = readTree(pid);
  assert.equal(tree.length, 2);
  assert.deepEqual(readChildren(pid), [tree[1]]);
  assert.ok(readTree(process.pid).includes(tree[1] ?? 0));
  assert.equal(readStat(pid)?.parent, process.pid);
  assert.equal(readStat(pid)?.session, pid);
  assert.deepEqual(readCommandLine(tree[1] ?? 0), ['sleep', '60']);
  assert.deepEqual(readThreads(pid), [pid]);
  const status = readStatus(pid);
  assert.equal(status?.parent, process.pid);
  assert.equal(status?.uids[0], process.getuid?.());
  assert.equal(status?.namespacePids[0], pid);
  assert.equal(status?.tracer, 0);
  assert.equal(status?.umask, process.umask());
  assert.equal(readProcessLink(pid, 'cwd'), process.cwd());
  assert.equal(`net:[${readNamespaces(pid)?.get('net')}]`, readlinkSync('/proc/self/ns/net'));
  assert.deepEqual(readCgroups(pid), readCgroups('self'));
  assert.ok(readAllPids().includes(pid));
  assert.ok(readTimeOffsets(pid) === undefined || typeof readTimeOffsets(pid)?.monotonic === 'bigint');

  const descriptors = readDescriptors(pid) ?? [];
  assert.equal(descriptors.find(({ fd }) => fd === 1)?.target, '/dev/null');
  assert.ok(inodeOfTarget(descriptors.find(({ fd }) => fd === 0)?.target ?? '', 'socket'));
  assert.equal(readDescriptorInfo(pid, 1)?.position, 0n);
  assert.equal(readDescriptorInfo(pid, 999), undefined);

  const maps = readMaps(pid) ?? [];
  assert.ok(maps.some((mapping) => mapping.path === '[stack]' && mapping.writable && !mapping.shared));
  const usage = readMapUsage(pid) ?? [];
  assert.equal(usage.length, maps.length);
  const resident = usage.reduce((sum, mapping) => sum + mapping.residentBytes, 0);
  assert.equal(readMemoryTotals(pid)?.resident, resident);

  const identity = identityOf(pid);
  assert.ok(identity);
  assert.ok(isAlive(identity));
  assert.ok(!isAlive({ ...identity, startTime: identity.startTime + 1 }));
  process.kill(-pid, 'SIGKILL');
  await once(child, 'exit');
  assert.ok(!isAlive(identity));
  for (const read of [
    readStat,
    readStatus,
    readMaps,
    readMapUsage,
    readMemoryTotals,
    readCgroups,
    readThreads,
  ]) {
    assert.equal(read(pid), undefined, read.name);
  }
  for (const read of [readDescriptors, readNamespaces, readChildren, readCommandLine]) {
    assert.equal(read(pid), undefined, read.name);
  }
  assert.deepEqual(readTree(pid), []);
});

test('maps: names with spaces, unlinked files, anonymous memory', () => {
  const [file, gone, anonymous, strange, ...rest] = parseMaps(
    [
      '5600-5700 r-xp 00001000 fe:01 77 /opt/my program\\012x',
      '5700-5900 rw-s 00000000 00:05 5 /memfd:x (deleted)',
      '7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 ',
      '7ffc00030000-7ffc00031000 rw-s 00000000 00:05 6 /memfd:a\rb\u2028c (deleted)',
      'Rss:  5 kB',
      '',
    ].join('\n'),
  );
  assert.deepEqual(rest, []);
  assert.equal(file?.path, '/opt/my program\nx');
  assert.ok(file?.executable && !file.writable && !file.shared && !file.deleted);
  assert.equal(file?.offset, 4096n);
  assert.equal(gone?.path, '/memfd:x');
  // What ends a line elsewhere does not here.
  assert.equal(strange?.path, '/memfd:a\rb\u2028c');
  assert.ok(gone?.deleted && gone.shared);
  assert.equal(anonymous?.path, '');
  assert.equal(anonymous?.end, 0x7ffc00021000n);
});

test('fdinfo: position, octal flags, locks, fields of a kind', () => {
  const info = parseDescriptorInfo(
    'pos:\t9\nflags:\t0100002\nmnt_id:\t27\nino:\t12\nlock:\t1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF\neventfd-count: 5\n',
  );
  assert.equal(info.position, 9n);
  assert.equal(info.flags, 0o100002);
  assert.equal(info.inode, 12);
  assert.equal(info.locks.length, 1);
  assert.equal(info.fields.get('eventfd-count'), '5');
});
