import type { Ending, Job, NextAttempt } from './job.ts';
import { decideRecovery, type RecoveryDecision, type RecoveryPolicy } from './recovery.ts';

/** The restart policy of a job with its defaults. */
export function policyOf(job: Job): RecoveryPolicy {
  const { policy = 'no', limit = 5, fromStart = policy === 'always' } = job.description.restart ?? {};
  return { policy, limit, fromStart };
}

/** What happens to a job whose processes have ended so at this time. Pure. */
export function decideFor(job: Job, ending: Ending, now: number): RecoveryDecision {
  const startedAt = 'startedAt' in job.state ? Date.parse(job.state.startedAt) : now;
  return decideRecovery({
    policy: policyOf(job),
    ending,
    attempts: job.restarts.attempts,
    ranMs: now - startedAt,
    // Whether one of them is valid shows when it is tried.
    hasSnapshot: job.checkpoints.lastAt !== undefined || job.restarts.lastSequence !== undefined,
  });
}

/** A decision to go on, as it is kept in the state of the job. */
export function describeNext(
  decision: RecoveryDecision & { kind: 'restart' | 'start-over' },
  now: number,
): NextAttempt {
  return { at: new Date(now + decision.delayMs).toISOString(), by: decision.kind };
}
