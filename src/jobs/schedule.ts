/** What decides when the next checkpoint of a job is due. Times in milliseconds since 1970. */
export interface ScheduleFacts {
  /** Interval of the job, in milliseconds. */
  everyMs: number;
  /** When the job began to run, or ran again after a restart. */
  startedAt: number;
  /** End of the last checkpoint that succeeded or failed, if there was one. */
  lastAttemptAt?: number;
  /** Failures one after the other since the last success. */
  failures: number;
}

/** Failures make the interval longer, up to this factor. */
const greatestFactor = 32;

/**
 * When the next checkpoint is due, in milliseconds since 1970. Each failure in a row doubles the interval (at most 32 times), so
 * that a job that cannot be saved is not stopped again and again for nothing.
 */
export function nextCheckpointAt(facts: ScheduleFacts): number {
  const factor = Math.min(2 ** facts.failures, greatestFactor);
  return Math.max(facts.startedAt, facts.lastAttemptAt ?? 0) + facts.everyMs * factor;
}
