/**
 * The daemon's insurance against the death of a monitor: duplicates of the monitor's ends of the unit's output pipes or of
 * its terminal. While the daemon holds them a unit whose monitor is killed gets neither SIGPIPE nor SIGHUP, and the next
 * monitor takes them over. (Standard input is not held: a second writer would keep it from ever ending.)
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { systemCode } from '../errors.ts';
import { close } from '../linux/libc.ts';
import { openPidfd, takeDescriptor } from '../linux/pidfd.ts';
import { identityOf, isAlive, type ProcessIdentity } from '../linux/process.ts';

/** Descriptor numbers in one process. */
export type StreamDescriptors = { stdout: number; stderr: number } | { master: number };

/** Who has them. */
export interface StreamHolder {
  process: ProcessIdentity;
  descriptors: StreamDescriptors;
}

/** A monitor writes down which descriptors its unit's streams are. */
export function writeStreamHolder(file: string, descriptors: StreamDescriptors): void {
  const own = identityOf(process.pid);
  if (own === undefined) throw new Error('this process is not in /proc');
  const holder: StreamHolder = { process: own, descriptors };
  writeFileSync(file, JSON.stringify(holder), { mode: 0o600 });
}

export function readStreamHolder(file: string): StreamHolder | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as StreamHolder;
  } catch {
    return undefined;
  }
}

/** Duplicates the descriptors of a holder into this process; `undefined` if it has closed them or does not live. */
export function takeStreams(holder: StreamHolder): StreamDescriptors | undefined {
  const pidfd = openPidfd(holder.process.pid);
  if (pidfd === undefined) return undefined;
  const taken: number[] = [];
  const take = (fd: number) => {
    const own = takeDescriptor(pidfd, fd);
    taken.push(own);
    return own;
  };
  try {
    if (!isAlive(holder.process)) return undefined;
    const { descriptors } = holder;
    if ('master' in descriptors) return { master: take(descriptors.master) };
    return { stdout: take(descriptors.stdout), stderr: take(descriptors.stderr) };
  } catch (error) {
    for (const fd of taken) close(fd);
    if (['EBADF', 'ESRCH'].includes(systemCode(error) ?? '')) return undefined;
    throw error;
  } finally {
    close(pidfd);
  }
}

/** The streams that this process holds, by unit. */
export class HeldStreams implements Disposable {
  readonly #held = new Map<string, StreamDescriptors>();

  /** Holds the streams of a unit from now on, instead of those held before. */
  hold(unit: string, file: string): void {
    const holder = readStreamHolder(file);
    const taken = holder === undefined ? undefined : takeStreams(holder);
    if (taken === undefined) return;
    this.drop(unit);
    this.#held.set(unit, taken);
  }

  has(unit: string): boolean {
    return this.#held.has(unit);
  }

  /** For a monitor that shall take them over; `undefined` if they are not held. */
  holderOf(unit: string): StreamHolder | undefined {
    const descriptors = this.#held.get(unit);
    const own = identityOf(process.pid);
    return descriptors === undefined || own === undefined ? undefined : { process: own, descriptors };
  }

  drop(unit: string): void {
    for (const fd of Object.values(this.#held.get(unit) ?? {})) close(fd);
    this.#held.delete(unit);
  }

  [Symbol.dispose](): void {
    for (const unit of [...this.#held.keys()]) this.drop(unit);
  }
}
