/** The OCI runtime: creating and starting a container, and telling it about one that CRIU has restored. */

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { CairnError, messageOf } from '../errors.ts';
import type { ProcessIdentity } from '../linux/process.ts';
import { lastLines, runProgram } from '../linux/run-program.ts';

/** A runtime and the directory in which it keeps its state (`--root`). */
export interface OciRuntime {
  program: string;
  root: string;
}

/** Standard streams of a container: descriptors of this process, or /dev/null. */
type ChildSide = readonly [number | 'ignore', number | 'ignore', number | 'ignore'];

/**
 * `create`: everything is set up, the command is not run yet. Returns the PID of the container's first process, which
 * becomes a child of this process if that is a subreaper. Throws `unit-create-failed` with the last lines of the runtime.
 */
export async function createContainer(
  runtime: OciRuntime,
  id: string,
  bundle: string,
  files: { pidFile: string; log: string; consoleSocket?: string },
  stdio: ChildSide,
  timeoutMs = 30_000,
): Promise<number> {
  mkdirSync(runtime.root, { recursive: true, mode: 0o700 });
  rmSync(files.log, { force: true });
  const argv = ['--root', runtime.root, '--log', files.log, '--log-format', 'json', 'create'];
  if (files.consoleSocket !== undefined) argv.push('--console-socket', files.consoleSocket);
  argv.push('--bundle', bundle, '--pid-file', files.pidFile, id);
  const child = spawn(runtime.program, argv, {
    stdio: [...stdio],
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  });
  const code = await new Promise<number | string>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (exitCode, signal) => resolve(exitCode ?? signal ?? 'unknown'));
  }).catch((error: unknown) => messageOf(error));
  if (code !== 0) throw createError(runtime, code, files.log);
  return Number(readFileSync(files.pidFile, 'utf8'));
}

/** Runs the command of a created container. */
export async function startContainer(runtime: OciRuntime, id: string, log: string): Promise<void> {
  const result = await runProgram(runtime.program, [
    '--root',
    runtime.root,
    '--log',
    log,
    '--log-format',
    'json',
    'start',
    id,
  ]);
  if (result.code !== 0) throw createError(runtime, result.code, log);
}

function createError(runtime: OciRuntime, code: number | string, log: string): CairnError {
  const lines = runtimeLog(log);
  const text = lines.join(' ');
  const said = lines.at(-1) ?? `it ended with ${code}`;
  if (
    /executable file not found|no such file or directory|permission denied/.test(text) &&
    /exec/.test(text)
  ) {
    return new CairnError(
      'argument',
      'unit-command-not-found',
      `The command of the unit cannot be run: ${said}`,
      {
        lines: lines.slice(0, -1),
        remedy: 'Check the command, and that the unit has the program in its root file system and PATH.',
      },
    );
  }
  return new CairnError(
    'environment',
    'unit-create-failed',
    `${runtime.program} cannot create the unit: ${said}`,
    {
      lines: lines.slice(0, -1),
    },
  );
}

/** What the runtime has logged: the messages of its JSON lines. */
function runtimeLog(file: string): string[] {
  if (!existsSync(file)) return [];
  return lastLines(readFileSync(file, 'utf8')).map((line) => {
    try {
      return String((JSON.parse(line) as { msg?: unknown }).msg ?? line);
    } catch {
      return line;
    }
  });
}

/** The file in which runc keeps what it knows of a container. */
export function runtimeStateFile(runtime: OciRuntime, id: string): string {
  return path.join(runtime.root, id, 'state.json');
}

/**
 * runc's state for a container whose first process is another one now (restored by CRIU), from the state it wrote when it
 * created the container, so that `exec` and `state` work on it. Format: libcontainer `State` (state.json).
 */
export function adaptRuntimeState(
  state: Record<string, unknown>,
  now: {
    id: string;
    init: ProcessIdentity;
    rootfs: string;
    bundle: string;
    cgroupPaths: Record<string, string>;
  },
): Record<string, unknown> {
  const names: Record<string, string> = {
    NEWNS: 'mnt',
    NEWNET: 'net',
    NEWUTS: 'uts',
    NEWIPC: 'ipc',
    NEWUSER: 'user',
    NEWPID: 'pid',
    NEWCGROUP: 'cgroup',
    NEWTIME: 'time',
  };
  const namespaces = Object.fromEntries(
    Object.keys((state.namespace_paths ?? names) as Record<string, string>).map((kind) => [
      kind,
      `/proc/${now.init.pid}/ns/${names[kind] ?? kind}`,
    ]),
  );
  const config = { ...(state.config as Record<string, unknown>) };
  config.rootfs = now.rootfs;
  config.labels = ((config.labels as string[] | undefined) ?? []).map((label) =>
    label.startsWith('bundle=') ? `bundle=${now.bundle}` : label,
  );
  return {
    ...state,
    id: now.id,
    init_process_pid: now.init.pid,
    init_process_start: now.init.startTime,
    namespace_paths: namespaces,
    ...(state.cgroup_paths === undefined ? {} : { cgroup_paths: now.cgroupPaths }),
    config,
  };
}

/** What the runtime knows of a container; `undefined` if it does not know it. */
export function readRuntimeState(runtime: OciRuntime, id: string): Record<string, unknown> | undefined {
  const file = runtimeStateFile(runtime, id);
  if (!existsSync(file)) return undefined;
  return JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
}

/** Writes state for a container that the runtime did not create itself. */
export function writeRuntimeState(runtime: OciRuntime, id: string, state: unknown): void {
  const file = runtimeStateFile(runtime, id);
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  writeFileSync(file, JSON.stringify(state), { mode: 0o600 });
}

/** Makes the runtime forget a container whose processes are gone. (`delete --force` would kill by cgroup; never used.) */
export function forgetContainer(runtime: OciRuntime, id: string): void {
  rmSync(path.join(runtime.root, id), { recursive: true, force: true });
}
