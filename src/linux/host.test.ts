import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  capabilitiesOf,
  cgroupMode,
  fileSystemType,
  kernelConfig,
  parseKernelConfig,
  parseOsRelease,
  spaceAt,
  sysctl,
} from './host.ts';

test('capability masks are read by bit', () => {
  assert.deepEqual(capabilitiesOf(0n), []);
  assert.equal(capabilitiesOf(0x1ffffffffffn).length, 41);
  const without = capabilitiesOf(0x1fffeffffffn);
  assert.equal(without.length, 40);
  assert.ok(!without.includes('CAP_SYS_RESOURCE'));
  assert.ok(without.includes('CAP_CHECKPOINT_RESTORE'));
});

test('os-release of Debian and Ubuntu', () => {
  const debian = parseOsRelease('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n');
  assert.deepEqual(debian, { id: 'debian', like: [], version: '12', name: 'Debian GNU/Linux 12 (bookworm)' });
  const ubuntu = parseOsRelease(
    'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n',
  );
  assert.deepEqual(ubuntu.like, ['debian']);
  assert.equal(parseOsRelease('ID=debian\nPRETTY_NAME="Debian GNU/Linux forky/sid"\n').version, undefined);
});

test('kernel configuration lines', () => {
  const config = parseKernelConfig('CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D="x y"\n');
  assert.deepEqual(
    [...config],
    [
      ['A', 'y'],
      ['C', 'm'],
      ['D', '"x y"'],
    ],
  );
});

test('facts of this host have the right form', () => {
  assert.match(sysctl('kernel.osrelease') ?? '', /^\d+\.\d+/);
  assert.equal(sysctl('kernel.no_such_setting'), undefined);
  assert.equal(fileSystemType('/proc/self'), 'proc');
  assert.ok(['v1', 'v2', 'hybrid', 'none'].includes(cgroupMode()));
  const space = spaceAt('/no/such/directory');
  assert.ok(space.totalBytes >= space.freeBytes);
  const config = kernelConfig();
  if (config !== undefined) assert.equal(config.get('PROC_FS'), 'y');
});
