/**
 * The four classes of failure (R22) and their exit codes.
 *
 * - `argument`: the caller asked for something that does not exist or makes no sense; asking again differently helps.
 * - `temporary`: the same request may succeed later (busy, timed out, out of space).
 * - `permanent`: it will never succeed (a damaged snapshot, a resource that cannot be saved).
 * - `environment`: this host lacks something (CRIU, a kernel feature, a capability, the daemon).
 */
export type ErrorClass = 'argument' | 'temporary' | 'permanent' | 'environment';

/** Exit code of the command line for each class; 1 is left for defects of Cairn itself. */
export const exitCodes: Readonly<Record<ErrorClass, number>> = {
  argument: 2,
  temporary: 3,
  permanent: 4,
  environment: 5,
};

/** What is known about a failure besides its message. */
export interface ErrorDetails {
  /** What the user can do about it, as a sentence or a command. */
  remedy?: string;
  /** Further lines, for example the last error lines of CRIU, kept as they were. */
  lines?: readonly string[];
  cause?: unknown;
}

/** An expected failure: says what was tried, what failed and why; has a stable code and a class. */
export class CairnError extends Error {
  override readonly name = 'CairnError';
  readonly class: ErrorClass;
  /** Stable, in kebab case: `job-unknown`, `chunk-damaged`. Listed in `docs/errors.md`. */
  readonly code: string;
  readonly remedy: string | undefined;
  readonly lines: readonly string[];

  constructor(errorClass: ErrorClass, code: string, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.class = errorClass;
    this.code = code;
    this.remedy = details.remedy;
    this.lines = details.lines ?? [];
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** `disk-full` (temporary) for an error of the system that says that no space is left; `undefined` for any other. */
export function fullDiskError(error: unknown): CairnError | undefined {
  const code = systemCode(error);
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return undefined;
  return new CairnError('temporary', 'disk-full', `No space is left on the disk: ${messageOf(error)}`, {
    remedy:
      'Give the file system more space, or remove snapshots ("cairn snapshots") and jobs that are not needed.',
    cause: error,
  });
}

/** The `code` of a Node.js system error (`ENOENT` …), or `undefined`. */
export function systemCode(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return undefined;
}
