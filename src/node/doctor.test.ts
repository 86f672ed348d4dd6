import assert from 'node:assert/strict';
import { test } from 'node:test';
import { criuFeatures } from '../criu/find.ts';
import { capabilitiesOf } from '../linux/host.ts';
import { type CheckStatus, diagnose } from './doctor.ts';
import { collectDoctorFacts, type DoctorFacts } from './doctor-facts.ts';

const place = { type: 'ext4', freeBytes: 2 ** 36, totalBytes: 2 ** 37, freeInodes: 1e6 };

/** A host on which everything is as it should be. */
const good: DoctorFacts = {
  root: true,
  distribution: 'Debian GNU/Linux 13 (trixie)',
  architecture: 'x64',
  nodeVersion: 'v26.12.1',
  kernelRelease: '6.12.48+deb13-amd64',
  kernelConfig: undefined,
  capabilities: capabilitiesOf(0x1ffffffffffn),
  namespaces: ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'],
  overlay: true,
  nftables: { found: true },
  criu: { found: { path: '/opt/cairn/bin/criu', version: '4.2.1', prefix: true } },
  criuCheck: {
    found: {
      features: Object.fromEntries(Object.keys(criuFeatures).map((name) => [name, true])) as Record<
        keyof typeof criuFeatures,
        boolean
      >,
    },
  },
  runtime: { found: { name: 'runc', path: '/usr/sbin/runc', version: '1.3.6', prefix: false } },
  programs: { ip: '/usr/sbin/ip', nft: '/usr/sbin/nft' },
  sysctls: {
    'fs.pipe-max-size': '1073741824',
    'fs.pipe-user-pages-soft': '0',
    'vm.unprivileged_userfaultfd': '0',
    'kernel.io_uring_disabled': '0',
    'kernel.ns_last_pid': '1234',
    'kernel.yama.ptrace_scope': '0',
    'user.max_user_namespaces': '63000',
    'net.ipv4.ip_forward': '1',
    'net.bridge.bridge-nf-call-iptables': undefined,
  },
  sysctlsWritable: true,
  cgroup: 'v2',
  cgroupWritable: true,
  systemRun: { type: 'tmpfs' },
  state: { path: '/var/lib/cairn', ...place },
  run: { path: '/run/cairn', ...place },
  hugePages: { total: 0, free: 0, sizeBytes: 2 ** 21 },
  memory: { total: 2 ** 34, available: 2 ** 33 },
  daemon: 'running',
};

function statusOf(facts: Partial<DoctorFacts>, name: string): CheckStatus | undefined {
  return diagnose({ ...good, ...facts }).checks.find((check) => check.name === name)?.status;
}

test('a good host is usable and nothing is complained about', () => {
  const { usable, checks } = diagnose(good);
  assert.equal(usable, true);
  assert.deepEqual(
    checks.filter(({ status }) => status !== 'ok'),
    [],
  );
});

const sysctls = (change: Partial<DoctorFacts['sysctls']>) => ({ sysctls: { ...good.sysctls, ...change } });
const failure = (code: string) => ({ failure: { code, message: 'm', remedy: 'r', lines: ['l'] } });
const noResource = good.capabilities.filter((name) => name !== 'CAP_SYS_RESOURCE');

const broken: [string, Partial<DoctorFacts>, string, CheckStatus][] = [
  ['Node.js 20', { nodeVersion: 'v20.20.2' }, 'node', 'fail'],
  ['kernel 5.4', { kernelRelease: '5.4.0-200-generic' }, 'kernel', 'fail'],
  ['no checkpoint/restore', sysctls({ 'kernel.ns_last_pid': undefined }), 'checkpoint-restore', 'fail'],
  ['no time namespaces', { namespaces: ['mnt', 'pid'] }, 'namespaces', 'fail'],
  ['user namespaces off', sysctls({ 'user.max_user_namespaces': '0' }), 'namespaces', 'fail'],
  ['no overlayfs', { overlay: false }, 'overlayfs', 'fail'],
  ['nft fails', { nftables: failure('nft-broken') }, 'nftables', 'fail'],
  ['no cgroups', { cgroup: 'none' }, 'cgroup', 'fail'],
  ['read-only cgroups', { cgroupWritable: false }, 'cgroup', 'fail'],
  ['no CRIU', { criu: failure('criu-missing'), criuCheck: undefined }, 'criu', 'fail'],
  ['criu check fails', { criuCheck: failure('criu-broken') }, 'criu-check', 'fail'],
  ['runc too old', { runtime: failure('runtime-too-old') }, 'runtime', 'fail'],
  ['no ip program', { programs: { ip: undefined } }, 'programs', 'fail'],
  ['a container without capabilities', { capabilities: capabilitiesOf(0xa80425fbn) }, 'capabilities', 'fail'],
  ['only CAP_SYS_RESOURCE missing', { capabilities: noResource }, 'capabilities', 'warn'],
  ['ptrace forbidden', sysctls({ 'kernel.yama.ptrace_scope': '3' }), 'ptrace', 'fail'],
  ['few pages for pipes', sysctls({ 'fs.pipe-user-pages-soft': '16384' }), 'pipe-user-pages', 'warn'],
  ['no userfaultfd', sysctls({ 'vm.unprivileged_userfaultfd': undefined }), 'userfaultfd', 'warn'],
  [
    'no forwarding, and settings cannot be written',
    { ...sysctls({ 'net.ipv4.ip_forward': '0' }), sysctlsWritable: false },
    'ip-forward',
    'warn',
  ],
  ['bridge filter', sysctls({ 'net.bridge.bridge-nf-call-iptables': '1' }), 'bridge-nf', 'warn'],
  ['/run on a disk', { systemRun: { type: 'ext4' } }, 'run-tmpfs', 'warn'],
  ['little space', { state: { path: '/s', ...place, freeBytes: 2 ** 30 } }, 'state-space', 'warn'],
  ['no space', { state: { path: '/s', ...place, freeBytes: 2 ** 20 } }, 'state-space', 'fail'],
];

for (const [title, facts, name, status] of broken) {
  test(`R24 doctor: ${title} is a ${status}, with why and the way out`, () => {
    const { usable, checks } = diagnose({ ...good, ...facts });
    const check = checks.find((candidate) => candidate.name === name);
    assert.equal(check?.status, status);
    assert.ok(check.why);
    assert.equal(usable, status === 'warn');
  });
}

test('R24 a small pipe size matters only without CAP_SYS_RESOURCE', () => {
  const small = sysctls({ 'fs.pipe-max-size': '1048576' });
  assert.equal(statusOf(small, 'pipe-max-size'), 'ok');
  assert.equal(statusOf({ ...small, capabilities: noResource }, 'pipe-max-size'), 'fail');
});

test('R24 without root it is said what could not be tested, and the host is not called usable', () => {
  const facts = { ...good, root: false, nftables: undefined, criuCheck: undefined, capabilities: [] };
  const { usable, checks } = diagnose(facts);
  assert.equal(usable, false);
  assert.deepEqual(
    checks.filter(({ status }) => status !== 'ok').map(({ name }) => name),
    ['root'],
  );
});

test('facts can be collected on any host', async () => {
  const facts = await collectDoctorFacts({ state: '/no/such/state', run: '/no/such/run' });
  assert.equal(facts.daemon, 'stopped');
  assert.ok(diagnose(facts).checks.length > 15);
});
