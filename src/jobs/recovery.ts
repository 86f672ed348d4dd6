import type { Ending } from './job.ts';

/** The restart policy with its defaults filled in. */
export interface RecoveryPolicy {
  policy: 'no' | 'on-failure' | 'always';
  /** Restarts in a row that did not last. */
  limit: number;
  /** Start from the beginning when no snapshot can be used. */
  fromStart: boolean;
}

/** What decides what happens to a job whose processes have ended. */
export interface RecoveryFacts {
  policy: RecoveryPolicy;
  ending: Ending;
  /** Restarts by the policy so far, one after the other without the job lasting. */
  attempts: number;
  /** How long the job ran since it was last started or restarted, in milliseconds. */
  ranMs: number;
  /** Is there a snapshot that has not been found damaged? */
  hasSnapshot: boolean;
}

/** What happens to a job whose processes have ended. */
export type RecoveryDecision =
  | { kind: 'finished' }
  | { kind: 'give-up'; reason: string }
  /** After `delayMs`; `attempts` is the new count. */
  | { kind: 'restart'; delayMs: number; attempts: number }
  | { kind: 'start-over'; delayMs: number; attempts: number };

/** A job that ran so long since its restart has recovered: the count begins again. */
export const lastingMs = 60_000;

const firstDelayMs = 1000;
const longestDelayMs = 60_000;

/** Does the policy take this ending for a crash? A command that ends with exit code 0 is finished. */
export function isCrash(policy: RecoveryPolicy['policy'], ending: Ending): boolean {
  if (ending.code === undefined) return true;
  return ending.code !== 0 && policy !== 'no';
}

/**
 * Decides by the restart policy. The first restart in a row comes at once, the next ones after 1, 2, 4 … at most 60 seconds, until
 * the limit.
 */
export function decideRecovery(facts: RecoveryFacts): RecoveryDecision {
  const { policy, ending } = facts;
  const attempts = facts.ranMs >= lastingMs ? 0 : facts.attempts;
  const crash = isCrash(policy.policy, ending);
  if (policy.policy === 'no' || (policy.policy === 'on-failure' && !crash)) return { kind: 'finished' };
  if (attempts >= policy.limit) {
    return {
      kind: 'give-up',
      reason: `it did not last ${lastingMs / 1000} s after each of ${attempts} restarts (the limit)`,
    };
  }
  const delayMs = backOffMs(attempts);
  if (!crash) return { kind: 'start-over', delayMs, attempts: attempts + 1 };
  if (facts.hasSnapshot) return { kind: 'restart', delayMs, attempts: attempts + 1 };
  if (policy.fromStart) return { kind: 'start-over', delayMs, attempts: attempts + 1 };
  return {
    kind: 'give-up',
    reason: 'it has no valid snapshot, and the restart policy does not start it from the beginning',
  };
}

/** How long to wait before the next restart after so many in a row: 0, 1, 2, 4 … at most 60 seconds. In milliseconds. */
export function backOffMs(attempts: number): number {
  return attempts === 0 ? 0 : Math.min(firstDelayMs * 2 ** (attempts - 1), longestDelayMs);
}
