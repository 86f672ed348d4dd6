import assert from 'node:assert/strict';
import test from 'node:test';
import { CairnError } from '../errors.ts';
import {
  exitCodeOf,
  failureOf,
  isFinal,
  isResting,
  type JobAction,
  type JobState,
  nextState,
  parseJob,
} from './job.ts';

const since = '2026-11-27T10:00:00.000Z';
const startedAt = '2026-11-27T09:00:00.000Z';
const now = new Date('2026-11-27T11:00:00.000Z');
const failure = { class: 'temporary' as const, code: 'x', message: 'x', lines: [] };

const states: { [K in JobState['kind']]: Extract<JobState, { kind: K }> } = {
  created: { kind: 'created', since },
  starting: { kind: 'starting', since },
  running: { kind: 'running', since, startedAt },
  checkpointing: { kind: 'checkpointing', since, startedAt, sequence: 3, then: 'continue' },
  suspended: { kind: 'suspended', since, startedAt },
  stopping: { kind: 'stopping', since, startedAt },
  restarting: { kind: 'restarting', since, sequence: 3, before: { kind: 'exited', since, code: 7 } },
  exited: { kind: 'exited', since, code: 7 },
  stopped: { kind: 'stopped', since, ending: { signal: 15 } },
  crashed: { kind: 'crashed', since, ending: { signal: 11 } },
  failed: { kind: 'failed', since, failure },
  removing: { kind: 'removing', since },
};

const actions: { [K in JobAction['kind']]: Extract<JobAction, { kind: K }> } = {
  start: { kind: 'start' },
  started: { kind: 'started' },
  'start-failed': { kind: 'start-failed', failure },
  checkpoint: { kind: 'checkpoint', sequence: 4, then: 'continue' },
  checkpointed: { kind: 'checkpointed' },
  'checkpoint-failed': { kind: 'checkpoint-failed' },
  suspend: { kind: 'suspend' },
  resume: { kind: 'resume' },
  stop: { kind: 'stop' },
  restart: { kind: 'restart', sequence: 3 },
  restarted: { kind: 'restarted' },
  'restart-failed': { kind: 'restart-failed' },
  ended: { kind: 'ended', ending: { code: 7 }, crash: false },
  'retry-later': { kind: 'retry-later', next: { at: since, by: 'restart' } },
  'give-up': { kind: 'give-up', reason: 'x' },
  remove: { kind: 'remove' },
};

/** Every action that makes sense in a state, with the state that follows; all others are refused. */
const table: { [K in JobState['kind']]: Partial<Record<JobAction['kind'], JobState['kind']>> } = {
  created: { start: 'starting', restart: 'restarting', remove: 'removing' },
  starting: { started: 'running', 'start-failed': 'failed', ended: 'exited', remove: 'removing' },
  running: {
    checkpoint: 'checkpointing',
    suspend: 'suspended',
    stop: 'stopping',
    ended: 'exited',
    remove: 'removing',
  },
  checkpointing: {
    checkpointed: 'running',
    'checkpoint-failed': 'running',
    stop: 'stopping',
    ended: 'exited',
    remove: 'removing',
  },
  suspended: { resume: 'running', stop: 'stopping', ended: 'exited', remove: 'removing' },
  stopping: { ended: 'stopped', remove: 'removing' },
  restarting: { restarted: 'running', 'restart-failed': 'exited', remove: 'removing' },
  exited: { start: 'starting', restart: 'restarting', remove: 'removing' },
  stopped: { start: 'starting', restart: 'restarting', remove: 'removing' },
  crashed: {
    start: 'starting',
    restart: 'restarting',
    'retry-later': 'crashed',
    'give-up': 'crashed',
    remove: 'removing',
  },
  failed: { start: 'starting', restart: 'restarting', remove: 'removing' },
  removing: {},
};

test('every action in every state leads where the diagram says, or is refused', () => {
  for (const state of Object.values(states)) {
    for (const action of Object.values(actions)) {
      const next = nextState(state, action, now);
      assert.equal(next?.kind, table[state.kind][action.kind], `${action.kind} in ${state.kind}`);
    }
  }
});

test('a checkpoint leads where its "then" says', () => {
  const after = (then: 'continue' | 'stop' | 'terminate'): JobState | undefined =>
    nextState({ ...states.checkpointing, then }, actions.checkpointed, now);
  assert.deepEqual(after('continue'), { kind: 'running', since: now.toISOString(), startedAt });
  assert.deepEqual(after('stop'), { kind: 'suspended', since: now.toISOString(), startedAt, sequence: 3 });
  assert.deepEqual(after('terminate'), {
    kind: 'stopped',
    since: now.toISOString(),
    ending: { signal: 9 },
    sequence: 3,
  });
});

test('an end by a signal, or that a policy takes for one, is a crash', () => {
  const end = (action: Partial<Extract<JobAction, { kind: 'ended' }>>): JobState | undefined =>
    nextState(states.running, { ...actions.ended, ...action }, now);
  assert.equal(end({ ending: { signal: 9 } })?.kind, 'crashed');
  assert.equal(end({ ending: { lost: true } })?.kind, 'crashed');
  assert.equal(end({ ending: { code: 1 }, crash: true })?.kind, 'crashed');
  assert.equal(end({ ending: { code: 1 }, crash: false })?.kind, 'exited');
});

test('a failed restart gives exactly the state back that was there before', () => {
  for (const state of Object.values(states).filter(isResting)) {
    const during = nextState(state, actions.restart, now);
    assert.ok(during);
    assert.deepEqual(nextState(during, actions['restart-failed'], now), state);
  }
});

test('a crash that will be tried again is not final', () => {
  assert.equal(isFinal(states.crashed), true);
  const planned = nextState(states.crashed, actions['retry-later'], now);
  assert.ok(planned);
  assert.equal(isFinal(planned), false);
  const gaveUp = nextState(planned, actions['give-up'], now);
  assert.ok(gaveUp);
  assert.equal(isFinal(gaveUp), true);
  assert.equal('next' in gaveUp, false);
});

test('R22 exit codes are those of a shell', () => {
  assert.equal(exitCodeOf(states.exited), 7);
  assert.equal(exitCodeOf(states.crashed), 139);
  assert.equal(exitCodeOf(states.stopped), 143);
  assert.equal(exitCodeOf({ ...states.crashed, ending: { lost: true } }), 1);
});

test('a job survives the way into the state and back; anything else is refused', () => {
  const job = {
    id: 'j-0123456789ab',
    name: 'redis',
    createdAt: since,
    unit: 'u-0123456789ab',
    description: { name: 'redis', command: ['redis-server'] },
    state: states.restarting,
    restarts: { total: 1, attempts: 0, lastSequence: 3 },
    checkpoints: { failures: 0, lastFailure: { at: since, sequence: 2, failure } },
  };
  assert.deepEqual(parseJob(JSON.parse(JSON.stringify(job))), job);
  for (const broken of [
    {},
    { ...job, state: { kind: 'dancing' } },
    { ...job, state: { kind: 'running', since } },
  ]) {
    assert.throws(
      () => parseJob(broken),
      (error) => error instanceof CairnError && error.code === 'job-record-invalid',
    );
  }
});

test('an unexpected error becomes a failure that says so', () => {
  const made = failureOf(new TypeError('oops'));
  assert.equal(made.code, 'internal');
  assert.match(made.message, /oops/);
  assert.ok(made.lines.length > 0, 'with the place where it happened');
});
