import assert from 'node:assert/strict';
import test from 'node:test';
import { CairnError } from '../errors.ts';
import { FakeNode, settle } from './fake-node.ts';
import type { JobState } from './job.ts';
import type { JobDescription } from './description.ts';

const sleeper: JobDescription = { name: 'sleeper', command: ['sleep', '1000'] };

function isError(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === code;
}

function assertState(controller: { state: JobState }, kind: JobState['kind'], message?: string): void {
  assert.equal(controller.state.kind, kind, message ?? 'state of the job');
}

test('a job runs, ends with its exit code and is removed', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const job = await jobs.run(sleeper);
  assert.equal(job.state.kind, 'running');
  assert.match(job.id, /^j-[0-9a-f]{12}$/);
  const waited = jobs.waitUntilFinal('sleeper', AbortSignal.timeout(5000));
  node.end(job.unit, { exitCode: 3 });
  const { state } = await waited;
  assert.deepEqual(state, { kind: 'exited', since: state.since, code: 3 });
  await jobs.get(job.id).remove({ force: false, snapshots: false });
  assert.deepEqual(jobs.list(), []);
  assert.equal(node.units.size, 0);
});

test('a job is found by name, id and the beginning of its id', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const { id } = await jobs.run(sleeper);
  for (const reference of ['sleeper', id, id.slice(0, 6)]) assert.equal(jobs.get(reference).job.id, id);
  assert.throws(() => jobs.get('nobody'), isError('job-unknown'));
});

test('a name is taken only once, and made from the command', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  await jobs.run(sleeper);
  await assert.rejects(jobs.run(sleeper), isError('job-name-taken'));
  const both = await Promise.allSettled([
    jobs.run({ name: 'a', command: ['x'] }),
    jobs.run({ name: 'a', command: ['x'] }),
  ]);
  assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  assert.equal((await jobs.run({ command: ['/usr/bin/Python3', 'x.py'] })).name, 'python3');
  assert.equal((await jobs.run({ command: ['python3'] })).name, 'python3-2');
});

test('a job that cannot be started does not exist', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  node.script.start = () => {
    throw new CairnError('argument', 'unit-command-not-found', 'no such command');
  };
  await assert.rejects(jobs.run(sleeper), isError('unit-command-not-found'));
  assert.deepEqual(jobs.list(), []);
  assert.equal(node.units.size, 0);
});

test('a job whose user went away while it was being started does not exist', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const gone = new AbortController();
  node.script.start = () => gone.abort();
  await assert.rejects(jobs.run(sleeper, { signal: gone.signal }), isError('aborted'));
  assert.deepEqual(jobs.list(), []);
  assert.equal(node.units.size, 0);
});

test('R20 a checkpoint continues, stops or terminates the job', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const { unit } = await jobs.run(sleeper);
  const controller = jobs.get('sleeper');
  assert.equal((await controller.checkpoint({ then: 'continue' })).sequence, 1);
  assertState(controller, 'running');
  assert.equal((await controller.checkpoint({ then: 'stop' })).sequence, 2);
  assertState(controller, 'suspended');
  await assert.rejects(controller.checkpoint({ then: 'continue' }), isError('job-not-running'));
  await controller.resume();
  assert.equal(node.units.get(unit)?.status.state, 'running');
  assert.equal((await controller.checkpoint({ then: 'terminate' })).sequence, 3);
  await settle();
  assert.deepEqual(
    { ...controller.state, since: '' },
    { kind: 'stopped', since: '', ending: { signal: 9 }, sequence: 3 },
  );
});

test('R19 R21 a checkpoint that fails leaves the job running, and notes why', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const { unit } = await jobs.run(sleeper);
  const controller = jobs.get('sleeper');
  node.script.checkpoint = async (request) => {
    await request.unit.suspend();
    throw new CairnError('temporary', 'store-full', 'no space');
  };
  await assert.rejects(controller.checkpoint({ then: 'terminate' }), isError('store-full'));
  assertState(controller, 'running');
  assert.equal(node.units.get(unit)?.status.state, 'running');
  assert.equal(controller.job.checkpoints.lastFailure?.failure.code, 'store-full');
  assert.equal(controller.job.checkpoints.failures, 1);
  delete node.script.checkpoint;
  assert.equal(
    (await controller.checkpoint({ then: 'continue' })).sequence,
    2,
    'a number is never used twice',
  );
  assert.equal(controller.job.checkpoints.failures, 0);
});

test('R21 a checkpoint is broken off when the one who asked goes away', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  await jobs.run(sleeper);
  const controller = jobs.get('sleeper');
  const gone = new AbortController();
  node.script.checkpoint = ({ signal }) =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
  const checkpoint = controller.checkpoint({ then: 'continue' }, { signal: gone.signal });
  await settle();
  assertState(controller, 'checkpointing');
  gone.abort();
  await assert.rejects(checkpoint, isError('aborted'));
  assertState(controller, 'running');
  assert.equal(controller.job.checkpoints.failures, 0, 'that is no failure of the job');
});

test('operations on one job wait for each other, a stop breaks a scheduled checkpoint off', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  await jobs.run({ ...sleeper, checkpoint: { every: '30s' } });
  const controller = jobs.get('sleeper');
  node.script.checkpoint = ({ signal }) =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
  await node.clock.advance(30_000);
  assertState(controller, 'checkpointing');
  await controller.stop({ graceMs: 1000 });
  assertState(controller, 'stopped');
  assert.deepEqual(node.headers, []);
});

test('a second checkpoint waits for its turn no longer than its timeout', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  await jobs.run(sleeper);
  const controller = jobs.get('sleeper');
  let go: (() => void) | undefined;
  node.script.checkpoint = () => new Promise((resolve) => (go = resolve));
  const first = controller.checkpoint({ then: 'continue' });
  await settle();
  const second = assert.rejects(
    controller.checkpoint({ then: 'continue', timeoutMs: 500 }),
    isError('job-busy'),
  );
  await node.clock.advance(600);
  await second;
  go?.();
  assert.equal((await first).sequence, 1);
});

test('--every takes checkpoints, retention removes the old ones', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  await jobs.run({ ...sleeper, checkpoint: { every: '30s', keep: 2 } });
  await node.clock.advance(29_000);
  assert.equal(node.headers.length, 0);
  await node.clock.advance(1000);
  assert.deepEqual(
    node.headers.map(({ sequence }) => sequence),
    [1],
  );
  await node.clock.advance(120_000);
  assert.deepEqual(
    node.headers.map(({ sequence }) => sequence),
    [4, 5],
  );
  assert.ok(node.sweeps > 0, 'the store is swept');
  await jobs.get('sleeper').suspend();
  await node.clock.advance(120_000);
  assert.equal(node.headers.at(-1)?.sequence, 5, 'a suspended job is left alone');
});

test('--every backs off while checkpoints fail', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  await jobs.run({ ...sleeper, checkpoint: { every: '10s' } });
  node.script.checkpoint = async () => {
    throw new CairnError('permanent', 'obstacle', 'cannot be saved');
  };
  await node.clock.advance(100_000);
  // At 10, 30, 70: intervals of 10, 20, 40 seconds; the next one at 150.
  assert.equal(node.eventsOf('checkpoint-failed').length, 3);
});

test('H05 a pinned snapshot outlives the policy', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  await jobs.run({ ...sleeper, checkpoint: { keep: 1 } });
  const controller = jobs.get('sleeper');
  await controller.checkpoint({ then: 'continue' });
  const [first] = node.headers;
  assert.ok(first);
  first.pinned = true;
  await controller.checkpoint({ then: 'continue' });
  await controller.checkpoint({ then: 'continue' });
  await settle();
  assert.deepEqual(
    node.headers.map(({ sequence }) => sequence),
    [1, 3],
  );
});

test('R23 a job is restarted from its newest snapshot or from a named one, any number of times', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const { unit, id } = await jobs.run(sleeper);
  const controller = jobs.get('sleeper');
  await assert.rejects(jobs.restart('sleeper', { lazy: false }), isError('job-running'));
  await controller.checkpoint({ then: 'continue' });
  await controller.checkpoint({ then: 'continue' });
  for (const [sequence, expected] of [
    [undefined, 2],
    [1, 1],
    [1, 1],
  ]) {
    node.end(unit, { signal: 9 });
    await settle();
    const options = sequence === undefined ? { lazy: false } : { lazy: false, sequence };
    const outcome = await jobs.restart('sleeper', options);
    assert.equal(outcome.sequence, expected);
    assert.equal(outcome.job.id, id);
    assertState(controller, 'running');
  }
  assert.equal(controller.job.restarts.total, 3);
});

test('R22 restart errors name what is missing', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const { unit } = await jobs.run(sleeper);
  node.end(unit, { signal: 9 });
  await settle();
  await assert.rejects(jobs.restart('nobody', { lazy: false }), isError('job-unknown'));
  await assert.rejects(jobs.restart('sleeper', { lazy: false }), isError('snapshot-none'));
  await assert.rejects(jobs.restart('sleeper', { lazy: false, sequence: 7 }), isError('snapshot-unknown'));
  assertState(jobs.get('sleeper'), 'crashed');
});

test('a damaged snapshot is passed over with a warning, unless it was named', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const { unit } = await jobs.run(sleeper);
  const controller = jobs.get('sleeper');
  for (let n = 0; n < 3; n++) await controller.checkpoint({ then: 'continue' });
  node.end(unit, { signal: 9 });
  await settle();
  const newest = node.headers[2];
  assert.ok(newest);
  newest.damaged = 'manifest-signature';
  node.script.restart = async ({ sequence }) => {
    if (sequence === 2) throw new CairnError('permanent', 'chunk-damaged', 'pack 7 at 4096');
  };
  await assert.rejects(jobs.restart('sleeper', { lazy: false, sequence: 2 }), isError('chunk-damaged'));
  await assert.rejects(jobs.restart('sleeper', { lazy: false, sequence: 3 }), isError('snapshot-damaged'));
  assertState(controller, 'crashed', 'as it was before');
  const warnings: string[] = [];
  const outcome = await jobs.restart('sleeper', {
    lazy: false,
    onProgress: (progress) => progress.kind === 'warning' && warnings.push(progress.message),
  });
  assert.equal(outcome.sequence, 1);
  assert.deepEqual(
    outcome.skipped.map(({ sequence }) => sequence),
    [3, 2],
  );
  assert.equal(warnings.length, 2);
});

test('a temporary failure of a restart is reported and does not lead to an older snapshot', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const { unit } = await jobs.run(sleeper);
  for (let n = 0; n < 2; n++) await jobs.get('sleeper').checkpoint({ then: 'continue' });
  node.end(unit, { signal: 9 });
  await settle();
  node.script.restart = async () => {
    throw new CairnError('temporary', 'address-taken', 'somebody has it');
  };
  await assert.rejects(jobs.restart('sleeper', { lazy: false }), isError('address-taken'));
  assert.equal(node.eventsOf('restart-started').length, 1);
});

test('R23 a second copy needs --clone and gets its own name, unit and no ports', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const first = await jobs.run({ ...sleeper, network: { address: '10.213.0.9', ports: ['8080:80'] } });
  await jobs.get('sleeper').checkpoint({ then: 'continue' });
  let asked: unknown;
  node.script.restart = async (request) => {
    asked = request.overrides;
  };
  const { job } = await jobs.clone('sleeper', { lazy: false });
  assert.equal(job.name, 'sleeper-clone');
  assert.notEqual(job.id, first.id);
  assert.notEqual(job.unit, first.unit);
  assert.deepEqual(job.description.network, {});
  assert.deepEqual(asked, { address: null, ports: [] });
  assertState(jobs.get('sleeper'), 'running');
  await assert.rejects(jobs.clone('sleeper', { lazy: false, name: 'sleeper' }), isError('job-name-taken'));
  await assert.rejects(jobs.clone('sleeper', { lazy: false, name: 'a/b' }), isError('job-name-invalid'));
});

test('a clone that cannot be restarted does not exist', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  await jobs.run(sleeper);
  await jobs.get('sleeper').checkpoint({ then: 'continue' });
  node.script.restart = async () => {
    throw new CairnError('permanent', 'chunk-damaged', 'bad');
  };
  await assert.rejects(jobs.clone('sleeper', { lazy: false, sequence: 1 }), isError('chunk-damaged'));
  assert.deepEqual(
    jobs.list().map(({ name }) => name),
    ['sleeper'],
  );
});

test('X12 a removed job keeps its snapshots and comes back from them', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const { id } = await jobs.run(sleeper);
  await jobs.get('sleeper').checkpoint({ then: 'terminate' });
  await jobs.get('sleeper').remove({ force: false, snapshots: false });
  assert.deepEqual(await jobs.identify('sleeper'), { id, name: 'sleeper' });
  const { job } = await jobs.restart('sleeper', { lazy: false });
  assert.equal(job.id, id);
  assert.deepEqual(job.description.command, sleeper.command);
  await jobs.get('sleeper').remove({ force: true, snapshots: true });
  assert.deepEqual(node.headers, []);
  await assert.rejects(jobs.restart('sleeper', { lazy: false }), isError('job-unknown'));
});
