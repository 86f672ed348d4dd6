/** Processes held by descriptor, so that a reused PID is never mistaken for them; and waiting for adopted children. */

import { checked, close, lastErrno, libc, PollSet, POLLIN, SystemCallError } from './libc.ts';
import { constants } from 'node:os';
import { isAlive, type ProcessIdentity } from './process.ts';

// Since 5.x new system calls have one number on all architectures.
const SYS_pidfd_send_signal = 424;
const SYS_pidfd_open = 434;
const SYS_pidfd_getfd = 438;

const { ECHILD, ESRCH } = constants.errno;

/** Opens a descriptor for a process (close-on-exec; readable once it has ended); `undefined` if there is none. */
export function openPidfd(pid: number): number | undefined {
  const fd = libc().syscall(SYS_pidfd_open, pid, 0, 0, 0, 0);
  if (fd >= 0) return fd;
  const errno = lastErrno();
  if (errno === ESRCH) return undefined;
  throw new SystemCallError(errno, 'pidfd_open', String(pid));
}

/** Sends a signal; false if the process has ended. Signal 0 only asks. */
export function signalPidfd(pidfd: number, signal: number): boolean {
  if (libc().syscall(SYS_pidfd_send_signal, pidfd, signal, 0, 0, 0) === 0) return true;
  const errno = lastErrno();
  if (errno === ESRCH) return false;
  throw new SystemCallError(errno, 'pidfd_send_signal');
}

/** SIGKILL for exactly this process, whatever has become of its number; false if it has ended. */
export function killProcess(identity: ProcessIdentity): boolean {
  const pidfd = openPidfd(identity.pid);
  if (pidfd === undefined) return false;
  try {
    // Asked again now that the descriptor holds it: the number may have passed to another process.
    return isAlive(identity) && signalPidfd(pidfd, constants.signals.SIGKILL);
  } finally {
    close(pidfd);
  }
}

/** Duplicates a descriptor of another process into this one (close-on-exec). */
export function takeDescriptor(pidfd: number, fd: number): number {
  return checked(libc().syscall(SYS_pidfd_getfd, pidfd, fd, 0, 0, 0), 'pidfd_getfd', String(fd));
}

/** Whether a descriptor of this process and one of another lead to the same open file (kcmp(2)); false if the kernel does not tell. */
export function isSameFile(fd: number, pid: number, other: number): boolean {
  const kcmp = process.arch === 'arm64' ? 272 : 312;
  const KCMP_FILE = 0;
  return libc().syscall(kcmp, process.pid, pid, KCMP_FILE, fd, other) === 0;
}

/** Blocks until the process of the pidfd has ended; false if `timeoutMs` passed first. Not for the main thread. */
export function waitPidfd(pidfd: number, timeoutMs: number): boolean {
  const poll = new PollSet();
  poll.set(pidfd, POLLIN);
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    if (poll.wait(Math.max(0, deadline - performance.now())).length > 0) return true;
    if (performance.now() >= deadline) return false;
  }
}

// struct pidfd_info of linux/pidfd.h, first version: 64 bytes, mask at 0, exit code (a wait status) at 60.
const PIDFD_GET_INFO = 0xc040ff0b;
const PIDFD_INFO_EXIT = 8n;

/**
 * How the process of a pidfd ended, also if it is no child of this one; the descriptor must have been opened while it
 * lived. `undefined` before its parent has reaped it, and on kernels before 6.15, which do not tell.
 */
export function exitOfPidfd(pidfd: number): ExitStatus | undefined {
  const info = new DataView(new ArrayBuffer(64));
  info.setBigUint64(0, PIDFD_INFO_EXIT, true);
  if (libc().ioctl(pidfd, PIDFD_GET_INFO, new Uint8Array(info.buffer)) < 0) return undefined;
  if ((info.getBigUint64(0, true) & PIDFD_INFO_EXIT) === 0n) return undefined;
  return decodeWaitStatus(info.getInt32(60, true));
}

/** How a process ended: one of both is set. */
export interface ExitStatus {
  exitCode: number | undefined;
  /** Signal number. */
  signal: number | undefined;
}

/**
 * Reaps the child `pid` if it has ended (WNOHANG). `running` while it lives, `undefined` if it is not a child of this
 * process. Never pass -1: that would take children away from Node.js.
 */
export function reapChild(pid: number): ExitStatus | 'running' | undefined {
  if (pid <= 0) throw new RangeError(`reapChild needs the PID of one child, got ${pid}`);
  const WNOHANG = 1;
  const status = new Int32Array(1);
  const result = libc().waitpid(pid, new Uint8Array(status.buffer), WNOHANG);
  if (result === 0) return 'running';
  if (result < 0) {
    const errno = lastErrno();
    if (errno === ECHILD) return undefined;
    throw new SystemCallError(errno, 'waitpid', String(pid));
  }
  return decodeWaitStatus(status[0] ?? 0);
}

/** Decodes the status word of wait(2). */
export function decodeWaitStatus(status: number): ExitStatus {
  const signal = status & 0x7f;
  return signal === 0
    ? { exitCode: (status >> 8) & 0xff, signal: undefined }
    : { exitCode: undefined, signal };
}

const PR_SET_PDEATHSIG = 1;
const PR_SET_NAME = 15;
const PR_SET_CHILD_SUBREAPER = 36;

/** Orphaned descendants become children of this process instead of PID 1's. */
export function becomeSubreaper(): void {
  checked(libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 'prctl');
}

/** Names the calling thread (at most 15 bytes are kept), as `ps` and `top` show it. */
export function setThreadName(name: string): void {
  checked(libc().prctlText(PR_SET_NAME, name, 0, 0, 0), 'prctl');
}

/** Sends this process `signal` when the thread that started it ends; 0 clears. */
export function setParentDeathSignal(signal: number): void {
  checked(libc().prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), 'prctl');
}
