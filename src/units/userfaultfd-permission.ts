/**
 * The sysctl vm.unprivileged_userfaultfd, which has to be 1 for the moment at which a lazy restore makes its userfaultfds: the kernel asks
 * for CAP_SYS_PTRACE in the first user namespace otherwise, which no unit has.
 *
 * It belongs to the whole host. Whoever needs it holds a shared lock on a file, in which the value is noted that the last one sets back;
 * the kernel gives the lock of one that was killed back, and the next daemon looks after the value.
 */

import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { shareLockFile, tryLockFile } from '../linux/libc.ts';

const defaultPlaces = {
  sysctl: '/proc/sys/vm/unprivileged_userfaultfd',
  // Not in /run/lock, where everybody may make files.
  lock: '/run/cairn-userfaultfd.lock',
};

/** Lets processes in a user namespace make a userfaultfd, until disposed. */
export function permitUserfaultfd(places: typeof defaultPlaces = defaultPlaces): Disposable {
  const fd = openLock(places.lock);
  try {
    // Waits only while somebody sets the value back.
    shareLockFile(fd);
    if (readFileSync(places.sysctl, 'utf8').trim() === '0') {
      ftruncateSync(fd, 0);
      writeSync(fd, '0', 0);
      writeFileSync(places.sysctl, '1');
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return { [Symbol.dispose]: () => setBackAndClose(fd, places) };
}

/** Sets the value back if somebody who had changed it was killed and nobody needs it any more. */
export function settleUserfaultfd(places: typeof defaultPlaces = defaultPlaces): void {
  setBackAndClose(openLock(places.lock), places);
}

function openLock(file: string): number {
  mkdirSync(path.dirname(file), { recursive: true });
  return openSync(file, 'a+', 0o600);
}

function setBackAndClose(fd: number, { sysctl, lock }: typeof defaultPlaces): void {
  try {
    // While others need it the last of them does this.
    if (!tryLockFile(fd) || readFileSync(lock, 'utf8') !== '0') return;
    writeFileSync(sysctl, '0');
    ftruncateSync(fd, 0);
  } finally {
    closeSync(fd);
  }
}
