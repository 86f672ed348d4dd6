import assert from 'node:assert/strict';
import test from 'node:test';
import { CairnError } from '../errors.ts';
import { checkpoint } from './checkpoint.ts';
import type { Command } from './command.ts';
import { exec } from './exec.ts';
import { jobs } from './jobs.ts';
import { nearestWord, parseArguments } from './parse-arguments.ts';
import { rm } from './rm.ts';
import { descriptionFrom, run } from './run.ts';

const isUsage = (part: string) => (error: unknown) =>
  error instanceof CairnError && error.code === 'usage' && `${error.message} ${error.remedy}`.includes(part);
const refuse = (command: Command, words: string[], part: string): void =>
  assert.throws(() => parseArguments(command, words), isUsage(part), words.join(' '));

test('options are read in every form', () => {
  const forms = [
    ['--name', 'x', '-it', '-e', 'A=1', '--env=B=2', '-eC=3', 'cmd'],
    ['--name=x', '-i', '-t', '-e', 'A=1', '-e', 'B=2', '--env', 'C=3', '--', 'cmd'],
  ];
  for (const words of forms) {
    const input = parseArguments(run, words);
    assert.equal(input.option('name'), 'x');
    assert.ok(input.flag('interactive') && input.flag('tty') && !input.flag('detach'));
    assert.deepEqual(input.options('env'), ['A=1', 'B=2', 'C=3']);
    assert.deepEqual(input.arguments('COMMAND'), ['cmd']);
  }
});

test('what follows the command to run belongs to it, whatever it looks like', () => {
  assert.deepEqual(parseArguments(run, ['-d', 'ls', '-l', '--json', '--', 'x']).arguments('COMMAND'), [
    'ls',
    '-l',
    '--json',
    '--',
    'x',
  ]);
  assert.deepEqual(parseArguments(run, ['--', '-x']).arguments('COMMAND'), ['-x']);
  const input = parseArguments(exec, ['-it', 'redis', '-u', 'nobody', '--', 'sh', '-c', 'x']);
  assert.deepEqual(
    [input.required('JOB'), input.option('user'), input.arguments('COMMAND')],
    ['redis', 'nobody', ['sh', '-c', 'x']],
  );
  assert.deepEqual(parseArguments(exec, ['redis', 'ls', '-l']).arguments('COMMAND'), ['ls', '-l']);
});

test('a wrong call is refused with what is wrong', () => {
  refuse(jobs, ['--al'], 'Did you mean --all?');
  refuse(jobs, ['-x'], '-x is not known');
  refuse(jobs, ['x'], '"x" is too much');
  refuse(jobs, ['--all=yes'], '--all takes no value');
  refuse(run, ['--name'], '--name needs a value: NAME');
  refuse(rm, [], 'JOB is missing');
  refuse(exec, ['redis'], 'COMMAND is missing');
  refuse(exec, ['redis'], 'cairn exec --help');
  assert.throws(() => parseArguments(run, ['--keep', 'x', 'y']).integer('keep', 1), isUsage('--keep'));
  assert.throws(() => parseArguments(run, ['--keep', '0', 'y']).integer('keep', 1), isUsage('at least 1'));
});

test('--help is understood in an otherwise wrong call', () => {
  assert.ok(parseArguments(checkpoint, ['--help']).flag('help'));
  assert.ok(parseArguments(checkpoint, ['-h', 'a', 'b']).flag('help'));
});

test('a mistyped word finds its neighbour', () => {
  assert.equal(nearestWord('chekpoint', ['checkpoint', 'restart']), 'checkpoint');
  assert.equal(nearestWord('xyz', ['checkpoint', 'restart']), undefined);
});

test('the flags of run become a description', async () => {
  const words = [
    ...[
      '--name',
      'redis',
      '-i',
      '-t',
      '--rootfs',
      'dir:root',
      '-v',
      'data:/data:ro',
      '-e',
      'A=1',
      '-u',
      '1000:1000',
      '-w',
      '/srv',
    ],
    ...[
      '-m',
      '512m',
      '--cpus',
      '1.5',
      '--pids-limit',
      '100',
      '-p',
      '8080:80',
      '-p',
      '53:53/udp',
      '--address',
      '10.213.0.9',
    ],
    ...[
      '--every',
      '30s',
      '--keep',
      '3',
      '--restart',
      'on-failure',
      '--runtime',
      'crun',
      '--cap-drop',
      'all',
      '--cap-add',
      'net_admin',
    ],
    ...['redis-server', '--port', '6379'],
  ];
  assert.deepEqual(await descriptionFrom(parseArguments(run, words), '/home/x'), {
    name: 'redis',
    command: ['redis-server', '--port', '6379'],
    terminal: true,
    stdin: true,
    rootFileSystem: 'dir:/home/x/root',
    mounts: ['/home/x/data:/data:ro'],
    environment: { A: '1' },
    user: '1000:1000',
    workingDirectory: '/srv',
    resources: { memory: '512m', cpus: 1.5, pids: 100 },
    network: { address: '10.213.0.9', ports: ['8080:80', '53:53/udp'] },
    checkpoint: { every: '30s', keep: 3 },
    restart: { policy: 'on-failure' },
    runtime: 'crun',
    capabilities: { add: ['CAP_NET_ADMIN'], drop: ['ALL'] },
  });
});

test('run refuses what makes no sense', async () => {
  const rejected = (words: string[], code: string): Promise<void> =>
    assert.rejects(
      async () => descriptionFrom(parseArguments(run, words), '/'),
      (error) => error instanceof CairnError && error.code === code,
      words.join(' '),
    );
  await rejected([], 'usage');
  await rejected(['--name', 'a/b', 'x'], 'job-name-invalid');
  await rejected(['--restart', 'maybe', 'x'], 'usage');
  await rejected(['--rootfs', 'nfs:x', 'x'], 'usage');
  await rejected(['-v', 'a', 'x'], 'usage');
  await rejected(['--cpus', '-1', 'x'], 'usage');
  await rejected(['-e', '=x', 'x'], 'environment-invalid');
  await rejected(['-m', '5x', 'x'], 'quantity-invalid');
  await rejected(['-f', '/nonexistent/job.yaml'], 'job-file-unreadable');
});
