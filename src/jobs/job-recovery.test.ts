import assert from 'node:assert/strict';
import test from 'node:test';
import { CairnError } from '../errors.ts';
import type { JobDescription } from './description.ts';
import { FakeNode, settle } from './fake-node.ts';
import type { JobState } from './job.ts';

const sleeper: JobDescription = { name: 'sleeper', command: ['sleep', '1000'] };

function assertState(controller: { state: JobState }, kind: JobState['kind'], message?: string): void {
  assert.equal(controller.state.kind, kind, message ?? 'state of the job');
}

test('R27 on-failure brings a crashed job back from its newest snapshot, and backs off', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const { unit } = await jobs.run({ ...sleeper, restart: { policy: 'on-failure', limit: 3 } });
  const controller = jobs.get('sleeper');
  await controller.checkpoint({ then: 'continue' });
  node.end(unit, { signal: 11 });
  await settle();
  await node.clock.advance(0);
  assertState(controller, 'running', 'the first time at once');
  assert.equal(controller.job.restarts.total, 1);
  node.end(unit, { exitCode: 1 });
  await settle();
  assertState(controller, 'crashed', 'then it waits');
  await node.clock.advance(1000);
  assertState(controller, 'running');
  node.end(unit, { signal: 11 });
  await node.clock.advance(2000);
  assertState(controller, 'running');
  node.end(unit, { signal: 11 });
  await node.clock.advance(100_000);
  assertState(controller, 'crashed');
  assert.match(controller.state.kind === 'crashed' ? (controller.state.gaveUp ?? '') : '', /limit/);
});

test('a job that lasts has recovered: its attempts are counted anew', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const { unit } = await jobs.run({ ...sleeper, restart: { policy: 'on-failure', limit: 1 } });
  const controller = jobs.get('sleeper');
  await controller.checkpoint({ then: 'continue' });
  for (let n = 0; n < 4; n++) {
    node.end(unit, { signal: 11 });
    await settle();
    await node.clock.advance(61_000);
    assertState(controller, 'running');
  }
});

test('a job that ended with 0 is finished for on-failure, and starts anew for always', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const one = await jobs.run({ name: 'one', command: ['x'], restart: { policy: 'on-failure' } });
  const two = await jobs.run({ name: 'two', command: ['x'], restart: { policy: 'always' } });
  node.end(one.unit, { exitCode: 0 });
  node.end(two.unit, { exitCode: 0 });
  await node.clock.advance(0);
  assertState(jobs.get('one'), 'exited');
  assertState(jobs.get('two'), 'running');
});

test('without a snapshot on-failure gives up, and starts anew if the job says so', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const one = await jobs.run({ name: 'one', command: ['x'], restart: { policy: 'on-failure' } });
  const two = await jobs.run({
    name: 'two',
    command: ['x'],
    restart: { policy: 'on-failure', fromStart: true },
  });
  node.end(one.unit, { exitCode: 1 });
  node.end(two.unit, { exitCode: 1 });
  await node.clock.advance(0);
  assertState(jobs.get('one'), 'crashed');
  assertState(jobs.get('two'), 'running');
});

test('a job that the user stopped is not brought back', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  await jobs.run({ ...sleeper, restart: { policy: 'always' } });
  const controller = jobs.get('sleeper');
  await controller.checkpoint({ then: 'continue' });
  await controller.stop({ graceMs: 1 });
  await node.clock.advance(100_000);
  assertState(controller, 'stopped');
});

test('a user who stops a job that is about to be brought back is obeyed', async () => {
  await using node = new FakeNode();
  const { jobs } = node.daemon();
  const { unit } = await jobs.run({ ...sleeper, restart: { policy: 'on-failure' } });
  const controller = jobs.get('sleeper');
  await controller.checkpoint({ then: 'continue' });
  node.script.restart = async () => {
    throw new CairnError('temporary', 'busy', 'not now');
  };
  node.end(unit, { signal: 11 });
  await node.clock.advance(0);
  assert.ok(controller.state.kind === 'crashed' && controller.state.next !== undefined);
  await controller.stop({ graceMs: 1 });
  delete node.script.restart;
  await node.clock.advance(100_000);
  assertState(controller, 'crashed');
});
