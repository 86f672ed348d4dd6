import { CairnError } from '../errors.ts';
import type { ProgramEnd } from '../linux/spawn.ts';
import { type FailureCause, failureCauses, generalFailureCauses } from './failure-causes.ts';
import { errorLines, isConsequence, type LogLine, parseLogLine } from './log.ts';

/** A run of CRIU that failed. */
export interface CriuFailure {
  /** What was tried, to begin the message: `Dump of job web`. */
  attempt: string;
  /** How CRIU ended; `undefined` if it was not started or still runs. */
  end?: ProgramEnd | undefined;
  /** Text of its log (`readLog`). */
  log: string;
}

/** How many of CRIU's own lines an error keeps. */
const keptLines = 8;

/**
 * Translates CRIU's error lines into an error with class, reason and remedy; its last error lines, and the first, are kept as they are.
 *
 * Pure. The first line with a known cause decides: CRIU reports the cause first and then what failed because of it. Lines that
 * can be nothing but consequences are not asked.
 */
export function explainFailure(failure: CriuFailure): CairnError {
  const { attempt, end, log } = failure;
  const errors = errorLines(log);
  const early = (end?.lines ?? []).map(parseLogLine);
  const candidates = [...errors, ...early];
  const reasons = candidates.filter((line) => !isConsequence(line));
  const lines = linesToKeep(candidates, reasons[0]).map(({ line }) => line);
  // Whatever it complained of before, it might have got over.
  if (end?.signal !== undefined) {
    const message = `${attempt} failed: CRIU was ended by ${end.signal}.`;
    const remedy = 'If nobody sent the signal, CRIU crashed: run `cairn doctor`, and report it with the log.';
    return new CairnError('temporary', 'criu-killed', message, { remedy, lines });
  }
  const found = findCause(reasons, failureCauses) ?? findCause(reasons, generalFailureCauses);
  if (found !== undefined) {
    const { cause, match } = found;
    const message = `${attempt} failed: ${cause.message(match, processOf(candidates))}.`;
    return new CairnError(cause.class, cause.code, message, { remedy: cause.remedy, lines });
  }
  const first = reasons.find(({ level }) => level === 'error') ?? errors[0];
  const reason =
    first?.text ?? (end ? `CRIU ended with code ${end.exitCode} and said nothing` : 'CRIU did not end');
  return new CairnError('permanent', 'criu-failed', `${attempt} failed: ${reason}.`, {
    remedy:
      'CRIU gave a reason that Cairn does not know; its last lines are below, the whole log is kept with the job.',
    lines,
  });
}

/** The last lines, and the first reason although many may have followed from it. */
function linesToKeep(lines: readonly LogLine[], first: LogLine | undefined): readonly LogLine[] {
  const tail = lines.slice(-keptLines);
  return first === undefined || tail.includes(first) ? tail : [first, ...tail.slice(1)];
}

function findCause(
  lines: readonly LogLine[],
  causes: readonly FailureCause[],
): { cause: FailureCause; match: RegExpExecArray } | undefined {
  for (const { text } of lines) {
    for (const cause of causes) {
      const match = cause.pattern.exec(text);
      if (match !== null) return { cause, match };
    }
  }
  return undefined;
}

/** CRIU names the process in a later line: "Dump files (pid: 123) failed with -1". */
function processOf(lines: readonly LogLine[]): string {
  for (const { text } of lines) {
    const match = /\(pid: (\d+)\)|Dump mappings \(pid: (\d+)\)|for pid (\d+)/.exec(text);
    if (match !== null) return ` of process ${match[1] ?? match[2] ?? match[3]}`;
  }
  return '';
}
