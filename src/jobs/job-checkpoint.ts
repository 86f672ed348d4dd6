import { CairnError, messageOf } from '../errors.ts';
import type { OperationProgress, Trigger } from './events.ts';
import { type AfterCheckpoint, failureOf } from './job.ts';
import type { JobRecord } from './job-record.ts';
import { endingOf } from './reconcile.ts';
import { abortError } from './operation-queue.ts';
import { expiredSnapshots, type RetentionPolicy } from './retention.ts';
import type { CheckpointOutcome, JobsPorts, JobUnit, PreflightAnswer } from './ports.ts';
import { parseBytes, parseDuration } from './quantities.ts';
import type { JobDescription } from './description.ts';

/** How long a checkpoint may take when nobody says otherwise, in milliseconds. */
export const defaultTimeoutMs = 60_000;

/** How many snapshots of a job that is checkpointed periodically are kept when nobody says otherwise. */
export const defaultKeep = 5;

/** How a checkpoint is wanted. */
export interface CheckpointWish {
  then: AfterCheckpoint;
  timeoutMs?: number;
  preSave?: boolean;
  stagingLimitBytes?: number;
  pinned?: boolean;
  note?: string;
}

/**
 * Takes a checkpoint of a running job (R20, R21). The state says `checkpointing` before anything happens; whatever goes wrong, the job
 * runs on and the snapshot is absent. To be called by the queue of the job only. Errors: `job-not-running`, and those of the
 * checkpoint room.
 */
export async function checkpointJob<U extends JobUnit>(
  ports: JobsPorts<U>,
  record: JobRecord,
  unit: U,
  wish: CheckpointWish,
  trigger: Trigger,
  options: { onProgress: (progress: OperationProgress) => void; signal: AbortSignal },
): Promise<CheckpointOutcome> {
  const { job } = record;
  requireRunning(record, 'checkpointed');
  const sequence = Math.max(
    await ports.snapshots.nextSequence(job.id),
    (job.checkpoints.lastSequence ?? 0) + 1,
  );
  const policy = job.description.checkpoint ?? {};
  await record.apply([{ kind: 'checkpoint', sequence, then: wish.then }], {
    checkpoints: { ...job.checkpoints, lastSequence: sequence },
  });
  record.tell({ kind: 'checkpoint-started', sequence, trigger });

  let outcome: CheckpointOutcome;
  try {
    const stagingLimitBytes =
      wish.stagingLimitBytes ??
      (policy.stagingLimit === undefined
        ? undefined
        : parseBytes(policy.stagingLimit, 'checkpoint.stagingLimit'));
    outcome = await ports.checkpointer.checkpoint({
      unit,
      job: { id: job.id, name: job.name },
      jobDescription: job.description,
      sequence,
      then: wish.then,
      deadlineMs: wish.timeoutMs ?? timeoutOf(job.description),
      preSave: wish.preSave ?? policy.preSave ?? true,
      ...(stagingLimitBytes === undefined ? {} : { stagingLimitBytes }),
      ...(wish.note === undefined ? {} : { note: wish.note }),
      ...(wish.pinned === undefined ? {} : { pinned: wish.pinned }),
      onEvent: options.onProgress,
      signal: options.signal,
    });
  } catch (thrown) {
    const error =
      options.signal.aborted && !(thrown instanceof CairnError)
        ? abortError(options.signal, 'checkpoint')
        : thrown;
    await noteFailure(ports, record, unit, sequence, trigger, error);
    throw error;
  }

  await record.apply([{ kind: 'checkpointed' }], {
    checkpoints: { failures: 0, lastAt: new Date(ports.clock.now()).toISOString(), lastSequence: sequence },
  });
  record.tell({
    kind: 'checkpoint-finished',
    sequence,
    trigger,
    frozenMs: outcome.timings.frozenMs,
    totalMs: outcome.timings.totalMs,
    storedBytes: outcome.bytes.stored,
  });
  return outcome;
}

/** Says what a checkpoint would meet, without stopping anything (H08, R18). Errors: `job-not-running`. */
export async function preflightJob<U extends JobUnit>(
  ports: JobsPorts<U>,
  record: JobRecord,
  unit: U,
  signal: AbortSignal,
): Promise<PreflightAnswer> {
  requireRunning(record, 'checkpointed');
  return ports.checkpointer.preflight(unit, { signal });
}

/** Removes the snapshots of a job that its retention policy does not keep. Returns how many went. */
export async function retainSnapshots<U extends JobUnit>(
  ports: JobsPorts<U>,
  record: JobRecord,
): Promise<number> {
  const policy = retentionOf(record.job.description);
  if (policy === undefined) return 0;
  const snapshots = await ports.snapshots.snapshots(record.job.id);
  const expired = expiredSnapshots(
    snapshots
      .filter((header) => header.damaged === undefined)
      .map((header) => ({
        sequence: header.sequence,
        createdAt: Date.parse(header.createdAt),
        bytes: header.storedBytes + header.manifestBytes,
        pinned: header.pinned,
      })),
    policy,
    ports.clock.now(),
  );
  for (const { sequence, reason } of expired) {
    await ports.snapshots.removeSnapshot(record.job.id, sequence);
    record.tell({ kind: 'snapshot-removed', sequence, reason });
  }
  return expired.length;
}

/** The retention policy of a description; `undefined` if it keeps everything. */
export function retentionOf(description: JobDescription): RetentionPolicy | undefined {
  const { every, keep, maxAge, maxBytes } = description.checkpoint ?? {};
  const policy: RetentionPolicy = {};
  if (keep !== undefined) policy.keep = keep;
  else if (every !== undefined && maxAge === undefined && maxBytes === undefined) policy.keep = defaultKeep;
  if (maxAge !== undefined) policy.maxAgeMs = parseDuration(maxAge, 'checkpoint.maxAge');
  if (maxBytes !== undefined) policy.maxBytes = parseBytes(maxBytes, 'checkpoint.maxBytes');
  return Object.keys(policy).length === 0 ? undefined : policy;
}

/** How long a checkpoint of this job may take, in milliseconds. */
export function timeoutOf(description: JobDescription): number {
  const timeout = description.checkpoint?.timeout;
  return timeout === undefined ? defaultTimeoutMs : parseDuration(timeout, 'checkpoint.timeout');
}

/** Throws `job-not-running` unless the job is running. `done` completes the sentence "it cannot be …". */
export function requireRunning(record: JobRecord, done: string): void {
  const { name, state } = record.job;
  if (state.kind === 'running') return;
  const remedy =
    state.kind === 'suspended'
      ? `Let it run on with "cairn resume ${name}" first.`
      : state.kind === 'exited' || state.kind === 'stopped' || state.kind === 'crashed'
        ? `Bring it back with "cairn restart ${name}" first.`
        : 'Wait until it runs; "cairn jobs -a" shows the states of all jobs.';
  throw new CairnError(
    'argument',
    'job-not-running',
    `The job ${name} is ${state.kind}: it cannot be ${done}.`,
    {
      remedy,
    },
  );
}

async function noteFailure<U extends JobUnit>(
  ports: JobsPorts<U>,
  record: JobRecord,
  unit: U,
  sequence: number,
  trigger: Trigger,
  error: unknown,
): Promise<void> {
  const failure = failureOf(error);
  const status = await unit.status().catch(() => undefined);
  // R21: whatever the checkpoint had frozen runs on.
  let stuck: unknown;
  try {
    if (status?.state === 'suspended') await unit.resume();
  } catch (thrown) {
    stuck = thrown;
  }
  const { checkpoints } = record.job;
  const at = new Date(ports.clock.now()).toISOString();
  const brokenOff = failure.code === 'aborted' || failure.code === 'node-stopping';
  await record.apply([{ kind: 'checkpoint-failed' }], {
    checkpoints: {
      ...checkpoints,
      failures: brokenOff ? checkpoints.failures : checkpoints.failures + 1,
      lastFailure: { at, sequence, failure },
    },
  });
  record.tell({ kind: 'checkpoint-failed', sequence, trigger, failure });
  if (stuck !== undefined)
    record.tell({ kind: 'job-warning', message: `could not be resumed: ${messageOf(stuck)}` });
  if (status?.state === 'exited' || status?.state === 'gone') {
    record.tell({
      kind: 'job-warning',
      message: `ended during the checkpoint: ${JSON.stringify(endingOf(status))}`,
    });
  }
}
