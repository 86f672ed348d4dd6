import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { State } from '../cluster/state.ts';
import { CairnError } from '../errors.ts';
import { FakeClock } from './fake-node.ts';
import type { Job } from './job.ts';
import { JobRecord } from './job-record.ts';

/** A state of which only what a record needs works, on a disk that can be full. */
function stateOnDisk() {
  const written: Job[] = [];
  const disk = { full: false, written };
  const state = {
    async compareAndSwap(_key: string, expected: number, job: Job) {
      if (disk.full) throw new CairnError('temporary', 'state-write', 'database or disk is full');
      if (expected !== written.length) return undefined;
      return written.push(job);
    },
  } as unknown as State;
  return { disk, state };
}

test('R19 what has happened is known although the disk is full, and is written when there is space', async () => {
  const clock = new FakeClock();
  const { disk, state } = stateOnDisk();
  const job = { id: 'j-1', name: 'one', state: { kind: 'created', since: '' } } as Job;
  const record = await JobRecord.create({ state, clock, emit: () => {} }, job);
  await record.apply([{ kind: 'start' }]);
  await record.apply([{ kind: 'started' }]);
  await record.apply([{ kind: 'checkpoint', sequence: 1, then: 'continue' }]);
  disk.full = true;
  await record.apply([{ kind: 'checkpoint-failed' }]);
  assert.equal(record.state.kind, 'running');
  // Nothing may begin that is not written down.
  await assert.rejects(record.apply([{ kind: 'checkpoint', sequence: 2, then: 'continue' }]), {
    code: 'state-write',
  });
  assert.equal(record.state.kind, 'running');
  await clock.advance(3000);
  assert.equal(disk.written.at(-1)?.state.kind, 'checkpointing');
  disk.full = false;
  await clock.advance(1000);
  assert.equal(disk.written.at(-1)?.state.kind, 'running');
  const count = disk.written.length;
  await clock.advance(10_000);
  assert.equal(disk.written.length, count);
  await record.apply([{ kind: 'checkpoint', sequence: 2, then: 'continue' }]);
  assert.equal(disk.written.at(-1)?.state.kind, 'checkpointing');
});
