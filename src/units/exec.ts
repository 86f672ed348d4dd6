/** Further commands in a running unit, through the OCI runtime. They are not part of a checkpoint. */

import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import path from 'node:path';
import { randomBytes } from 'node:crypto';
import { Readable, type Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { close, pipe } from '../linux/libc.ts';
import { ociProcess } from './bundle.ts';
import { openMaster, openTerminal, setTerminalSize, type TerminalSize } from './terminal.ts';
import type { Unit } from './unit.ts';

/** A command to be run in a unit; what is left out is as for the unit's own command. */
export interface ExecSpec {
  command: string[];
  environment?: Record<string, string>;
  user?: { uid: number; gid: number; additionalGids: number[] };
  workingDirectory?: string;
  terminal?: boolean;
  size?: TerminalSize;
  /** Ends it with SIGKILL. */
  signal?: AbortSignal;
}

/** A command that runs. */
export interface ExecSession {
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Empty with a terminal. */
  readonly stderr: Readable;
  resize(size: TerminalSize): void;
  /** How it ended: 126 and 127 as in a shell if it could not be run. */
  readonly exit: Promise<{ exitCode?: number; signal?: string }>;
  kill(): void;
}

/** Starts a command in a unit with `runc exec`. */
export function execInUnit(unit: Unit, command: ExecSpec): ExecSession {
  const file = writeProcess(unit, command);
  const { program, root } = unit.runtime;
  const pidFile = `${file}.pid`;
  const argv = ['--root', root, 'exec', '--process', file, '--pid-file', pidFile, unit.id];
  const session =
    command.terminal === true
      ? spawnOnTerminal(program, argv, command)
      : spawnOnPipes(program, argv, command);
  const placed = new AbortController();
  void placeInUnified(unit, pidFile, placed.signal);
  const clean = () => {
    placed.abort();
    rmSync(file, { force: true });
    rmSync(pidFile, { force: true });
  };
  session.exit.then(clean, clean);
  return session;
}

/** On a hybrid host runc leaves the version 2 hierarchy out, by which units are suspended. */
async function placeInUnified(unit: Unit, pidFile: string, signal: AbortSignal): Promise<void> {
  if (!unit.cgroup.isHybrid) return;
  while (!signal.aborted) {
    const pid = existsSync(pidFile) ? Number(readFileSync(pidFile, 'utf8')) : 0;
    if (pid > 0) {
      try {
        unit.cgroup.addToUnified(pid);
      } catch {
        // It has ended already.
      }
      return;
    }
    await sleep(5, undefined, { signal }).catch(() => undefined);
  }
}

function writeProcess(unit: Unit, command: ExecSpec): string {
  const { spec } = unit;
  const description = ociProcess(
    {
      command: command.command,
      environment: { ...spec.environment, ...command.environment },
      user: command.user ?? spec.user,
      workingDirectory: command.workingDirectory ?? spec.workingDirectory,
      terminal: command.terminal ?? false,
      capabilities: spec.capabilities,
    },
    command.size,
  );
  mkdirSync(unit.paths.run, { recursive: true, mode: 0o700 });
  const file = path.join(unit.paths.run, `exec-${randomBytes(6).toString('hex')}.json`);
  writeFileSync(file, JSON.stringify(description), { mode: 0o600 });
  return file;
}

/** Real pipes: programs reopen /proc/self/fd/1, which the socket pairs of Node.js do not allow. */
function spawnOnPipes(program: string, argv: string[], command: ExecSpec): ExecSession {
  const [input, output, errors] = [pipe(), pipe(), pipe()];
  const child = spawn(program, argv, {
    stdio: [input.read, output.write, errors.write],
    ...(command.signal === undefined ? {} : { signal: command.signal, killSignal: 'SIGKILL' }),
  });
  for (const fd of [input.read, output.write, errors.write]) close(fd);
  const stdin = new Socket({ fd: input.write, readable: false, writable: true });
  stdin.on('error', () => {});
  return {
    stdin,
    stdout: new Socket({ fd: output.read, readable: true, writable: false }),
    stderr: new Socket({ fd: errors.read, readable: true, writable: false }),
    resize() {},
    exit: exitOf(child),
    kill: () => void child.kill('SIGKILL'),
  };
}

/** The runtime relays between a terminal of ours and the one it makes in the unit. */
function spawnOnTerminal(program: string, argv: string[], command: ExecSpec): ExecSession {
  const { master, slave } = openTerminal('/dev/pts');
  if (command.size !== undefined) setTerminalSize(master, command.size);
  const child = spawn(program, argv, {
    stdio: [slave, slave, slave],
    ...(command.signal === undefined ? {} : { signal: command.signal, killSignal: 'SIGKILL' }),
  });
  closeSync(slave);
  const { input, output } = openMaster(master);
  return {
    stdin: input,
    stdout: output,
    stderr: Readable.from([]),
    resize(size) {
      setTerminalSize(master, size);
      // It is not the runtime's controlling terminal, so the kernel does not tell it.
      child.kill('SIGWINCH');
    },
    exit: exitOf(child),
    kill: () => void child.kill('SIGKILL'),
  };
}

function exitOf(child: ReturnType<typeof spawn>): Promise<{ exitCode?: number; signal?: string }> {
  const exit = new Promise<{ exitCode?: number; signal?: string }>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      if (code !== null) resolve({ exitCode: code });
      else resolve({ signal: signal ?? 'SIGKILL' });
    });
  });
  // Whoever does not wait for the end shall not be ended by it.
  exit.catch(() => {});
  return exit;
}
