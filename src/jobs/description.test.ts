import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import test from 'node:test';
import { CairnError } from '../errors.ts';
import { defaultCapabilities } from '../units/bundle.ts';
import { parseUnitSpec } from '../units/spec.ts';
import { type JobDescription, parseDescription } from './description.ts';
import { absoluteMount, absoluteRootFileSystem, parseJobFile } from './job-file.ts';
import { checkJobName, parseJobReference } from './job-reference.ts';
import { jobSchema } from './job-schema.ts';
import { parseBytes, parseDuration } from './quantities.ts';
import { defaultJobName, portOf, rootFileSystemOf, unitSpecOf } from './unit-spec.ts';

const surroundings = {
  defaultCapabilities,
  image: undefined,
  user: { user: { uid: 0, gid: 0, additionalGids: [] }, home: '/root', name: 'root' },
};
const specOf = (description: JobDescription) =>
  unitSpecOf({ unit: 'u-0123456789ab', name: 'redis', description }, surroundings);
const isError = (code: string) => (error: unknown) => error instanceof CairnError && error.code === code;

test('sizes and times are read with their units, everything else is refused', () => {
  for (const [text, bytes] of [
    ['0', 0],
    ['4096', 4096],
    ['64k', 65_536],
    ['512m', 536_870_912],
    ['1.5GiB', 1_610_612_736],
    ['2 tb', 2_199_023_255_552],
  ] as const) {
    assert.equal(parseBytes(text, 'x'), bytes, text);
  }
  for (const [text, ms] of [
    ['30', 30_000],
    ['250ms', 250],
    ['1h30m', 5_400_000],
    ['0.5s', 500],
    ['2d', 172_800_000],
  ] as const) {
    assert.equal(parseDuration(text, 'x'), ms, text);
  }
  for (const text of ['', 'x', '-1', '1x', '1 2', '1e9', '٣s']) {
    assert.throws(() => parseBytes(text, 'x'), isError('quantity-invalid'), text);
    assert.throws(() => parseDuration(text, 'x'), isError('quantity-invalid'), text);
  }
});

test('a job name with a slash, a space or anything odd is refused', () => {
  for (const name of ['a', 'redis-1', '0.x_y', 'a'.repeat(63)]) checkJobName(name);
  for (const name of [
    '',
    'a/b',
    '../a',
    'a b',
    'A',
    '-a',
    '.a',
    'ä',
    'a\n',
    'a'.repeat(64),
    'a@1',
    'a\u0000',
  ]) {
    assert.throws(() => checkJobName(name), isError('job-name-invalid'), JSON.stringify(name));
  }
});

test('a job and a snapshot are named as JOB@N', () => {
  assert.deepEqual(parseJobReference('redis'), { job: 'redis' });
  assert.deepEqual(parseJobReference('redis@12'), { job: 'redis', sequence: 12 });
  for (const text of ['redis@', 'redis@0', 'redis@-1', 'redis@x', 'redis@1.5', 'redis@01']) {
    assert.throws(() => parseJobReference(text), isError('sequence-invalid'), text);
  }
  assert.throws(() => parseJobReference('a/b@1'), isError('job-name-invalid'));
});

test('a full description becomes a valid unit specification', () => {
  const spec = specOf({
    command: ['redis-server'],
    environment: { A: '1' },
    hostname: 'db',
    rootFileSystem: 'dir:/srv/root',
    mounts: ['/srv/data:/data', '/etc/x:/etc/x:ro'],
    resources: { memory: '512m', cpus: 1.5, pids: 100 },
    network: { address: '10.213.0.9', ports: ['8080:80', '127.0.0.1:53:5353/udp'] },
    capabilities: { drop: ['CAP_NET_RAW'], add: ['CAP_SYS_TIME'] },
    logs: { maxBytes: '1m', files: 2 },
  });
  assert.deepEqual(parseUnitSpec(spec), spec);
  assert.equal(spec.hostname, 'db');
  assert.equal(spec.environment['A'], '1');
  assert.equal(spec.environment['HOME'], '/root');
  assert.deepEqual(spec.rootFileSystem, { kind: 'directory', path: '/srv/root' });
  assert.deepEqual(spec.mounts[1], { source: '/etc/x', target: '/etc/x', readonly: true });
  assert.deepEqual(spec.resources, { memoryBytes: 536_870_912, cpus: 1.5, pids: 100 });
  assert.deepEqual(spec.network.ports[1], {
    hostAddress: '127.0.0.1',
    hostPort: 53,
    unitPort: 5353,
    protocol: 'udp',
  });
  assert.ok(spec.capabilities.includes('CAP_SYS_TIME') && !spec.capabilities.includes('CAP_NET_RAW'));
  assert.deepEqual(specOf({ command: ['x'], capabilities: { drop: ['ALL'] } }).capabilities, []);
});

test('an image brings its entry point, environment and directory; what is given goes before', () => {
  const image = {
    entrypoint: ['/entry'],
    command: ['default'],
    environment: { A: 'image', B: 'image' },
    user: '',
    workingDirectory: '/srv',
  };
  const job = { unit: 'u-0123456789ab', name: 'x', description: { environment: { A: 'given' } } };
  const spec = unitSpecOf(job, { ...surroundings, image });
  assert.deepEqual(spec.command, ['/entry', 'default']);
  assert.equal(spec.workingDirectory, '/srv');
  assert.deepEqual([spec.environment['A'], spec.environment['B']], ['given', 'image']);
});

test('root file systems and ports are read exactly', () => {
  assert.deepEqual(rootFileSystemOf({}), { kind: 'host' });
  assert.deepEqual(rootFileSystemOf({ rootFileSystem: 'oci:/a/b.tar' }), { kind: 'oci', path: '/a/b.tar' });
  assert.deepEqual(rootFileSystemOf({ rootFileSystem: 'oci:/a/b@v1' }), {
    kind: 'oci',
    path: '/a/b',
    reference: 'v1',
  });
  assert.deepEqual(rootFileSystemOf({ rootFileSystem: 'oci:/a@b/c' }), { kind: 'oci', path: '/a@b/c' });
  assert.throws(() => rootFileSystemOf({ rootFileSystem: 'dir:a' }), isError('path-relative'));
  for (const text of ['80', 'x:80', '0:80', '80:70000', '1.2.3:80:80', '80:80/sctp']) {
    assert.throws(() => portOf(text), isError('port-invalid'), text);
  }
  assert.throws(() => specOf({}), isError('command-missing'));
});

test('a job without a name is called after its program', () => {
  const free = (): boolean => false;
  assert.equal(defaultJobName(['/usr/bin/Redis Server!'], free), 'redis-server-');
  assert.equal(defaultJobName(['...'], free), 'job');
  assert.equal(defaultJobName(undefined, free), 'job');
  assert.equal(
    defaultJobName(['x'], (name) => name === 'x' || name === 'x-2'),
    'x-3',
  );
  for (const command of [['--x'], ['ÄÖ'], ['_a'], ['x'.repeat(200)]])
    checkJobName(defaultJobName(command, free));
});

test('a job file is read, its paths taken from its own directory', () => {
  const text = `
# a comment
name: redis
command: [redis-server, --port, "6379"]
rootFileSystem: dir:root
mounts: [data:/data]
checkpoint: { every: 30s, keep: 3 }
restart:
  policy: on-failure
`;
  assert.deepEqual(parseJobFile(text, '/srv/jobs/redis.yaml'), {
    name: 'redis',
    command: ['redis-server', '--port', '6379'],
    rootFileSystem: 'dir:/srv/jobs/root',
    mounts: ['/srv/jobs/data:/data'],
    checkpoint: { every: '30s', keep: 3 },
    restart: { policy: 'on-failure' },
  });
  assert.equal(absoluteRootFileSystem('host', '/a'), 'host');
  assert.equal(absoluteMount('/x:/y', '/a'), '/x:/y');
});

test('every mistake in a job file is named with its line and column', () => {
  const text = `name: Redis/x
command: redis-server
checkpoint:
  every: 30 sec
  foo: 1
restart:
  policy: maybe
resources: { cpus: 0 }
`;
  assert.throws(
    () => parseJobFile(text, 'job.yaml'),
    (error) => {
      assert.ok(error instanceof CairnError && error.code === 'job-file-invalid');
      const places = error.lines.map((line) => line.split(': ', 1)[0]).sort();
      assert.deepEqual(places, [
        'job.yaml:1:1',
        'job.yaml:2:1',
        'job.yaml:4:3',
        'job.yaml:5:3',
        'job.yaml:7:3',
        'job.yaml:8:14',
      ]);
      assert.ok(
        error.lines.some((line) => line.includes('restart.policy must be "no" or "on-failure" or "always"')),
      );
      assert.ok(error.lines.some((line) => line.includes('checkpoint.foo is not known')));
      return true;
    },
  );
  assert.throws(() => parseJobFile('a: [1', 'job.yaml'), isError('job-file-invalid'));
  assert.throws(() => parseJobFile('- 1', 'job.yaml'), isError('job-file-invalid'));
  assert.throws(
    () => parseJobFile('name: a\nname: b\ncommand: [x]', 'job.yaml'),
    isError('job-file-invalid'),
  );
});

test('a description from outside is refused with every fault', () => {
  assert.throws(
    () => parseDescription({ command: 'x', foo: 1 }),
    (error) =>
      error instanceof CairnError && error.code === 'job-description-invalid' && error.lines.length === 2,
  );
});

test('docs/job.schema.json is the schema of the job file', async () => {
  const text = await readFile(new URL('../../docs/job.schema.json', import.meta.url), 'utf8');
  assert.deepEqual(
    JSON.parse(text),
    JSON.parse(JSON.stringify(jobSchema())),
    'write it anew: node tools/write-docs.ts',
  );
});
