/**
 * Restore of a unit by its monitor: CRIU is run with the unit's own descriptors, control group and network, and what it
 * brings back becomes this process's child.
 */

import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { restoreCommand } from '../criu/restore-command.ts';
import { CairnError, messageOf } from '../errors.ts';
import { Cgroup } from '../linux/cgroups.ts';
import { identityOf } from '../linux/process.ts';
import { lastLines } from '../linux/run-program.ts';
import { attachNetwork } from '../network/attach.ts';
import { type ExternalMount, restoreExternals } from './external-mounts.ts';
import type { MonitorPlan } from './monitor-plan.ts';
import type { StartedUnit } from './monitor-start.ts';
import { PipeStdio, type StdioKeys, TerminalStdio, type UnitStdio } from './monitor-stdio.ts';
import { RestoreHandshake } from './restore-handshake.ts';
import { adaptRuntimeState, writeRuntimeState } from './runtime.ts';

/** What a restore needs besides the plan; a file that only root can write. */
export interface RestorePlan {
  criu: string;
  /** Directory with the images. */
  imageDirectory: string;
  /** How CRIU knew the unit's standard streams when the images were made. */
  stdio: StdioKeys;
  /** Further terminals of the unit's console in the images: `/dev/tty`, for example. Same form as `StdioKeys.terminal`. */
  consoleKeys: string[];
  externalMounts: ExternalMount[];
  /** State that the OCI runtime had of the unit (`state.json`), so that `exec` works again. */
  runtimeState?: Record<string, unknown>;
}

/** Makes the standard streams that a restored unit gets in place of those it was saved with. */
export function createRestoreStdio(plan: MonitorPlan): UnitStdio {
  return plan.terminal ? TerminalStdio.open(plan.paths.pts, plan.size) : new PipeStdio(plan.stdin);
}

/** A descriptor of this process that stands for one in the images. */
export interface Inherited {
  /** `pipe:[INODE]`, `tty[RDEV:DEV]`. */
  resource: string;
  fd: number;
}

/**
 * What of the new standard streams stands for which descriptor in the images. Every resource needs a descriptor number of
 * its own in CRIU, even where several are the same terminal.
 */
export function inheritedStreams(
  saved: StdioKeys,
  consoleKeys: readonly string[],
  stdio: UnitStdio,
): Inherited[] {
  const streams = stdio.childSide;
  const resources =
    saved.kind === 'terminal'
      ? [...new Set([saved.terminal, ...consoleKeys])].map((resource) => ({ resource, fd: streams[0] }))
      : [saved.stdin, saved.stdout, saved.stderr].map((resource, i) => ({ resource, fd: streams[i] }));
  return resources.filter(
    (entry): entry is Inherited => entry.resource !== undefined && typeof entry.fd === 'number',
  );
}

/**
 * A command that first enters a control group (in every hierarchy) and makes it the root of a new cgroup namespace, so
 * that what it starts is in there before its first instruction (H03).
 */
export function commandInCgroup(
  cgroup: Cgroup,
  program: string,
  argv: readonly string[],
): [string, string[]] {
  const script =
    'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"';
  return ['/bin/sh', ['-c', script, 'sh', ...cgroup.directories(), '--', 'unshare', '-C', program, ...argv]];
}

/** Restores the unit of a plan as the file says. On an error nothing of it is left. */
export async function restoreUnit(plan: MonitorPlan, file: string): Promise<StartedUnit> {
  const restore = JSON.parse(readFileSync(file, 'utf8')) as RestorePlan;
  const cgroup = new Cgroup(plan.id);
  const stdio = createRestoreStdio(plan);
  using handshake = new RestoreHandshake(plan.paths.run, async (stage, initPid) => {
    if (stage === 'setup-namespaces' && plan.network !== undefined)
      await attachNetwork(initPid, plan.network);
  });
  try {
    const pid = await runCriu(plan, restore, stdio, handshake);
    stdio.releaseChildSide();
    recordRestored(plan, restore, pid);
    return { pid, stdio };
  } catch (error) {
    await cgroup.kill().catch(() => {});
    throw handshake.failure ?? error;
  }
}

async function runCriu(
  plan: MonitorPlan,
  restore: RestorePlan,
  stdio: UnitStdio,
  handshake: RestoreHandshake,
): Promise<number> {
  const pidFile = path.join(plan.paths.run, 'init.pid');
  rmSync(pidFile, { force: true });
  const inherited = inheritedStreams(restore.stdio, restore.consoleKeys, stdio);
  const argv = restoreCommand({
    imageDirectory: restore.imageDirectory,
    workDirectory: plan.paths.run,
    logFile: 'restore.log',
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
    // 0, 1 and 2 are CRIU's own.
    inheritDescriptors: inherited.map(({ resource }, i) => ({ descriptor: 3 + i, resource })),
  });
  const [program, wrapped] = commandInCgroup(new Cgroup(plan.id), restore.criu, argv);
  const child = spawn(program, wrapped, {
    stdio: ['ignore', 'ignore', 'ignore', ...inherited.map(({ fd }) => fd)],
    cwd: '/',
    env: { ...process.env, ...handshake.environment },
  });
  const code = await new Promise<number | string>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (exitCode, signal) => resolve(exitCode ?? signal ?? 'unknown'));
  }).catch((error: unknown) => messageOf(error));
  if (code === 0) return Number(readFileSync(pidFile, 'utf8'));
  const log = readLog(path.join(plan.paths.run, 'restore.log'));
  throw new CairnError(
    'permanent',
    'restore-failed',
    `CRIU could not restore the unit: it ended with ${code}.`,
    {
      lines: lastLines(
        log
          .split('\n')
          .filter((line) => line.includes('Error'))
          .join('\n'),
      ),
    },
  );
}

function readLog(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
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
