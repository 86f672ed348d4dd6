import assert from 'node:assert/strict';
import test from 'node:test';
import type { JobDescription } from './description.ts';
import { FakeNode, type FakeUnit, settle } from './fake-node.ts';
import type { Job } from './job.ts';
import type { Jobs } from './jobs.ts';

const sleeper: JobDescription = { name: 'sleeper', command: ['sleep', '1000'] };

/** What the daemon was doing when it was killed: what was there before, what it does, and what must hold afterwards. */
interface Case {
  description?: JobDescription;
  before: (node: FakeNode, jobs: Jobs<FakeUnit>, job: Job) => Promise<void>;
  during: (jobs: Jobs<FakeUnit>) => Promise<unknown>;
  after: (node: FakeNode, job: Job | undefined, unit: string | undefined) => void;
}

/** Kills the daemon at every point of an operation, one after the other, and looks at what the next daemon makes of it. */
async function killAtEveryPoint(scenario: Case): Promise<void> {
  for (let dieAt = 1; ; dieAt++) {
    await using node = new FakeNode();
    const first = node.daemon();
    const job = await first.jobs.run(scenario.description ?? sleeper);
    await scenario.before(node, first.jobs, job);
    await first.jobs.close();

    const second = node.daemon();
    await second.jobs.recover();
    const base = second.points();
    await second.jobs.close();
    const doomed = node.daemon(base + dieAt);
    await doomed.jobs.recover();
    const operation = scenario.during(doomed.jobs).then(
      () => 'done',
      () => 'failed',
    );
    const outcome = await Promise.race([operation, doomed.died.then(() => 'died')]);

    const third = node.daemon();
    await third.jobs.recover();
    await node.clock.advance(0);
    const [found] = third.jobs.list();
    const where = `killed at point ${dieAt}: ${JSON.stringify(found?.state)}`;
    try {
      scenario.after(node, found, found === undefined ? undefined : node.units.get(found.unit)?.status.state);
      if (found === undefined) assert.equal(node.units.size, 0, 'no unit is left of a job that is gone');
    } catch (error) {
      throw new Error(where, { cause: error });
    }
    await third.jobs.close();
    if (outcome !== 'died') {
      assert.ok(dieAt > 3, 'the operation had points at which to die');
      return;
    }
  }
}

const running = (_node: FakeNode, job: Job | undefined, unit: string | undefined): void => {
  assert.equal(job?.state.kind, 'running');
  assert.equal(unit, 'running');
};

const nothing = async (): Promise<void> => {};

test('R19 a daemon killed at any point of a checkpoint leaves the job running and older snapshots current', async () => {
  await killAtEveryPoint({
    before: async (_node, jobs) => void (await jobs.get('sleeper').checkpoint({ then: 'continue' })),
    during: (jobs) => jobs.get('sleeper').checkpoint({ then: 'continue' }),
    after: (node, job, unit) => {
      running(node, job, unit);
      assert.equal(node.headers[0]?.sequence, 1);
    },
  });
});

test('R19 a daemon killed at any point of checkpoint --then stop leaves the job suspended with its snapshot, or running', async () => {
  await killAtEveryPoint({
    before: nothing,
    during: (jobs) => jobs.get('sleeper').checkpoint({ then: 'stop' }),
    after: (node, job, unit) => {
      assert.equal(job?.state.kind, unit);
      assert.ok(unit === 'running' || (unit === 'suspended' && node.headers.length === 1));
    },
  });
});

test('R19 a daemon killed at any point of checkpoint --then terminate leaves the job running, or ended with its snapshot', async () => {
  await killAtEveryPoint({
    before: nothing,
    during: (jobs) => jobs.get('sleeper').checkpoint({ then: 'terminate' }),
    after: (node, job, unit) => {
      if (unit === 'running') assert.equal(job?.state.kind, 'running');
      else {
        assert.equal(job?.state.kind, 'stopped');
        assert.equal(node.headers.length, 1);
      }
    },
  });
});

test('R19 a daemon killed at any point of a restart leaves the job as it was, or running', async () => {
  await killAtEveryPoint({
    before: async (node, jobs, job) => {
      await jobs.get('sleeper').checkpoint({ then: 'continue' });
      node.end(job.unit, { exitCode: 7 });
      await settle();
      assert.deepEqual(jobs.get('sleeper').state.kind, 'exited');
    },
    during: (jobs) => jobs.restart('sleeper', { lazy: false }),
    after: (_node, job, unit) => {
      if (unit === 'running') assert.equal(job?.state.kind, 'running');
      else assert.ok(job?.state.kind === 'exited' && job.state.code === 7);
    },
  });
});

test('R27 a daemon killed at any point of a recovery carries on with it', async () => {
  await killAtEveryPoint({
    description: { ...sleeper, restart: { policy: 'on-failure' } },
    before: async (_node, jobs) => void (await jobs.get('sleeper').checkpoint({ then: 'continue' })),
    during: async (jobs) => {
      const controller = jobs.get('sleeper');
      const unit = await controller.unit();
      await unit?.stop();
      for (let turn = 0; turn < 40 && controller.job.restarts.total === 0; turn++) await settle();
    },
    after: () => {},
  });
});

test('a daemon killed at any point of a stop stops the job', async () => {
  await killAtEveryPoint({
    before: nothing,
    during: (jobs) => jobs.get('sleeper').stop({ graceMs: 1 }),
    after: (node, job, unit) => {
      if (job?.state.kind === 'running') running(node, job, unit);
      else {
        assert.equal(job?.state.kind, 'stopped');
        assert.notEqual(unit, 'running');
      }
    },
  });
});

test('a daemon killed at any point of a removal leaves the job, or nothing of it', async () => {
  await killAtEveryPoint({
    before: nothing,
    during: (jobs) => jobs.get('sleeper').remove({ force: true, snapshots: false }),
    after: (node, job, unit) => {
      if (job !== undefined) running(node, job, unit);
    },
  });
});

test('a daemon killed at any point of suspend and resume finds the job as its unit is', async () => {
  await killAtEveryPoint({
    before: nothing,
    during: async (jobs) => {
      await jobs.get('sleeper').suspend();
      await jobs.get('sleeper').resume();
    },
    after: (_node, job, unit) => assert.equal(job?.state.kind, unit),
  });
});

test('a daemon killed at any point of a start leaves a running job, one that says why not, or none', async () => {
  for (let dieAt = 1; ; dieAt++) {
    await using node = new FakeNode();
    const doomed = node.daemon(dieAt);
    const operation = doomed.jobs.run(sleeper).then(() => 'done');
    const outcome = await Promise.race([operation, doomed.died.then(() => 'died')]);
    const next = node.daemon();
    await next.jobs.recover();
    const [job] = next.jobs.list();
    const unit = job === undefined ? undefined : node.units.get(job.unit)?.status.state;
    const where = `killed at point ${dieAt}: ${JSON.stringify(job?.state)}, unit ${unit}`;
    if (job === undefined) assert.equal(node.units.size, 0, where);
    else if (job.state.kind === 'failed') assert.notEqual(unit, 'running', where);
    else assert.deepEqual([job.state.kind, unit], ['running', 'running'], where);
    await next.jobs.close();
    if (outcome === 'done') return;
  }
});

test('a daemon that comes back after a reboot brings jobs back that their policy wants back', async () => {
  await using node = new FakeNode();
  const first = node.daemon();
  const one = await first.jobs.run({ name: 'one', command: ['x'], restart: { policy: 'on-failure' } });
  const two = await first.jobs.run({ name: 'two', command: ['x'] });
  await first.jobs.get('one').checkpoint({ then: 'continue' });
  await first.jobs.get('two').checkpoint({ then: 'continue' });
  await first.jobs.close();
  for (const { unit } of [one, two]) {
    const life = node.units.get(unit);
    assert.ok(life);
    life.status = { state: 'gone' };
  }
  const second = node.daemon();
  await second.jobs.recover();
  await node.clock.advance(0);
  const state = (name: string): Job['state'] => second.jobs.get(name).state;
  assert.equal(state('one').kind, 'running');
  const lost = state('two');
  assert.ok(lost.kind === 'crashed' && lost.ending.lost === true && lost.next === undefined);
  await second.jobs.close();
});

test('a daemon that comes back carries schedules on', async () => {
  await using node = new FakeNode();
  const first = node.daemon();
  await first.jobs.run({ ...sleeper, checkpoint: { every: '30s' } });
  await node.clock.advance(30_000);
  assert.equal(node.headers.length, 1);
  await first.jobs.close();
  const second = node.daemon();
  await second.jobs.recover();
  await node.clock.advance(29_000);
  assert.equal(node.headers.length, 1);
  await node.clock.advance(1000);
  assert.equal(node.headers.length, 2);
  await second.jobs.close();
});
