/** What the monitor writes down about its unit (`status.json`), and what follows from it. */

import { readFileSync } from 'node:fs';
import { systemCode } from '../errors.ts';
import { isAlive, type ProcessIdentity } from '../linux/process.ts';
import { writeDurably } from '../store/durable-file.ts';

/** How a unit's first process ended. */
export interface UnitEnd {
  /** Milliseconds since 1970. */
  finishedAt: number;
  /** Missing if a signal ended it, or if nobody could tell. */
  exitCode?: number;
  /** Signal number. */
  signal?: number;
  /** The kernel killed processes of the unit for want of memory, in this life of the unit. */
  oomKilled: boolean;
}

/** Content of `status.json`. */
export interface StatusRecord {
  /** The unit's first process, numbered as on the host. */
  init: ProcessIdentity;
  monitor: ProcessIdentity;
  /** /proc/sys/kernel/random/boot_id: process numbers mean nothing after a reboot. */
  bootId: string;
  /** Milliseconds since 1970. */
  startedAt: number;
  finished?: UnitEnd;
}

/**
 * - `prepared`: has never been started.
 * - `running`, `suspended`: its first process lives; suspended by the freezer of its control group.
 * - `exited`: its first process has ended and the monitor wrote down how.
 * - `gone`: it was running, and is no more, and nobody saw its end (power cut, monitor killed).
 */
export type UnitState = 'prepared' | 'running' | 'suspended' | 'exited' | 'gone';

/** State of a unit with what is known in that state. */
export interface UnitStatus {
  state: UnitState;
  /** First process, numbered as on the host. */
  pid?: number;
  /** Clock ticks since boot; with the PID it names a process for good. */
  startTime?: number;
  startedAt?: number;
  finishedAt?: number;
  exitCode?: number;
  signal?: number;
  oomKilled?: boolean;
}

/** The record; `undefined` if the unit has never been started. Throws on a file that is none. */
export function readStatusRecord(file: string): StatusRecord | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  const record = JSON.parse(text) as StatusRecord;
  if (typeof record.init?.pid !== 'number' || typeof record.bootId !== 'string') {
    throw new Error(`${file} is not the status of a unit`);
  }
  return record;
}

/** Writes the record durably. */
export async function writeStatusRecord(file: string, record: StatusRecord): Promise<void> {
  await writeDurably(file, [Buffer.from(`${JSON.stringify(record)}\n`)]);
}

/** Identifies this boot of the machine. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** True if the process that the record names lives. */
export function recordIsAlive(record: StatusRecord, which: 'init' | 'monitor', boot = bootId()): boolean {
  return record.bootId === boot && isAlive(record[which]);
}

/** What a record means, given what lives. */
export function statusOf(
  record: StatusRecord | undefined,
  seen: { initAlive: boolean; frozen: boolean },
): UnitStatus {
  if (record === undefined) return { state: 'prepared' };
  const { init, startedAt, finished } = record;
  if (finished !== undefined) return { state: 'exited', startedAt, ...finished };
  if (!seen.initAlive) return { state: 'gone', startedAt };
  return { state: seen.frozen ? 'suspended' : 'running', startedAt, ...init };
}
