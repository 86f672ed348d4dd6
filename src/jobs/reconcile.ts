import { type Ending, isResting, type Job, type JobAction } from './job.ts';
import type { JobUnitStatus } from './ports.ts';

/** What was found of a job when the daemon started. */
export interface FoundJob {
  job: Job;
  /** Of its unit; `undefined` if there is none. */
  unit: JobUnitStatus | undefined;
  /** Is the snapshot in the store that was being taken when the daemon ended? */
  published: boolean;
}

/** What has to be done so that state and reality agree again. */
export type Reconciliation =
  /** The state changes to what is found; nothing else has to be done. */
  | { kind: 'act'; actions: JobAction[] }
  /** The unit goes on that the interrupted checkpoint left frozen, then the actions. */
  | { kind: 'resume-unit'; actions: JobAction[] }
  /** What an interrupted start, restart or end left goes away, then the actions. */
  | { kind: 'clean-unit'; actions: JobAction[] }
  /** An interrupted stop or removal is carried on. */
  | { kind: 'stop' }
  | { kind: 'remove' }
  /** The unit runs although the job should not: the unit is right. */
  | { kind: 'adopt' };

const nothing: Reconciliation = { kind: 'act', actions: [] };

/**
 * Compares what the state says of a job with what its unit does, after the daemon was away. Pure.
 *
 * Whatever was interrupted counts as "did not happen": an interrupted checkpoint failed (unless its snapshot was published), and the
 * job runs on; an interrupted start or restart is undone, unless it had already succeeded.
 */
export function reconcile(found: FoundJob, crash: (ending: Ending) => boolean): Reconciliation {
  const { job, unit } = found;
  const state = job.state;
  const alive = unit?.state === 'running' || unit?.state === 'suspended';
  const frozen = unit?.state === 'suspended';
  const ended = (): JobAction => {
    const ending = endingOf(unit);
    return { kind: 'ended', ending, crash: crash(ending) };
  };

  if (isResting(state)) {
    // Its end may have been interrupted too.
    if (!alive) return unit === undefined ? nothing : { kind: 'clean-unit', actions: [] };
    return { kind: 'adopt' };
  }
  switch (state.kind) {
    case 'starting':
      if (alive) return { kind: 'act', actions: [{ kind: 'started' }] };
      if (unit?.state === 'exited') return { kind: 'act', actions: [ended()] };
      return {
        kind: 'clean-unit',
        actions: [
          {
            kind: 'start-failed',
            failure: {
              class: 'temporary',
              code: 'start-interrupted',
              message: `Starting the job ${job.name} was interrupted when the node daemon ended.`,
              lines: [],
              remedy: `Run it again, after "cairn rm ${job.name}".`,
            },
          },
        ],
      };
    case 'running':
      if (frozen) return { kind: 'act', actions: [{ kind: 'suspend' }] };
      return alive ? nothing : { kind: 'act', actions: [ended()] };
    case 'suspended':
      if (frozen) return nothing;
      return { kind: 'act', actions: [alive ? { kind: 'resume' } : ended()] };
    case 'checkpointing': {
      if (!alive) {
        const done = state.then === 'terminate' && found.published;
        return { kind: 'act', actions: [done ? { kind: 'checkpointed' } : ended()] };
      }
      if (found.published && state.then === 'stop' && frozen) {
        return { kind: 'act', actions: [{ kind: 'checkpointed' }] };
      }
      const actions: JobAction[] = [{ kind: 'checkpoint-failed' }];
      return frozen ? { kind: 'resume-unit', actions } : { kind: 'act', actions };
    }
    case 'stopping':
      return alive ? { kind: 'stop' } : { kind: 'act', actions: [ended()] };
    case 'restarting':
      if (alive) return { kind: 'act', actions: [{ kind: 'restarted' }] };
      // An exit that is noted may be from before the restart: it says nothing.
      return { kind: 'clean-unit', actions: [{ kind: 'restart-failed' }] };
    case 'removing':
      return { kind: 'remove' };
    default:
      return state satisfies never;
  }
}

/** How a unit ended, as far as its monitor could note it. */
export function endingOf(unit: JobUnitStatus | undefined): Ending {
  if (unit?.state !== 'exited') return { lost: true };
  return {
    ...(unit.signal === undefined ? {} : { signal: unit.signal }),
    ...(unit.signal === undefined && unit.exitCode !== undefined ? { code: unit.exitCode } : {}),
    ...(unit.oomKilled === true ? { outOfMemory: true } : {}),
  };
}
