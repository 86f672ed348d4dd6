import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { backOffMs, decideRecovery, isCrash, type RecoveryFacts } from './recovery.ts';
import { expiredSnapshots, type RetainedSnapshot } from './retention.ts';
import { nextCheckpointAt } from './schedule.ts';

test('a checkpoint is due one interval after the start or the last one, later after failures', () => {
  const facts = { everyMs: 1000, startedAt: 5000, failures: 0 };
  assert.equal(nextCheckpointAt(facts), 6000);
  assert.equal(nextCheckpointAt({ ...facts, lastAttemptAt: 7500 }), 8500);
  assert.equal(nextCheckpointAt({ ...facts, lastAttemptAt: 1000 }), 6000, 'a restart counts as a start');
  assert.equal(nextCheckpointAt({ ...facts, lastAttemptAt: 7500, failures: 3 }), 15_500);
  assert.equal(nextCheckpointAt({ ...facts, failures: 50 }), 37_000, 'at most 32 times');
});

const snapshotsOf = fc
  .array(
    fc.record({
      createdAt: fc.integer({ min: 0, max: 1_000_000 }),
      bytes: fc.integer({ min: 0, max: 1000 }),
      pinned: fc.boolean(),
    }),
    { maxLength: 12 },
  )
  .map((list): RetainedSnapshot[] => list.map((snapshot, place) => ({ ...snapshot, sequence: place + 1 })));
const policyOf = fc.record(
  {
    keep: fc.integer({ min: 1, max: 5 }),
    maxAgeMs: fc.integer({ min: 0, max: 1_000_000 }),
    maxBytes: fc.integer({ min: 0, max: 3000 }),
  },
  { requiredKeys: [] },
);

test('H05 retention never removes the newest or a pinned snapshot, and keeps to its limits', () => {
  fc.assert(
    fc.property(snapshotsOf, policyOf, (snapshots, policy) => {
      const now = 1_000_000;
      const expired = new Set(expiredSnapshots(snapshots, policy, now).map(({ sequence }) => sequence));
      const kept = snapshots.filter(({ sequence, pinned }) => !expired.has(sequence) && !pinned);
      for (const { sequence, pinned } of snapshots) {
        if (pinned || sequence === snapshots.length) assert.ok(!expired.has(sequence));
      }
      if (policy.keep !== undefined) assert.ok(kept.length <= policy.keep);
      for (const snapshot of kept) {
        if (snapshot.sequence === snapshots.length) continue;
        if (policy.maxAgeMs !== undefined) assert.ok(now - snapshot.createdAt <= policy.maxAgeMs);
      }
      const bytes = kept.reduce((sum, snapshot) => sum + snapshot.bytes, 0);
      if (policy.maxBytes !== undefined && kept.length > 1) {
        const newest = kept.find(({ sequence }) => sequence === snapshots.length);
        assert.ok(bytes <= Math.max(policy.maxBytes, newest?.bytes ?? 0));
      }
      if (Object.keys(policy).length === 0) assert.equal(expired.size, 0);
    }),
    { verbose: true },
  );
});

test('retention gives the reason, the oldest first', () => {
  const snapshots = [1, 2, 3, 4].map((sequence) => ({
    sequence,
    createdAt: sequence * 10,
    bytes: 10,
    pinned: false,
  }));
  assert.deepEqual(expiredSnapshots(snapshots, { keep: 2 }, 50), [
    { sequence: 1, reason: 'keep' },
    { sequence: 2, reason: 'keep' },
  ]);
  assert.deepEqual(expiredSnapshots(snapshots, { maxAgeMs: 25 }, 50), [
    { sequence: 1, reason: 'age' },
    { sequence: 2, reason: 'age' },
  ]);
  assert.deepEqual(expiredSnapshots(snapshots, { maxBytes: 35 }, 50), [{ sequence: 1, reason: 'bytes' }]);
});

const crash: RecoveryFacts = {
  policy: { policy: 'on-failure', limit: 5, fromStart: false },
  ending: { signal: 11 },
  attempts: 0,
  ranMs: 1000,
  hasSnapshot: true,
};

test('R27 recovery follows the policy', () => {
  const kind = (facts: Partial<RecoveryFacts>, policy: Partial<RecoveryFacts['policy']> = {}): string =>
    decideRecovery({ ...crash, ...facts, policy: { ...crash.policy, ...policy } }).kind;
  assert.equal(kind({}), 'restart');
  assert.equal(kind({}, { policy: 'no' }), 'finished');
  assert.equal(kind({ ending: { code: 1 } }), 'restart');
  assert.equal(kind({ ending: { code: 0 } }), 'finished');
  assert.equal(kind({ ending: { code: 0 } }, { policy: 'always' }), 'start-over');
  assert.equal(kind({ ending: { lost: true } }), 'restart');
  assert.equal(kind({ hasSnapshot: false }), 'give-up');
  assert.equal(kind({ hasSnapshot: false }, { fromStart: true }), 'start-over');
  assert.equal(kind({ attempts: 5 }), 'give-up');
  assert.equal(kind({ attempts: 5, ranMs: 60_000 }), 'restart', 'it had lasted');
  assert.equal(kind({}, { limit: 0 }), 'give-up');
});

test('recovery waits longer each time, at most a minute', () => {
  assert.deepEqual([0, 1, 2, 3, 7, 100].map(backOffMs), [0, 1000, 2000, 4000, 60_000, 60_000]);
  assert.deepEqual(decideRecovery({ ...crash, attempts: 2 }), {
    kind: 'restart',
    delayMs: 2000,
    attempts: 3,
  });
});

test('an exit code other than 0 is a crash only for a policy that acts on it', () => {
  assert.equal(isCrash('no', { code: 1 }), false);
  assert.equal(isCrash('on-failure', { code: 1 }), true);
  assert.equal(isCrash('always', { code: 0 }), false);
  assert.equal(isCrash('no', { signal: 9 }), true);
});
