/**
 * The monitor of one unit: a process of its own that starts or restores the unit, is the parent of its first process,
 * keeps its output, and writes down how it ends. It lives as long as the unit and needs nobody: the daemon may come and go.
 *
 * It first waits for a `MonitorOrder` on descriptor 3 (so that the daemon can have one ready before it is needed), and ends if
 * there the end of file comes instead. What became of the order is reported there too (see `MonitorReport`).
 */

import { closeSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { CairnError, fullDiskError, messageOf } from '../errors.ts';
import { Cgroup } from '../linux/cgroups.ts';
import { close, duplicateTo } from '../linux/libc.ts';
import {
  becomeSubreaper,
  type ExitStatus,
  openPidfd,
  reapChild,
  setThreadName,
  signalPidfd,
} from '../linux/pidfd.ts';
import { identityOf, type ProcessIdentity, readChildren, readStat } from '../linux/process.ts';
import { writeStreamHolder } from './held-streams.ts';
import {
  type MonitorOrder,
  type MonitorPlan,
  type MonitorReport,
  type MonitorTask,
  readMonitorPlan,
} from './monitor-plan.ts';
import { MonitorServer } from './monitor-server.ts';
import { type StartedUnit, startUnit } from './monitor-start.ts';
import { writeStdioKeys } from './monitor-stdio.ts';
import { bootId, type StatusRecord, type UnitEnd, writeStatusRecord } from './unit-status.ts';
import { type OutputStream, UnitLog } from './unit-log.ts';

const orderFd = 3;

let reported = false;

/** Tells the starter, which may be gone already. */
function report(message: MonitorReport): void {
  if (reported) return;
  reported = true;
  try {
    writeSync(orderFd, `${JSON.stringify(message)}\n`);
  } catch {
    // Nobody listens; the status file tells the same.
  }
  close(orderFd);
}

function reportError(thrown: unknown): void {
  const error = fullDiskError(thrown) ?? thrown;
  const known = error instanceof CairnError;
  report({
    started: false,
    error: {
      class: known ? error.class : 'defect',
      code: known ? error.code : 'defect',
      message: messageOf(error),
      ...(known && error.remedy !== undefined ? { remedy: error.remedy } : {}),
      lines: known ? [...error.lines] : [error instanceof Error ? (error.stack ?? '') : ''],
    },
  });
}

/** Keeps a unit that runs: output, status, socket, end. Returns when it has ended and all is written down. */
async function monitorUnit(plan: MonitorPlan, unit: StartedUnit): Promise<void> {
  const { pid, stdio } = unit;
  const init = identityOf(pid);
  const monitor = identityOf(process.pid);
  if (init === undefined || monitor === undefined) throw new Error(`process ${pid} has vanished`);
  const cgroup = new Cgroup(plan.id);
  cgroup.limit({ pids: plan.pids });
  const oomKillsBefore = unit.adopted === undefined ? cgroup.oomKills() : 0;
  const startedAt = unit.adopted?.startedAt ?? Date.now();
  const record: StatusRecord = { init, monitor, bootId: bootId(), startedAt };
  let end: UnitEnd | undefined;

  using log = new UnitLog(plan.paths.logs, plan.logs);
  const server = new MonitorServer(plan.paths.socket, {
    pid,
    terminal: plan.terminal,
    end: () => end,
    signal: (signal) => {
      if (end === undefined) sendSignal(init, signal);
    },
    write: (bytes) => stdio.write(bytes),
    endInput: () => stdio.endInput(),
    resize: (size) => stdio.resize(size),
  });
  const onOutput = (stream: OutputStream, piece: Buffer) => {
    log.write(stream, piece);
    server.output(stream, piece);
  };
  stdio.read(onOutput, () => log.flush());
  writeStdioKeys(plan.paths.stdio, stdio.keys);
  if (stdio.output !== undefined) writeStreamHolder(plan.paths.streams, stdio.output);
  await server.listen();
  await writeStatusRecord(plan.paths.status, record);
  if (unit.arriving !== undefined)
    whileArriving(plan, unit.arriving, () => {
      if (end === undefined) process.kill(pid, 'SIGKILL');
    });
  report({ started: true, pid });

  const exit = await (unit.adopted?.ended() ?? waitForChild(pid));
  await stdio.finish();
  log.flush();
  end = {
    finishedAt: Date.now(),
    ...(exit.exitCode === undefined ? {} : { exitCode: exit.exitCode }),
    ...(exit.signal === undefined ? {} : { signal: exit.signal }),
    oomKilled: cgroup.oomKills() > oomKillsBefore,
  };
  await writeEnd(plan.paths.status, { ...record, finished: end });
  await server.close();
}

/** How a unit ended must not be lost because the disk is full at that moment: waits until there is space, or the unit is removed. */
async function writeEnd(file: string, record: StatusRecord): Promise<void> {
  for (;;) {
    try {
      return await writeStatusRecord(file, record);
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== 'store-full') throw error;
      await sleep(500);
    }
  }
}

/**
 * Notes that the memory of a unit is still arriving, for as long as it is: it cannot be saved meanwhile. If some of it never
 * comes the unit must not go on, and is killed: its snapshot is still there.
 */
function whileArriving(
  plan: MonitorPlan,
  { snapshot, whole }: NonNullable<StartedUnit['arriving']>,
  kill: () => void,
): void {
  writeFileSync(plan.paths.arriving, JSON.stringify(snapshot), { mode: 0o600 });
  const done = () => rmSync(plan.paths.arriving, { force: true });
  whole.then(done, (error: unknown) => {
    kill();
    done();
    console.error(`the memory of unit ${plan.id} has not arrived, it is killed: ${messageOf(error)}`);
  });
}

/** A child that is not yet reaped keeps its number; one of another process may have lost it. */
function sendSignal(to: ProcessIdentity, signal: number): void {
  const pidfd = openPidfd(to.pid);
  if (pidfd === undefined) return;
  try {
    if (identityOf(to.pid)?.startTime === to.startTime) signalPidfd(pidfd, signal);
  } finally {
    close(pidfd);
  }
}

/** Waits for an adopted child, and lays to rest whatever else of the runtime or CRIU has been left to this process. */
function waitForChild(pid: number): Promise<ExitStatus> {
  return new Promise((resolve, reject) => {
    const look = () => {
      const state = reapChild(pid);
      if (state === 'running') return;
      clearInterval(timer);
      process.off('SIGCHLD', look);
      if (state === undefined) reject(new Error(`process ${pid} is not a child of the monitor`));
      else resolve(state);
    };
    process.on('SIGCHLD', look);
    // Signals of the same kind merge, and one may have come before the handler: look again now and then.
    let corpses = new Set<number>();
    const timer = setInterval(() => {
      corpses = reapForgotten(pid, corpses);
      look();
    }, 1000);
    look();
  });
}

/** Reaps children that were dead the last time already: those that Node.js started itself are gone by then. */
function reapForgotten(pid: number, deadBefore: ReadonlySet<number>): Set<number> {
  const others = (readChildren(process.pid) ?? []).filter((child) => child !== pid);
  const dead = others.filter((child) => readStat(child)?.state === 'Z');
  for (const child of dead) if (deadBefore.has(child)) reapChild(child);
  return new Set(dead);
}

/** Waits for the order; `undefined` if none will come. */
function awaitOrder(): MonitorOrder | undefined {
  let text = '';
  const piece = Buffer.alloc(4096);
  while (!text.includes('\n')) {
    const length = readSync(orderFd, piece);
    if (length === 0) return undefined;
    text += piece.toString('utf8', 0, length);
  }
  return JSON.parse(text) as MonitorOrder;
}

async function main(): Promise<void> {
  setThreadName('cairn-monitor');
  becomeSubreaper();
  // A closed terminal or an interrupted command line is no reason to let the unit go.
  for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGPIPE'] as const) process.on(signal, () => {});
  const ready = process.argv[2] === 'ready' ? await import('./monitor-restore.ts') : undefined;
  if (ready !== undefined) await ready.makeReady();
  const order = awaitOrder();
  if (order === undefined) return process.exit(0);
  writeMessagesTo(order.log);
  const plan = readMonitorPlan(order.plan);
  let unit: StartedUnit;
  try {
    unit = await begin(order.task, plan);
  } catch (error) {
    reportError(error);
    process.exitCode = 1;
    return;
  } finally {
    ready?.makeUnready();
  }
  try {
    await monitorUnit(plan, unit);
  } catch (error) {
    if (reported) throw error;
    // It cannot be looked after, and so it shall not run.
    await new Cgroup(plan.id).kill().catch(() => {});
    reportError(error);
    process.exit(1);
  }
}

/** Own messages go to a file from now on; without space for it, nowhere. */
function writeMessagesTo(file: string): void {
  try {
    const log = openSync(file, 'a', 0o600);
    for (const fd of [1, 2]) duplicateTo(log, fd);
    closeSync(log);
  } catch (error) {
    if (fullDiskError(error) === undefined) throw error;
  }
}

async function begin(task: MonitorTask, plan: MonitorPlan): Promise<StartedUnit> {
  if (task.kind === 'start') return startUnit(plan);
  // The rest is loaded only when it is needed: every running unit has a monitor in memory.
  if (task.kind === 'restore') {
    const { restoreUnit } = await import('./monitor-restore.ts');
    return restoreUnit(plan, task.file);
  }
  const { adoptUnit } = await import('./monitor-adopt.ts');
  return adoptUnit(plan, task.holder);
}

await main();
