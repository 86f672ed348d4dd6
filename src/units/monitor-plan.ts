/** What the daemon tells a monitor to do: a file that only root can write, in the unit's run directory. */

import { readFileSync } from 'node:fs';
import { isAlive, type ProcessIdentity } from '../linux/process.ts';
import type { UnitNetwork } from '../network/attach.ts';
import type { StreamHolder } from './held-streams.ts';
import type { UnitPaths } from './paths.ts';

/** The plan of a monitor. */
export interface MonitorPlan {
  id: string;
  paths: UnitPaths;
  terminal: boolean;
  /** Standard input is a pipe that stays open. */
  stdin: boolean;
  logs: { maxBytes: number; files: number };
  network: UnitNetwork | undefined;
  /** Limit of tasks; set once the runtime or CRIU, which need tasks of their own, have done their work. */
  pids: number | undefined;
  runtime: { program: string; root: string };
  /** First window size of a terminal. */
  size: { columns: number; rows: number };
  /** Who carries it out; added by the launcher. */
  monitor?: ProcessIdentity;
}

/** What a monitor does with the plan. */
export type MonitorTask =
  | { kind: 'start' }
  /** Restores the unit as the given file says; see `monitor-restore.ts`. */
  | { kind: 'restore'; file: string }
  /** Takes over a unit whose monitor has died; `holder` has kept its streams. */
  | { kind: 'adopt'; holder?: StreamHolder };

/** What a monitor that waits is told, as one line of JSON on descriptor 3. */
export interface MonitorOrder {
  task: MonitorTask;
  /** File with its `MonitorPlan`. */
  plan: string;
  /** Where its own messages go. */
  log: string;
}

/** What a monitor tells the process that started it, as one line of JSON on descriptor 3. */
export type MonitorReport =
  | { started: true; pid: number }
  | {
      started: false;
      error: { class: string; code: string; message: string; remedy?: string; lines: string[] };
    };

export function readMonitorPlan(file: string): MonitorPlan {
  const plan = JSON.parse(readFileSync(file, 'utf8')) as MonitorPlan;
  if (typeof plan.id !== 'string' || typeof plan.paths?.run !== 'string') {
    throw new Error(`${file} is not a plan of a monitor`);
  }
  return plan;
}

/** The monitor that is carrying out the plan; `undefined` if there is no plan, or its monitor is dead. */
export function monitorOf(file: string): ProcessIdentity | undefined {
  try {
    const { monitor } = readMonitorPlan(file);
    return monitor !== undefined && isAlive(monitor) ? monitor : undefined;
  } catch {
    return undefined;
  }
}

/** Is a monitor still carrying out the plan? Also before the unit runs, and when the daemon that launched it is gone. */
export function isCarriedOut(file: string): boolean {
  return monitorOf(file) !== undefined;
}
