import { CairnError } from '../errors.ts';

/** What a job may be called; as a regular expression for JSON Schema. */
export const jobNamePattern = '^[a-z0-9][a-z0-9._-]{0,62}$';

/** What an id of a job looks like. */
export const jobIdPattern = '^j-[0-9a-f]{12}$';

const nameRule = new RegExp(jobNamePattern);

/** A job as a user names it, and a snapshot of it where one is named. */
export interface JobReference {
  /** A name, an id, or the beginning of an id that only one job has. */
  job: string;
  /** Sequence number of a snapshot. */
  sequence?: number;
}

/** Throws `job-name-invalid` unless a job may be called so. */
export function checkJobName(name: string): void {
  if (nameRule.test(name)) return;
  throw new CairnError('argument', 'job-name-invalid', `A job cannot be called "${name}".`, {
    remedy: 'Use 1 to 63 of a-z, 0-9, ".", "_" and "-", beginning with a letter or digit.',
  });
}

/** Reads `JOB` or `JOB@SEQUENCE`. Errors: `job-name-invalid`, `sequence-invalid`. */
export function parseJobReference(text: string): JobReference {
  const at = text.lastIndexOf('@');
  const job = at === -1 ? text : text.slice(0, at);
  checkJobName(job);
  if (at === -1) return { job };
  return { job, sequence: parseSequence(text.slice(at + 1)) };
}

/** Reads the sequence number of a snapshot: 1, 2, 3 … Error: `sequence-invalid`. */
export function parseSequence(text: string): number {
  if (/^[1-9][0-9]{0,14}$/.test(text)) return Number(text);
  throw new CairnError(
    'argument',
    'sequence-invalid',
    `"${text}" is not the sequence number of a snapshot.`,
    {
      remedy: 'Sequence numbers are 1, 2, 3 …; "cairn snapshots JOB" lists them.',
    },
  );
}
