import { CairnError, messageOf } from '../errors.ts';
import type { OperationProgress, Trigger } from './events.ts';
import { failureOf, isResting } from './job.ts';
import type { JobRecord } from './job-record.ts';
import { abortError } from './operation-queue.ts';
import type { JobsPorts, JobUnit } from './ports.ts';

/** Which snapshot a restart begins with, and how. */
export interface RestartWish {
  /** This one and no other; otherwise the newest that is valid. */
  sequence?: number;
  /** Run before the memory has arrived. */
  lazy: boolean;
  /** The job whose snapshot it is, if it is another one (a clone). */
  from?: string;
}

/** What a restart brought. */
export interface RestartOutcome<U> {
  unit: U;
  sequence: number;
  timings: Record<string, number>;
  /** Snapshots that were passed over because they are damaged or cannot be restored. */
  skipped: { sequence: number; reason: string }[];
}

/**
 * Brings a job back from a snapshot. Without a sequence number the newest is tried, and when it can never be restored (damaged, refused)
 * the next older one, each with a warning. To be called by the queue of the job only. On failure the job is as it was before.
 * Errors: `job-running`, `snapshot-unknown`, `snapshot-none`, and those of the checkpoint room.
 */
export async function restartJob<U extends JobUnit>(
  ports: JobsPorts<U>,
  record: JobRecord,
  wish: RestartWish,
  trigger: Trigger,
  options: { onProgress: (progress: OperationProgress) => void; signal: AbortSignal },
): Promise<RestartOutcome<U>> {
  const { job } = record;
  if (!isResting(job.state)) throw runningError(record);
  const { source, candidates } = await findCandidates(ports, record, wish);
  const skipped: { sequence: number; reason: string }[] = [];
  const skip = (sequence: number, reason: string): void => {
    skipped.push({ sequence, reason });
    const message = `snapshot ${sequence} cannot be used: ${reason}`;
    options.onProgress({ kind: 'warning', message });
    record.tell({ kind: 'job-warning', message });
  };

  let lastError: unknown;
  for (const { sequence, damaged } of candidates) {
    if (damaged !== undefined) {
      lastError = damagedError(job.name, sequence, damaged);
      if (wish.sequence === undefined) skip(sequence, damaged);
      continue;
    }
    try {
      return { ...(await restartFrom(ports, record, source, sequence, wish, trigger, options)), skipped };
    } catch (error) {
      lastError = error;
      const hopeless = error instanceof CairnError && error.class === 'permanent';
      if (wish.sequence !== undefined || !hopeless || options.signal.aborted) throw error;
      skip(sequence, messageOf(error));
    }
  }
  throw lastError;
}

async function restartFrom<U extends JobUnit>(
  ports: JobsPorts<U>,
  record: JobRecord,
  source: string,
  sequence: number,
  wish: RestartWish,
  trigger: Trigger,
  options: { onProgress: (progress: OperationProgress) => void; signal: AbortSignal },
): Promise<{ unit: U; sequence: number; timings: Record<string, number> }> {
  await record.apply([{ kind: 'restart', sequence }]);
  record.tell({ kind: 'restart-started', sequence, trigger });
  const begun = ports.clock.now();
  try {
    const { unit, timings } = await ports.checkpointer.restart({
      jobId: source,
      sequence,
      unitId: record.job.unit,
      // What belongs to the other job stays with it.
      overrides: source === record.job.id ? {} : { address: null, ports: [] },
      lazy: wish.lazy,
      onEvent: options.onProgress,
      signal: options.signal,
    });
    const { restarts } = record.job;
    await record.apply([{ kind: 'restarted' }], {
      restarts: {
        ...restarts,
        total: restarts.total + (wish.from === undefined ? 1 : 0),
        lastSequence: sequence,
      },
    });
    const totalMs = ports.clock.now() - begun;
    record.tell({ kind: 'restart-finished', sequence, trigger, totalMs });
    return { unit, sequence, timings };
  } catch (thrown) {
    const error =
      options.signal.aborted && !(thrown instanceof CairnError)
        ? abortError(options.signal, 'restart')
        : thrown;
    if (record.state.kind === 'restarting') await record.apply([{ kind: 'restart-failed' }]);
    record.tell({ kind: 'restart-failed', sequence, trigger, failure: failureOf(error) });
    throw error;
  }
}

async function findCandidates<U extends JobUnit>(
  ports: JobsPorts<U>,
  record: JobRecord,
  wish: RestartWish,
): Promise<{ source: string; candidates: { sequence: number; damaged?: string }[] }> {
  const { name, id, clonedFrom } = record.job;
  const source = wish.from ?? id;
  const all = (await ports.snapshots.snapshots(source)).toSorted((a, b) => b.sequence - a.sequence);
  if (wish.sequence !== undefined) {
    const one = all.find((header) => header.sequence === wish.sequence);
    if (one !== undefined) return { source, candidates: [one] };
    const known = all.map((header) => header.sequence).join(', ');
    throw new CairnError(
      'argument',
      'snapshot-unknown',
      `The job ${name} has no snapshot ${wish.sequence}.`,
      {
        remedy: known === '' ? 'It has none at all.' : `It has ${known}; see "cairn snapshots ${name}".`,
      },
    );
  }
  if (all.length > 0) return { source, candidates: all };
  // A clone without a snapshot of its own can go back to where it came from.
  if (wish.from === undefined && clonedFrom !== undefined) {
    const { job: from, sequence } = clonedFrom;
    return findCandidates(ports, record, { ...wish, from, ...(sequence === undefined ? {} : { sequence }) });
  }
  throw new CairnError(
    'argument',
    'snapshot-none',
    `The job ${name} has no snapshot: it cannot be restarted.`,
    {
      remedy: `Take one while it runs with "cairn checkpoint ${name}".`,
    },
  );
}

/** A second copy of a running job needs `--clone` (R23). */
export function runningError(record: JobRecord): CairnError {
  const { name, state } = record.job;
  const remedy =
    state.kind === 'suspended'
      ? `Its processes are still in memory: let them run on with "cairn resume ${name}", or start a second copy with --clone.`
      : 'Stop it first, or start a second copy with --clone.';
  return new CairnError(
    'argument',
    'job-running',
    `The job ${name} is ${state.kind}: it cannot be restarted.`,
    { remedy },
  );
}

function damagedError(name: string, sequence: number, reason: string): CairnError {
  return new CairnError(
    'permanent',
    'snapshot-damaged',
    `Snapshot ${sequence} of the job ${name} is damaged: ${reason}`,
    {
      remedy: `Use an older one; "cairn snapshots ${name}" lists them.`,
    },
  );
}
