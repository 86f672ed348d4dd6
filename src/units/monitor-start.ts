/** First start of a unit by its monitor: the container is created, gets its network, then its command runs. */

import path from 'node:path';
import { attachNetwork } from '../network/attach.ts';
import { Cgroup } from '../linux/cgroups.ts';
import type { ExitStatus } from '../linux/pidfd.ts';
import type { MonitorPlan } from './monitor-plan.ts';
import { ConsoleSocket, PipeStdio, TerminalStdio, type UnitStdio } from './monitor-stdio.ts';
import { createContainer, startContainer } from './runtime.ts';

/** The snapshot that a unit was restored from. */
export interface SnapshotReference {
  jobId: string;
  sequence: number;
}

/** A unit whose command runs. */
export interface StartedUnit {
  pid: number;
  stdio: UnitStdio;
  /**
   * Of a lazy restore. `whole` resolves when all memory has arrived, and rejects if it cannot: the unit is of no use then, and waits where it
   * touches what is missing.
   */
  arriving?: { snapshot: SnapshotReference; whole: Promise<void> };
  /** Of a unit that another monitor has started: it is no child of this one. */
  adopted?: { startedAt: number; ended: () => Promise<ExitStatus> };
}

/**
 * Starts the unit of a plan. The root file system is mounted, the control group made. On an error everything that was
 * begun is ended again, as far as it is in the unit's control group.
 */
export async function startUnit(plan: MonitorPlan): Promise<StartedUnit> {
  const cgroup = new Cgroup(plan.id);
  try {
    const { pid, stdio } = plan.terminal ? await createWithTerminal(plan) : await createWithPipes(plan);
    cgroup.addToUnified(pid);
    cgroup.limit({ pids: plan.pids });
    if (plan.network !== undefined) await attachNetwork(pid, plan.network);
    await startContainer(plan.runtime, plan.id, runtimeLog(plan));
    return { pid, stdio };
  } catch (error) {
    await cgroup.kill().catch(() => {});
    throw error;
  }
}

async function createWithPipes(plan: MonitorPlan): Promise<StartedUnit> {
  const stdio = new PipeStdio(plan.stdin);
  const pid = await create(plan, stdio.childSide);
  stdio.releaseChildSide();
  return { pid, stdio };
}

async function createWithTerminal(plan: MonitorPlan): Promise<StartedUnit> {
  using socket = new ConsoleSocket(plan.paths.run);
  const pid = await create(plan, ['ignore', 'ignore', 'ignore'], socket.path);
  return { pid, stdio: TerminalStdio.adopt(socket.receive(), plan.paths.pts, plan.size) };
}

function create(plan: MonitorPlan, stdio: UnitStdio['childSide'], consoleSocket?: string): Promise<number> {
  const pidFile = path.join(plan.paths.run, 'init.pid');
  const files = { pidFile, log: runtimeLog(plan), ...(consoleSocket === undefined ? {} : { consoleSocket }) };
  return createContainer(plan.runtime, plan.id, plan.paths.bundle, files, stdio);
}

function runtimeLog(plan: MonitorPlan): string {
  return path.join(plan.paths.run, 'runtime.log');
}
