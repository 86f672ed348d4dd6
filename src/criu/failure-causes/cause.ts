import type { ErrorClass } from '../../errors.ts';

/** What a line of CRIU's log means. */
export interface FailureCause {
  /** Stable code of the CairnError. */
  code: string;
  class: ErrorClass;
  pattern: RegExp;
  /** From the pattern's groups; `process` is ` of process 123`, or empty. */
  message: (match: RegExpExecArray, process: string) => string;
  remedy: string;
}
