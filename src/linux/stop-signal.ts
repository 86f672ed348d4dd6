/** Which signal a stopped process was stopped by. */

import { constants } from 'node:os';
import { lastErrno, libc, PollSet, SystemCallError } from './libc.ts';

const PTRACE_DETACH = 17;
const PTRACE_SEIZE = 0x4206;
const PTRACE_INTERRUPT = 0x4207;
const PTRACE_EVENT_STOP = 128;
const WNOHANG = 1;
/** `__WALL`: threads, and tracees that are no children. */
const waitAll = 0x40000000;

/** A process that goes on in the very moment stops within microseconds, unless it hangs in the kernel. */
const longestWaitMs = 200;

const { ESRCH, EPERM } = constants.errno;
const { SIGTRAP } = constants.signals;

/**
 * The signal (SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU) that a process in state T was stopped by; `undefined` if it is not stopped, has
 * ended, or somebody else traces it. The kernel tells only a tracer, so it is traced for a moment (ptrace(2), "Group-stop"): it
 * stays stopped, and its parent notices nothing. Not for processes that run: they would be interrupted.
 */
export function stopSignalOf(pid: number): number | undefined {
  if (libc().ptrace(PTRACE_SEIZE, pid, 0, 0) < 0) {
    const errno = lastErrno();
    if (errno === ESRCH || errno === EPERM) return undefined;
    throw new SystemCallError(errno, 'ptrace', String(pid));
  }
  // Seizing a stopped process returns when it has entered the stop that is waited for here.
  let status = traceStatus(pid);
  if (status === undefined) {
    // It has been continued meanwhile. Only a stopped process can be let go.
    libc().ptrace(PTRACE_INTERRUPT, pid, 0, 0);
    const deadline = performance.now() + longestWaitMs;
    while (status === undefined && performance.now() < deadline) {
      new PollSet().wait(1);
      status = traceStatus(pid);
    }
  }
  if (status === undefined || (status & 0xff) !== 0x7f) return undefined;
  const signal = (status >> 8) & 0xff;
  const stopped = status >> 16 === PTRACE_EVENT_STOP;
  // Anything else is a signal on its way to the process, which shall arrive.
  libc().ptrace(PTRACE_DETACH, pid, 0, stopped ? 0 : signal);
  return stopped && signal !== SIGTRAP ? signal : undefined;
}

/** What happened to a tracee; `undefined` while nothing has. */
function traceStatus(pid: number): number | undefined {
  const status = new Int32Array(1);
  const found = libc().waitpid(pid, new Uint8Array(status.buffer), WNOHANG | waitAll);
  return found === pid ? (status[0] ?? 0) : undefined;
}
