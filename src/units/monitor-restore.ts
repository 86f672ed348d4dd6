/**
 * Restore of a unit by its monitor: CRIU is run with the unit's own descriptors, control group and network, and what it
 * brings back becomes this process's child.
 */

import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { explainFailure } from '../criu/explain.ts';
import { readLog } from '../criu/log.ts';
import { restoreCommand } from '../criu/restore-command.ts';
import type { CairnError } from '../errors.ts';
import { Cgroup } from '../linux/cgroups.ts';
import { identityOf } from '../linux/process.ts';
import { Program, type ProgramEnd } from '../linux/spawn.ts';
import { attachNetwork, releaseNetwork } from '../network/attach.ts';
import { restoreExternals } from './external-mounts.ts';
import type { MonitorPlan } from './monitor-plan.ts';
import type { SnapshotReference, StartedUnit } from './monitor-start.ts';
import { PipeStdio, type StdioKeys, TerminalStdio, type UnitStdio } from './monitor-stdio.ts';
import { type RestorePlan, takeRestorePlan } from './restore-file.ts';
import { shareVerification, verifyEntries } from './restore-images.ts';
import { RestoreHandshake } from './restore-handshake.ts';
import { makeServingReady, makeServingUnready, RestoreServing } from './restore-serving.ts';
import { adaptRuntimeState, writeRuntimeState } from './runtime.ts';
import { permitUserfaultfd } from './userfaultfd-permission.ts';

/** Prepares what every restore needs, before it is known what will be restored. */
export async function makeReady(): Promise<void> {
  await makeServingReady();
}

/** Gives back what `makeReady` prepared and nobody used. */
export function makeUnready(): void {
  makeServingUnready();
}

/** Makes the standard streams that a restored unit gets in place of those it was saved with. */
export function createRestoreStdio(plan: MonitorPlan): UnitStdio {
  return plan.terminal ? TerminalStdio.open(plan.paths.pts, plan.size) : new PipeStdio(plan.stdin);
}

/**
 * Which of our descriptors stand for which ones in the images. CRIU gets them as its 3, 4 …, in this order; 0, 1 and 2 stay
 * its own.
 */
export function inheritedDescriptors(
  saved: StdioKeys,
  consoleKeys: readonly string[],
  childSide: UnitStdio['childSide'],
): { fd: number; resource: string }[] {
  const keys: [number | 'ignore', string | undefined][] =
    saved.kind === 'terminal'
      ? [...new Set([saved.terminal, ...consoleKeys])].map((key) => [childSide[0], key])
      : [
          [childSide[0], saved.stdin],
          [childSide[1], saved.stdout],
          [childSide[2], saved.stderr],
        ];
  return keys.flatMap(([fd, resource]) =>
    fd === 'ignore' || resource === undefined ? [] : [{ fd, resource }],
  );
}

/** Restores the unit of a plan as the file says. On an error nothing of it runs. */
export async function restoreUnit(plan: MonitorPlan, file: string): Promise<StartedUnit> {
  const restore = takeRestorePlan(file);
  const stdio = createRestoreStdio(plan);
  using handshake = new RestoreHandshake(plan.paths.run, async (stage, initPid) => {
    if (plan.network === undefined) return;
    // Nothing gets in before all connections are restored: a packet that came earlier would be answered with a reset.
    if (stage === 'setup-namespaces') await attachNetwork(initPid, plan.network, { hold: true });
    else await releaseNetwork(plan.network);
  });
  try {
    const started = await runCriu(plan, restore, stdio, handshake);
    stdio.releaseChildSide();
    recordRestored(plan, restore, started.pid);
    return { ...started, stdio };
  } catch (error) {
    await new Cgroup(plan.id).kill().catch(() => {});
    throw handshake.failure ?? error;
  }
}

/** How long the end of a restore is waited for when its memory cannot come. */
const restoreEndMs = 1000;

/** What gives CRIU its images. */
interface Images {
  directory: string;
  serving?: RestoreServing;
  /** Memory comes later, from this snapshot. */
  lazy?: SnapshotReference;
}

async function openImages({ source }: RestorePlan, directory: string): Promise<Images & AsyncDisposable> {
  if (source.kind === 'directory')
    return { directory: source.directory, [Symbol.asyncDispose]: async () => {} };
  const { lazy, snapshot } = source;
  // Every page of a lazy restore is checked when it is brought; to read all of them first is what is to be avoided.
  const { here, there } = lazy ? { here: nothing, there: nothing } : shareVerification(source);
  const serving = new RestoreServing({ directory, source, verify: there, lazy });
  try {
    verifyEntries(source, here);
    await serving.listening;
  } catch (error) {
    await serving[Symbol.asyncDispose]();
    throw error;
  }
  return {
    directory,
    serving,
    ...(lazy && { lazy: snapshot }),
    [Symbol.asyncDispose]: () => serving[Symbol.asyncDispose](),
  };
}

const nothing = { from: 0, to: 0 };

async function runCriu(
  plan: MonitorPlan,
  restore: RestorePlan,
  stdio: UnitStdio,
  handshake: RestoreHandshake,
): Promise<Omit<StartedUnit, 'stdio'>> {
  const directory = plan.paths.restore;
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { mode: 0o700 });
  await using held = new AsyncDisposableStack();
  const images = held.use(await openImages(restore, directory));
  const pidFile = path.join(directory, 'init.pid');
  const inherited = inheritedDescriptors(restore.stdio, restore.consoleKeys, stdio.childSide);
  const argv = restoreCommand({
    imageDirectory: images.directory,
    workDirectory: directory,
    logFile: 'restore.log',
    stream: images.serving !== undefined && images.lazy === undefined,
    lazyPages: images.lazy !== undefined,
    root: plan.paths.rootfs,
    externals: restoreExternals(restore.externalMounts),
    emptyNetwork: true,
    tcp: 'established',
    networkLock: 'skip',
    fileLocks: true,
    linkRemap: true,
    actionScripts: [handshake.actionScript],
    detached: true,
    pidFile,
    inheritDescriptors: inherited.map(({ resource }, i) => ({ descriptor: 3 + i, resource })),
  });
  using _permission = images.lazy === undefined ? undefined : permitUserfaultfd();
  const groups = new Cgroup(plan.id).directories();
  await using criu = new Program([restore.criu, ...argv], {
    descriptors: inherited.map(({ fd }) => fd),
    env: { ...process.env, ...handshake.environment },
    cwd: '/',
    cgroupFiles: groups.map((group) => path.join(group, 'cgroup.procs')),
    newCgroupNamespace: true,
    ignoreSigpipe: true,
  });
  const end = await Promise.race([
    criu.ended,
    ...(images.serving === undefined ? [] : [images.serving.failed]),
  ]).catch(async (error: unknown) => {
    // Whoever brings the memory gives up when the restore has failed, and may be the first of whom that is heard.
    const ended = images.lazy === undefined ? undefined : await criu.waitFor(restoreEndMs);
    if (ended === undefined || ended.exitCode === 0 || ended.signal !== undefined) throw error;
    throw criuFailure(path.join(directory, 'restore.log'), ended);
  });
  if (end.exitCode !== 0) {
    // A thread that could not give what was asked for is the cause, and CRIU's complaint only follows from it.
    await images.serving?.settled(200);
    throw images.serving?.error ?? criuFailure(path.join(directory, 'restore.log'), end);
  }
  const pid = Number(readFileSync(pidFile, 'utf8'));
  const { lazy, serving } = images;
  if (lazy === undefined || serving === undefined) {
    rmSync(directory, { recursive: true, force: true });
    return { pid };
  }
  const whileArriving = held.move();
  const bringRest = async () => {
    try {
      await using _ = whileArriving;
      await serving.finished;
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  };
  return { pid, arriving: { snapshot: lazy, whole: bringRest() } };
}

function criuFailure(log: string, end: ProgramEnd): CairnError {
  return explainFailure({ attempt: 'Restoring the unit', end, log: readLog(log) });
}

/** Tells the OCI runtime of a unit that CRIU has restored, so that commands can be run in it. */
export function recordRestored(plan: MonitorPlan, restore: RestorePlan, pid: number): void {
  const init = identityOf(pid);
  if (init === undefined) throw new Error(`process ${pid} has vanished`);
  if (restore.runtimeState === undefined) return;
  const cgroup = new Cgroup(plan.id);
  const cgroupPaths = Object.fromEntries(
    cgroup.hierarchies.flatMap((hierarchy, i) =>
      hierarchy.controllers.map((controller) => [controller, cgroup.directories()[i] ?? '']),
    ),
  );
  const state = adaptRuntimeState(restore.runtimeState, {
    id: plan.id,
    init,
    rootfs: plan.paths.rootfs,
    bundle: plan.paths.bundle,
    cgroupPaths,
  });
  writeRuntimeState(plan.runtime, plan.id, state);
}
