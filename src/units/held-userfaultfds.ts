/** Copies of the userfaultfds with which `criu lazy-pages` brings memory. */

import { closeSync } from 'node:fs';
import { openPidfd, takeDescriptor } from '../linux/pidfd.ts';
import { readDescriptors } from '../linux/process-descriptors.ts';

const target = 'anon_inode:[userfaultfd]';
const lookEveryMs = 20;

/**
 * While somebody has a userfaultfd, a program that touches memory which is not there yet waits; when its last descriptor is closed such
 * memory reads as zeros. So this process keeps a copy of each: if `criu lazy-pages` dies with memory still to come, the program waits
 * until it is ended, and never sees the zeros.
 *
 * `criu lazy-pages` closes each when a process has all its memory, and takes new ones for its children: the copies follow, so that nobody
 * waits for memory that is never going to come.
 */
export class HeldUserfaultfds {
  readonly #pid: number;
  /** Copies by the number that they have in that process. */
  readonly #copies = new Map<number, number>();
  #timer: NodeJS.Timeout | undefined;
  #over = false;

  /** `pid`: the process of `criu lazy-pages`. */
  constructor(pid: number) {
    this.#pid = pid;
  }

  get count(): number {
    return this.#copies.size;
  }

  /** Takes copies of those there are, and from now on follows. */
  follow(): void {
    if (this.#over) return;
    this.#look();
    this.#timer ??= setInterval(() => this.#look(), lookEveryMs);
  }

  /** Keeps what it has: the process has ended, and its number may soon be that of another. */
  stay(): void {
    clearInterval(this.#timer);
    this.#over = true;
  }

  /** Closes all copies. */
  release(): void {
    this.stay();
    for (const copy of this.#copies.values()) closeSync(copy);
    this.#copies.clear();
  }

  #look(): void {
    const descriptors = readDescriptors(this.#pid);
    // A dead process has no descriptors, too: then the copies are what they are for.
    if (descriptors === undefined || descriptors.length === 0) return;
    const present = new Set(descriptors.filter((one) => one.target === target).map(({ fd }) => fd));
    for (const [fd, copy] of this.#copies)
      if (!present.has(fd)) {
        closeSync(copy);
        this.#copies.delete(fd);
      }
    const missing = [...present].filter((fd) => !this.#copies.has(fd));
    if (missing.length === 0) return;
    const pidfd = openPidfd(this.#pid);
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
}
