import { CairnError, messageOf } from '../errors.ts';
import type { Ending, Job, JobAction } from './job.ts';
import type { JobRecord } from './job-record.ts';
import type { Clock } from './ports.ts';
import { decideRecovery, isCrash, type RecoveryDecision, type RecoveryPolicy } from './recovery.ts';

/** The restart policy of a job with its defaults. */
export function policyOf(job: Job): RecoveryPolicy {
  const { policy = 'no', limit = 5, fromStart = policy === 'always' } = job.description.restart ?? {};
  return { policy, limit, fromStart };
}

/** What a recovery does to a job. */
export interface RecoveryEffects {
  /** From the beginning. */
  start(): Promise<unknown>;
  /** From the newest valid snapshot. */
  restart(signal: AbortSignal): Promise<unknown>;
}

/** Carries the restart policy of one job out. To be called by the queue of the job only. */
export class JobRecovery {
  readonly #clock: Clock;
  readonly #record: JobRecord;
  readonly #effects: RecoveryEffects;

  constructor(clock: Clock, record: JobRecord, effects: RecoveryEffects) {
    this.#clock = clock;
    this.#record = record;
    this.#effects = effects;
  }

  /** Notes how the processes ended, together with what will be done about it. Says whether the job will come back by itself. */
  async ended(ending: Ending): Promise<boolean> {
    const { job } = this.#record;
    if (job.state.kind === 'stopping') {
      await this.#record.apply([{ kind: 'ended', ending, crash: false }]);
      return false;
    }
    const startedAt = 'startedAt' in job.state ? Date.parse(job.state.startedAt) : this.#clock.now();
    const decision = this.#decide(ending, this.#clock.now() - startedAt);
    const crash = decision.kind !== 'finished' || isCrash(policyOf(job).policy, ending);
    return this.#note(decision, [{ kind: 'ended', ending, crash }]);
  }

  /** Decides about a crash of which it is not known what should be done: the daemon died in between, or a restart was interrupted. */
  async decideAgain(): Promise<void> {
    const { state } = this.#record;
    if (state.kind !== 'crashed' || state.next !== undefined || state.gaveUp !== undefined) return;
    await this.#note(this.#decide(state.ending, 0), []);
  }

  /** Does what was planned. When that fails the next attempt is planned, or the policy gives up. */
  async attempt(signal: AbortSignal): Promise<void> {
    const { state } = this.#record;
    if (state.kind !== 'crashed' || state.next === undefined) return;
    try {
      if (state.next.by === 'start-over') await this.#effects.start();
      else await this.#effects.restart(signal);
    } catch (error) {
      this.#record.tell({ kind: 'job-warning', message: `its recovery failed: ${messageOf(error)}` });
      if (!signal.aborted) await this.#failed(state.ending, error);
    }
  }

  async #failed(ending: Ending, error: unknown): Promise<void> {
    // A failed start is a state of its own: what could not be started will not be tried again.
    if (this.#record.state.kind !== 'crashed') return;
    const hopeless =
      error instanceof CairnError && (error.class === 'permanent' || error.code === 'snapshot-none');
    await this.#note(this.#decide(ending, 0, !hopeless), []);
  }

  #decide(ending: Ending, ranMs: number, snapshotUsable = true): RecoveryDecision {
    const { job } = this.#record;
    const { checkpoints, restarts, clonedFrom } = job;
    // Whether one of them is valid shows when it is tried.
    const some =
      checkpoints.lastAt !== undefined || restarts.lastSequence !== undefined || clonedFrom !== undefined;
    return decideRecovery({
      policy: policyOf(job),
      ending,
      attempts: restarts.attempts,
      ranMs,
      hasSnapshot: some && snapshotUsable,
    });
  }

  async #note(decision: RecoveryDecision, before: readonly JobAction[]): Promise<boolean> {
    switch (decision.kind) {
      case 'finished':
        if (before.length > 0) await this.#record.apply(before);
        return false;
      case 'give-up':
        await this.#record.apply([...before, { kind: 'give-up', reason: decision.reason }]);
        this.#record.tell({ kind: 'recovery-ended', reason: decision.reason });
        return false;
      case 'restart':
      case 'start-over': {
        const { kind, delayMs, attempts } = decision;
        const next = { at: new Date(this.#clock.now() + delayMs).toISOString(), by: kind };
        const restarts = { ...this.#record.job.restarts, attempts };
        await this.#record.apply([...before, { kind: 'retry-later', next }], { restarts });
        this.#record.tell({ kind: 'recovery-planned', decision: kind, inMs: delayMs });
        return true;
      }
      default:
        return decision satisfies never;
    }
  }
}
