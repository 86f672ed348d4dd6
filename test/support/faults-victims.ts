import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  identityOf,
  isAlive,
  type ProcessIdentity,
  readChildren,
  readCommandLine,
} from '../../src/linux/process.ts';

/** Looks every 2 ms until there is one, or `signal` says that there will be none. */
async function awaitVictim(
  find: () => ProcessIdentity | undefined,
  signal: AbortSignal,
): Promise<ProcessIdentity | undefined> {
  while (!signal.aborted) {
    const found = find();
    if (found !== undefined) return found;
    await delay(2);
  }
  return undefined;
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
}

/** The CRIU of a dump of a unit, once there is one; see `DumpProcess`. */
export function dumpingCriu(runDirectory: string, unit: string, signal: AbortSignal) {
  const file = path.join(runDirectory, 'units', unit, 'dump/criu.json');
  return awaitVictim(() => {
    const identity = readJson(file) as ProcessIdentity | null | undefined;
    return identity != null && isAlive(identity) ? identity : undefined;
  }, signal);
}

/** The monitor that is restoring a unit, a child of this daemon. */
export function restoringMonitor(runDirectory: string, unit: string, daemon: number, signal: AbortSignal) {
  const file = path.join(runDirectory, 'units', unit, 'monitor.json');
  return awaitVictim(() => {
    const { monitor } = (readJson(file) as { monitor?: ProcessIdentity } | undefined) ?? {};
    if (monitor === undefined || !isAlive(monitor)) return undefined;
    return readChildren(daemon)?.includes(monitor.pid) ? monitor : undefined;
  }, signal);
}

/** The CRIU that a monitor restores with. */
export async function criuOf(monitor: ProcessIdentity, signal: AbortSignal) {
  return awaitVictim(() => {
    for (const pid of readChildren(monitor.pid) ?? []) {
      const [program = '', ...words] = readCommandLine(pid) ?? [];
      if (path.basename(program) === 'criu' && words.includes('restore')) return identityOf(pid);
    }
    return undefined;
  }, signal);
}
