/** Copies of the userfaultfds with which a monitor brings memory. */

import { closeSync } from 'node:fs';
import { isSameFile, openPidfd, takeDescriptor } from '../linux/pidfd.ts';
import { isAlive } from '../linux/process.ts';
import { readDescriptors } from '../linux/process-descriptors.ts';
import { monitorOf } from './monitor-plan.ts';
import type { UnitPaths } from './paths.ts';

const target = 'anon_inode:[userfaultfd]';
const lookEveryMs = 20;

/**
 * While somebody has a userfaultfd, a program that touches memory which is not there yet waits; when its last descriptor is closed such
 * memory reads as zeros. So this process keeps a copy of each: if the monitor dies with memory still to come, the program waits until it is
 * ended, and never sees the zeros.
 *
 * The monitor gets them long before the program runs, and closes each when a process has all its memory: the copies follow, so that nobody
 * waits for memory that is never going to come. Disposing closes all copies.
 */
export class HeldUserfaultfds implements Disposable {
  readonly #planFile: string;
  /** Copies by the number that they have in the monitor. */
  readonly #copies = new Map<number, number>();
  readonly #timer: NodeJS.Timeout;

  /** Follows from now on, also a monitor that is still to come. */
  constructor(paths: Pick<UnitPaths, 'plan'>) {
    this.#planFile = paths.plan;
    this.#timer = setInterval(() => this.#look(), lookEveryMs);
    this.#timer.unref();
    this.#look();
  }

  #look(): void {
    try {
      this.#follow();
    } catch {
      // No descriptor is free, or so: the next time.
    }
  }

  #follow(): void {
    const monitor = monitorOf(this.#planFile);
    const descriptors = monitor === undefined ? undefined : readDescriptors(monitor.pid);
    // A dead process has no descriptors, too: then the copies are what they are for.
    if (monitor === undefined || descriptors === undefined || descriptors.length === 0) return;
    if (!isAlive(monitor)) return;
    const present = new Set(descriptors.filter((one) => one.target === target).map(({ fd }) => fd));
    // The number may be that of another one by now.
    for (const [fd, copy] of this.#copies)
      if (!present.has(fd) || !isSameFile(copy, monitor.pid, fd)) {
        closeSync(copy);
        this.#copies.delete(fd);
      }
    const missing = [...present].filter((fd) => !this.#copies.has(fd));
    if (missing.length === 0) return;
    const pidfd = openPidfd(monitor.pid);
    if (pidfd === undefined) return;
    try {
      for (const fd of missing) this.#take(pidfd, fd);
    } finally {
      closeSync(pidfd);
    }
  }

  #take(pidfd: number, fd: number): void {
    try {
      this.#copies.set(fd, takeDescriptor(pidfd, fd));
    } catch {
      // Closed, or the process has ended, since.
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    for (const copy of this.#copies.values()) closeSync(copy);
    this.#copies.clear();
  }
}
