import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Job, JobState } from './job.ts';
import type { JobUnitStatus } from './ports.ts';
import { reconcile } from './reconcile.ts';

function found(state: Partial<JobState>, unit: JobUnitStatus['state'] | undefined, published = false) {
  const job = { name: 'job', state: { since: '', ...state } } as Job;
  return reconcile(
    { job, unit: unit === undefined ? undefined : ({ state: unit } as JobUnitStatus), published },
    () => true,
  );
}

test('R19 a job that rests loses what its unit has left: its end may have been interrupted', () => {
  for (const kind of ['exited', 'crashed', 'stopped', 'failed'] as const) {
    assert.deepEqual(found({ kind }, 'exited'), { kind: 'clean-unit', actions: [] });
    assert.deepEqual(found({ kind }, undefined), { kind: 'act', actions: [] });
    assert.deepEqual(found({ kind }, 'running'), { kind: 'adopt' });
  }
});

test('R19 a restart has happened if the unit runs, and not otherwise', () => {
  const state = { kind: 'restarting', before: { kind: 'crashed' } } as JobState;
  assert.deepEqual(found(state, 'running'), { kind: 'act', actions: [{ kind: 'restarted' }] });
  for (const unit of ['prepared', 'exited', 'gone'] as const)
    assert.deepEqual(found(state, unit), { kind: 'clean-unit', actions: [{ kind: 'restart-failed' }] });
});
