import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dumpCommand } from './dump-command.ts';
import { restoreCommand } from './restore-command.ts';

test('a small dump', () => {
  const argv = dumpCommand({ pid: 7, imageDirectory: '/i', logFile: 'dump.log', afterwards: 'kill' });
  assert.equal(
    argv.join(' '),
    'dump --tree 7 --no-default-config --images-dir /i --log-file dump.log --verbosity=2 --manage-cgroups=ignore',
  );
});

test('a dump of a unit that copies memory itself', () => {
  const argv = dumpCommand({
    pid: 7,
    imageDirectory: '/i',
    workDirectory: '/w',
    logFile: 'dump.log',
    logLevel: 4,
    afterwards: 'run',
    stream: true,
    root: '/r',
    externals: ['mnt[/dev/null]:/dev/null', 'pipe[x]'],
    emptyNetwork: true,
    tcp: 'established',
    networkLock: 'skip',
    fileLocks: true,
    linkRemap: true,
    ghostLimitBytes: 2 ** 32,
    timeoutSeconds: 30,
    lazySocket: 3,
    statusDescriptor: 4,
    extra: ['--weak-sysctls'],
  });
  const text = argv.join(' ');
  for (const part of [
    '--work-dir /w',
    '--stream --root /r --external mnt[/dev/null]:/dev/null --external pipe[x] --empty-ns net',
    '--tcp-established --network-lock skip --file-locks --link-remap --weak-sysctls --leave-running',
    '--lazy-pages --ps-socket 3 --status-fd 4 --ghost-limit 4294967296 --timeout 30',
  ]) {
    assert.ok(text.includes(part), `${part} in ${text}`);
  }
  assert.ok(!text.includes('--leave-stopped'));
});

test('a restore with descriptors, and one that waits for no memory', () => {
  const text = restoreCommand({
    imageDirectory: '/i',
    logFile: 'restore.log',
    detached: true,
    sibling: true,
    pidFile: '/p',
    inheritDescriptors: [{ descriptor: 5, resource: 'pipe:[77]' }],
    lazyPages: true,
    joinNamespaces: { net: '/run/netns/x' },
    fileValidation: 'filesize',
  }).join(' ');
  assert.ok(text.startsWith('restore --no-default-config --images-dir /i'));
  assert.ok(
    text.includes(
      '--restore-detached --restore-sibling --pidfile /p --inherit-fd fd[5]:pipe:[77] --lazy-pages',
    ),
  );
  assert.ok(text.includes('--file-validation filesize --join-ns net:/run/netns/x'));
});
