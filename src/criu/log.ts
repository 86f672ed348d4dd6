/**
 * CRIU's log: `(seconds) PID: Level (file:line): text`, where seconds, PID and level may be missing (criu/log.c); the code that runs
 * inside a restored process writes `pie: PID` (compel/plugins/std/log.c).
 */

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { systemCode } from '../errors.ts';

export interface LogLine {
  level: 'error' | 'warning' | 'information';
  /** PID (inside the restored tree) of the CRIU process that wrote it. */
  pid: number | undefined;
  /** `criu/tty.c:1830` */
  source: string | undefined;
  /** What it says, without the fields above. */
  text: string;
  /** The line as it is. */
  line: string;
}

const pattern = /^(?:\(\d+\.\d+\) )?(?: *(?:pie: )?(\d+): )?(?:(Error|Warn) +\(([^)]*)\): )?(.*)$/;

export function parseLogLine(line: string): LogLine {
  const match = pattern.exec(line);
  const [, pid, level, source, text = line] = match ?? [];
  return {
    level: level === 'Error' ? 'error' : level === 'Warn' ? 'warning' : 'information',
    pid: pid === undefined ? undefined : Number(pid),
    source,
    text,
    line,
  };
}

/** Errors that CRIU logs on hosts where all is well. */
const harmless = [
  // No CAP_SYS_RESOURCE: CRIU keeps the limit it has.
  /^rlimit: Can't setup RLIMIT_NOFILE/,
  // Kernels without the xtables back end; nftables is used.
  /^iptables has/,
];

/** What CRIU says because something failed before: that it gave up, that its helpers and other processes are gone. */
const consequences = [
  /^(?:Dumping|Restoring|Pre-dumping|Lazy pages transfer) FAILED/,
  /^Killing processes because of failure/,
  /^(?:cgroupd|uns): (?:recv|send) (?:req|resp) error/,
  /^(?:Unable to send packet to|Unable to receive from) cgroupd/,
  /^uns: daemon exited abnormally/,
  /^\d+ (?:exited, status=|killed by signal|exited with non-zero code)/,
  /^Child \d+ died too early/,
  /^Failed to wait on helpers and zombies/,
  /^Can't (?:catch|stop) all tasks/,
  /^Restorer (?:fail|abnormal termination)/,
  /\(pid: \d+\) failed with -?\d+$/,
];

/** Whether a line only tells what followed from an error before it. Pure. */
export function isConsequence({ text }: LogLine): boolean {
  return consequences.some((expression) => expression.test(text));
}

/** The error lines that may tell why a run failed, in their order. */
export function errorLines(log: string): LogLine[] {
  return log
    .split('\n')
    .map(parseLogLine)
    .filter(({ level, text }) => level === 'error' && !harmless.some((expression) => expression.test(text)));
}

/** Text of a log file, at most its last `limitBytes`; empty if there is none. */
export function readLog(path: string, limitBytes: number = 1024 * 1024): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return '';
    throw error;
  }
  try {
    const size = fstatSync(fd).size;
    const buffer = Buffer.alloc(Math.min(size, limitBytes));
    const length = readSync(fd, buffer, 0, buffer.length, size - buffer.length);
    return buffer.toString('utf8', 0, length);
  } finally {
    closeSync(fd);
  }
}
