import type { Failure } from '../jobs/job.ts';

/** Codes for which HTTP has a closer status than that of their class. */
const statuses: Readonly<Record<string, number>> = {
  'job-unknown': 404,
  'snapshot-unknown': 404,
  'snapshot-none': 404,
  'route-unknown': 404,
  'exec-unknown': 404,
  'job-name-taken': 409,
  'job-running': 409,
  'job-not-running': 409,
  'job-not-suspended': 409,
  'job-state': 409,
  'upgrade-required': 426,
  internal: 500,
};

const statusOfClass: Readonly<Record<Failure['class'], number>> = {
  argument: 400,
  temporary: 503,
  permanent: 422,
  environment: 501,
};

/** The HTTP status of a failure. The body says more: `Failure`. */
export function statusOf(failure: Failure): number {
  return statuses[failure.code] ?? statusOfClass[failure.class];
}
