import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultCapabilities, ociConfiguration } from './bundle.ts';
import { defaultSeccomp } from './seccomp.ts';
import { parseUnitSpec } from './spec.ts';
import { testSpec } from './test-node.ts';

const places = {
  architecture: 'x64',
  rootfs: '/run/u/rootfs',
  shm: '/run/u/shm',
  pts: '/run/u/pts',
  empty: '/run/empty',
  cgroupPath: '/cairn/u',
  existing: new Set(['/proc/keys', '/sys/firmware']),
  hostMounts: ['/home'],
  coveredDirectories: ['/home/state'],
};

test('a bundle has the eight namespaces, no tmpfs, and hides what exists', () => {
  const spec = { ...testSpec(['sleep', '1']), mounts: [{ source: '/data', target: '/d', readonly: true }] };
  const { linux, mounts, process } = ociConfiguration(spec, places);
  const kinds = linux.namespaces.map((namespace) => namespace.type).sort();
  assert.deepEqual(kinds, ['cgroup', 'ipc', 'mount', 'network', 'pid', 'time', 'user', 'uts']);
  assert.ok(mounts.every((mount) => mount.type !== 'tmpfs' && mount.type !== 'cgroup'));
  assert.deepEqual(linux.maskedPaths, ['/proc/keys']);
  assert.ok(linux.readonlyPaths.includes('/proc/sys') && linux.readonlyPaths.includes('/proc/sysrq-trigger'));
  const binds = mounts.filter((mount) => mount.type === 'bind').map((m) => [m.destination, ...m.options]);
  assert.deepEqual(binds.slice(2), [
    ['/sys/firmware', 'rbind', 'ro'],
    ['/home', 'rbind', 'ro'],
    ['/home/state', 'rbind', 'ro'],
    ['/d', 'rbind', 'ro'],
  ]);
  assert.deepEqual(process.args, ['sleep', '1']);
  assert.ok(linux.seccomp);
  assert.equal(ociConfiguration({ ...spec, seccomp: 'unconfined' }, places).linux.seccomp, undefined);
});

test('only root starts with capabilities', () => {
  const of = (uid: number) =>
    ociConfiguration({ ...testSpec(['x']), user: { uid, gid: 0, additionalGids: [] } }, places).process
      .capabilities;
  assert.deepEqual(of(0).effective, defaultCapabilities);
  assert.deepEqual([of(1000).effective, of(1000).permitted], [[], []]);
  assert.deepEqual(of(1000).bounding, defaultCapabilities);
});

test('the system call filter allows ordinary calls, refuses dangerous ones, follows capabilities', () => {
  const actionOf = (call: string, capabilities = defaultCapabilities) =>
    defaultSeccomp(capabilities, 'x64').syscalls.find(
      (rule) => rule.names.includes(call) && rule.args === undefined,
    )?.action;
  for (const call of [
    'read',
    'openat2',
    'futex',
    'mmap',
    'ptrace',
    'rseq',
    'clock_nanosleep',
    'chroot',
    'mbind',
  ]) {
    assert.equal(actionOf(call), 'SCMP_ACT_ALLOW', call);
  }
  for (const call of [
    'mount',
    'bpf',
    'kexec_load',
    'init_module',
    'keyctl',
    'userfaultfd',
    'io_uring_setup',
    'setns',
  ]) {
    assert.equal(actionOf(call), 'SCMP_ACT_ERRNO', call);
  }
  assert.equal(actionOf('mount', [...defaultCapabilities, 'CAP_SYS_ADMIN']), 'SCMP_ACT_ALLOW');
  assert.equal(actionOf('clone'), undefined, 'only without new namespaces');
  const names = defaultSeccomp(defaultCapabilities, 'x64').syscalls.flatMap((rule) => rule.names);
  const plain = names.filter((name) => !['personality', 'socket', 'clone'].includes(name));
  assert.equal(new Set(plain).size, plain.length, 'no call has two rules');
});

test('a specification from outside is checked, and the wrong place is named', () => {
  const good = testSpec(['true']);
  assert.deepEqual(parseUnitSpec(structuredClone(good)), good);
  const wrong: [RegExp, object][] = [
    [/\/id/, { id: '../../etc' }],
    [/\/command/, { command: [] }],
    [/\/hostname/, { hostname: 'a/b' }],
    [/\/workingDirectory/, { workingDirectory: 'relative' }],
    [/\/resources\/memoryBytes/, { resources: { memoryBytes: 1 } }],
    [/\/user\/uid/, { user: { uid: 4294967295, gid: 0, additionalGids: [] } }],
  ];
  for (const [where, change] of wrong) {
    assert.throws(
      () => parseUnitSpec({ ...good, ...change }),
      (error: Error & { code?: string }) => {
        assert.equal(error.code, 'unit-spec-invalid');
        assert.match(error.message, where);
        return true;
      },
    );
  }
});
