import assert from 'node:assert/strict';
import test from 'node:test';
import { describeObstacle, findObstacles } from './obstacles.ts';
import type { OpenDescriptor, ProcessResources, UnitResources } from './unit-resources.ts';

function unit(process: Partial<ProcessResources>, rest: Partial<UnitResources> = {}): UnitResources {
  return {
    rootPid: 100,
    processes: [
      {
        pid: 100,
        unitPid: 1,
        command: 'job',
        state: 'S',
        tracer: 0,
        uid: 0,
        residentBytes: 0,
        descriptors: [],
        devices: [],
        ownNamespaces: [],
        ...process,
      },
    ],
    strangers: [],
    mounts: [],
    unixPeers: new Map(),
    ...rest,
  };
}

function withDescriptor(target: string, rest: Partial<OpenDescriptor> = {}): UnitResources {
  return unit({ descriptors: [{ fd: 5, target, fileSystem: undefined, ...rest }] });
}

const refused: [string, UnitResources, RegExp][] = [
  ['io_uring', withDescriptor('anon_inode:[io_uring]'), /io_uring/],
  ['userfaultfd', withDescriptor('anon_inode:[userfaultfd]'), /page faults/],
  ['perf event', withDescriptor('anon_inode:[perf_event]'), /counters/],
  ['device', withDescriptor('/dev/dri/card0', { fileSystem: 'devtmpfs' }), /device/],
  ['POSIX queue', withDescriptor('/jobs', { fileSystem: 'mqueue' }), /queue/],
  ['packet pipe', withDescriptor('pipe:[7]', { variant: 'packet-pipe' }), /O_DIRECT/],
  [
    'eventfd semaphore',
    withDescriptor('anon_inode:[eventfd]', { variant: 'eventfd-semaphore' }),
    /EFD_SEMAPHORE/,
  ],
  [
    'lost watch',
    withDescriptor('anon_inode:inotify', { lostWatch: 'a watched file has gone' }),
    /has gone.*inotify/,
  ],
  ['stop by SIGTTIN', unit({ state: 'T', stopSignal: 'SIGTTIN' }), /SIGTTIN.*terminal.*foreground/],
  ['vsock', withDescriptor('socket:[9]', { socket: { domain: 40, type: 1, protocol: 0 } }), /domain 40/],
  ['SCTP', withDescriptor('socket:[9]', { socket: { domain: 2, type: 1, protocol: 132 } }), /protocol 132/],
  ['traced process', unit({ tracer: 77 }), /process 77 traces it/],
  ['RDMA', unit({ devices: [{ path: '/dev/infiniband/uverbs0', start: '0x7f00' }] }), /RDMA/],
  ['PID namespace inside', unit({ ownNamespaces: ['pid'] }), /pid namespace/],
  ['FUSE', unit({}, { mounts: [{ mountPoint: '/mnt', type: 'fuse.sshfs', root: '/' }] }), /FUSE/],
];

for (const [name, resources, pattern] of refused)
  test(`R18 ${name} is refused with process, descriptor, reason and remedy`, () => {
    const { obstacles, warnings } = findObstacles(resources);
    assert.equal(obstacles.length, 1);
    assert.equal(warnings.length, 0);
    const [obstacle] = obstacles;
    assert.ok(obstacle);
    assert.match(describeObstacle(obstacle), pattern);
    assert.ok(obstacle.remedy.length > 5);
    if (resources.processes[0]?.descriptors.length === 1) assert.equal(obstacle.descriptor, 5);
  });

const accepted: [string, UnitResources][] = [
  ['a regular file', withDescriptor('/var/lib/data', { fileSystem: 'overlay' })],
  ['a terminal', withDescriptor('/dev/pts/0', { fileSystem: 'devpts' })],
  ['/dev/null', withDescriptor('/dev/null', { fileSystem: 'devtmpfs' })],
  ['a file of POSIX shared memory', withDescriptor('/dev/shm/x', { fileSystem: 'tmpfs' })],
  ['a pipe', withDescriptor('pipe:[7]')],
  ['inotify', withDescriptor('anon_inode:inotify')],
  ['an eventfd', withDescriptor('anon_inode:[eventfd]')],
  ['a process stopped from the keyboard', unit({ state: 'T', stopSignal: 'SIGTSTP' })],
  ['epoll', withDescriptor('anon_inode:[eventpoll]')],
  ['a TCP socket', withDescriptor('socket:[9]', { socket: { domain: 2, type: 1, protocol: 6 } })],
  ['a mount namespace inside', unit({ ownNamespaces: ['mnt'] })],
];

for (const [name, resources] of accepted)
  test(`R18 ${name} is no obstacle`, () => {
    assert.deepEqual(findObstacles(resources), { obstacles: [], warnings: [] });
  });

test('R18 a Unix socket is refused only if its peer lives outside the unit', () => {
  const socket = { domain: 1, type: 1, protocol: 0 };
  const both = unit(
    {
      descriptors: [
        { fd: 3, target: 'socket:[10]', fileSystem: undefined, socket },
        { fd: 4, target: 'socket:[11]', fileSystem: undefined, socket },
      ],
    },
    {
      unixPeers: new Map([
        [10, 11],
        [11, 10],
      ]),
    },
  );
  assert.equal(findObstacles(both).obstacles.length, 0);
  const outside = { ...both, unixPeers: new Map([[10, 999]]) };
  const { obstacles } = findObstacles(outside);
  assert.deepEqual(
    obstacles.map(({ descriptor }) => descriptor),
    [3],
  );
});

test('R18 a process started by exec is no obstacle but will be missing, which is said', () => {
  const { obstacles, warnings } = findObstacles(unit({}, { strangers: [{ pid: 200, command: 'bash' }] }));
  assert.equal(obstacles.length, 0);
  assert.match(describeObstacle(warnings[0] ?? assert.fail()), /process 200 \(bash\)/);
});
