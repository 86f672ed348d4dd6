import { messageOf } from '../errors.ts';
import type { JobRecord } from './job-record.ts';
import { policyOf } from './job-recovery.ts';
import type { JobsPorts, JobUnit } from './ports.ts';
import { reconcile } from './reconcile.ts';
import { isCrash } from './recovery.ts';

/** What a reconciliation can ask for besides a change of the state. */
export interface ReconciliationEffects<U> {
  stop(): Promise<void>;
  remove(): Promise<void>;
  /** Ends what an unfinished start or restart left. */
  discard(unit: U | undefined): Promise<void>;
}

/** Makes the state of a job and its unit agree after the daemon was away; see `reconcile`. Says whether the job has been removed. */
export async function reconcileJob<U extends JobUnit>(
  ports: JobsPorts<U>,
  record: JobRecord,
  unit: U | undefined,
  effects: ReconciliationEffects<U>,
): Promise<boolean> {
  const { job } = record;
  const { state } = job;
  if (unit !== undefined) {
    await unit.settle();
    await ports.checkpointer.recover(unit);
    await unit.ensureMonitored().catch((error: unknown) => {
      record.tell({ kind: 'job-warning', message: `nobody keeps its output: ${messageOf(error)}` });
    });
  }
  const status = await unit?.status();
  const published =
    state.kind === 'checkpointing' &&
    (await ports.snapshots.snapshots(job.id)).some(
      (header) => header.sequence === state.sequence && header.damaged === undefined,
    );
  const todo = reconcile({ job, unit: status, published }, (ending) => isCrash(policyOf(job).policy, ending));
  switch (todo.kind) {
    case 'act':
    case 'resume-unit':
    case 'clean-unit':
      if (todo.kind === 'resume-unit') await unit?.resume();
      if (todo.kind === 'clean-unit') await effects.discard(unit);
      if (todo.actions.length > 0) await record.apply(todo.actions);
      return false;
    case 'stop':
      await effects.stop();
      return false;
    case 'remove':
      await effects.remove();
      return true;
    case 'adopt': {
      const since = new Date(ports.clock.now()).toISOString();
      await record.adopt({
        kind: status?.state === 'suspended' ? 'suspended' : 'running',
        since,
        startedAt: since,
      });
      return false;
    }
    default:
      return todo satisfies never;
  }
}
