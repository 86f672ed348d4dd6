/** A monitor takes over a unit whose monitor has been killed. The unit is not its child, and only its end can be seen. */

import { openSync, readdirSync, readlinkSync } from 'node:fs';
import { CairnError } from '../errors.ts';
import { Cgroup } from '../linux/cgroups.ts';
import { exitOfPidfd, type ExitStatus, openPidfd } from '../linux/pidfd.ts';
import { isAlive, type ProcessIdentity, unlessGone } from '../linux/process.ts';
import { type StreamHolder, takeStreams } from './held-streams.ts';
import type { MonitorPlan } from './monitor-plan.ts';
import type { StartedUnit } from './monitor-start.ts';
import {
  LostStdio,
  PipeStdio,
  readStdioKeys,
  type StdioKeys,
  TerminalStdio,
  type UnitStdio,
} from './monitor-stdio.ts';
import { readStatusRecord, recordIsAlive } from './unit-status.ts';

/** How often an adopted unit is looked at, and how long its parent may take to reap it. */
const lookMs = 100;
const reapMs = 5000;

/**
 * Finds the unit of a plan and its streams: those that `holder` kept; else pipes are opened anew through the unit's own
 * ends. A terminal that nobody kept is lost. Throws `unit-not-running` (argument).
 */
export async function adoptUnit(plan: MonitorPlan, holder: StreamHolder | undefined): Promise<StartedUnit> {
  const record = readStatusRecord(plan.paths.status);
  if (record === undefined || record.finished !== undefined || !recordIsAlive(record, 'init')) {
    throw new CairnError('argument', 'unit-not-running', `The unit ${plan.id} is not running.`);
  }
  // From here on the end of the unit can be told even after its parent has reaped it.
  const pidfd = openPidfd(record.init.pid);
  const keys = readStdioKeys(plan.paths.stdio);
  const stdio = keys === undefined ? new LostStdio(plan) : adoptStreams(plan, keys, holder);
  return {
    pid: record.init.pid,
    stdio,
    adopted: { startedAt: record.startedAt, ended: () => waitForEnd(record.init, pidfd) },
  };
}

function adoptStreams(plan: MonitorPlan, keys: StdioKeys, holder: StreamHolder | undefined): UnitStdio {
  const held = holder === undefined ? undefined : takeStreams(holder);
  if (held !== undefined && 'master' in held) return TerminalStdio.adopt(held.master, plan.paths.pts);
  if (keys.kind === 'terminal') return new LostStdio(plan, keys);
  const processes = new Cgroup(plan.id).processes();
  return PipeStdio.adopt(keys, {
    stdin: keys.stdin === undefined ? undefined : reopen(processes, keys.stdin, 'w'),
    stdout: held?.stdout ?? reopen(processes, keys.stdout, 'r'),
    stderr: held?.stderr ?? reopen(processes, keys.stderr, 'r'),
  });
}

/** Opens the other end of a pipe that one of the processes has; `undefined` if none has it any more. */
function reopen(processes: readonly number[], key: string, flags: 'r' | 'w'): number | undefined {
  for (const pid of processes) {
    const directory = `/proc/${pid}/fd`;
    for (const fd of unlessGone(() => readdirSync(directory)) ?? []) {
      if (unlessGone(() => readlinkSync(`${directory}/${fd}`)) !== key) continue;
      // The unit's end is still open, so this does not wait for the other side.
      const opened = unlessGone(() => openSync(`${directory}/${fd}`, flags));
      if (opened !== undefined) return opened;
    }
  }
  return undefined;
}

async function waitForEnd(init: ProcessIdentity, pidfd: number | undefined): Promise<ExitStatus> {
  while (isAlive(init)) await pause();
  for (let waited = 0; pidfd !== undefined && waited < reapMs; waited += lookMs) {
    const exit = exitOfPidfd(pidfd);
    if (exit !== undefined) return exit;
    await pause();
  }
  return { exitCode: undefined, signal: undefined };
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, lookMs));
}
