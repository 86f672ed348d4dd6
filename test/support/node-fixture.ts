import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { NodeClient } from '../../src/api/client.ts';
import type { JobDetails, RestartResult, Snapshot, VerifyResult } from '../../src/api/schemas.ts';
import { parseSubnet } from '../../src/network/addresses.ts';
import { removeBridge } from '../../src/network/bridge.ts';
import { findNodeLeaks } from './leaks.ts';
import { until } from './poll.ts';
import { projectRoot } from './probe-programs.ts';
import { type Result, runCommand, type RunOptions } from './run-command.ts';
import { killUnit } from './unit-processes.ts';

/** An error as the command line gives it with `--json`. */
export interface ReportedError {
  class: string;
  code: string;
  message: string;
  remedy?: string;
  lines: string[];
  exitCode: number | null;
}

export interface NodeOptions {
  /** Additional environment of the daemon, for example CAIRN_CRIU. */
  environment?: Record<string, string>;
  /** A directory for the state that exists already (a small file system); it is emptied by nobody. */
  stateDirectory?: string;
}

/** A daemon of its own for a test file: own directories, own bridge; at its end everything must be gone. */
export class NodeFixture implements AsyncDisposable {
  readonly directory: string;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  readonly bridge: { name: string; subnet: string };
  readonly client: NodeClient;
  readonly #units = new Set<string>();
  #environment: Record<string, string>;
  #daemon: ChildProcess | undefined;

  private constructor(directory: string, options: NodeOptions) {
    this.directory = directory;
    this.stateDirectory = options.stateDirectory ?? path.join(directory, 'state');
    this.runDirectory = path.join(directory, 'run');
    const mark = path.basename(directory).slice(-6).toLowerCase();
    // 10.128.0.0 to 10.191.0.0, by chance: two fixtures at the same time shall not meet.
    const number = 128 + Math.floor(Math.random() * 64);
    this.bridge = { name: `cairnt${mark}`, subnet: `10.${number}.${Math.floor(Math.random() * 256)}.0/24` };
    this.client = new NodeClient(this.runDirectory);
    this.#environment = options.environment ?? {};
  }

  static async start(options: NodeOptions = {}): Promise<NodeFixture> {
    const node = new NodeFixture(await mkdtemp(path.join(tmpdir(), 'cairn-n')), options);
    try {
      await node.startDaemon();
    } catch (error) {
      await node[Symbol.asyncDispose]().catch(() => {});
      throw error;
    }
    return node;
  }

  get pid(): number {
    const pid = this.#daemon?.pid;
    if (pid === undefined) throw new Error('the daemon of the test does not run');
    return pid;
  }

  /** What the daemon has written to standard error so far. */
  daemonLog(): string {
    return readFileSync(path.join(this.directory, 'daemon.log'), 'utf8');
  }

  /** Starts the daemon, and returns once it answers. */
  async startDaemon(environment: Record<string, string> = this.#environment): Promise<void> {
    this.#environment = environment;
    const log = openSync(path.join(this.directory, 'daemon.log'), 'a');
    const daemon = spawn(
      path.join(projectRoot, 'cairn'),
      [
        'node',
        ...['--state', this.stateDirectory, '--run', this.runDirectory],
        ...['--bridge', this.bridge.name, '--subnet', this.bridge.subnet],
      ],
      { env: { ...process.env, ...environment }, stdio: ['ignore', log, log], detached: true },
    );
    closeSync(log);
    this.#daemon = daemon;
    daemon.once('exit', (code, signal) => {
      if (this.#daemon !== daemon) return;
      const log = this.daemonLog().split('\n').slice(-40).join('\n');
      console.error(`the daemon of the test ended by itself (${signal ?? code}):\n${log}`);
    });
    await until(
      'the daemon answers',
      async () => {
        if (daemon.exitCode !== null) throw new Error(`the daemon has ended:\n${this.daemonLog()}`);
        return this.client.node().then(
          () => true,
          () => false,
        );
      },
      { timeoutMs: 20_000 },
    );
  }

  /** Ends the daemon, and only it: SIGKILL as in a crash, SIGTERM as an administrator does. */
  async endDaemon(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const daemon = this.#daemon;
    if (daemon === undefined) return;
    this.#daemon = undefined;
    if (daemon.exitCode !== null || daemon.signalCode !== null) return;
    const ended = once(daemon, 'exit');
    daemon.kill(signal);
    await Promise.race([
      ended,
      new Promise((_resolve, reject) => {
        setTimeout(() => reject(new Error(`the daemon survives ${signal} for 30 s`)), 30_000).unref();
      }),
    ]);
  }

  /** Runs `cairn` with these arguments, whatever comes of it. */
  async cairn(argv: readonly string[], options: RunOptions = {}): Promise<Result> {
    return runCommand([path.join(projectRoot, 'cairn'), ...argv], {
      ...options,
      environment: { CAIRN_RUN: this.runDirectory, ...options.environment },
    });
  }

  /** Runs a `cairn` command with `--json` that has to succeed; returns what it wrote. */
  async ok<T>(argv: readonly string[], options: RunOptions = {}): Promise<T> {
    const result = await this.cairn(withJson(argv), options);
    assert.equal(
      result.code,
      0,
      `cairn ${argv.join(' ')}: ${result.signal ?? result.code}\n${result.stdout}${result.stderr}`,
    );
    return (result.stdout.trim() === '' ? undefined : JSON.parse(result.stdout)) as T;
  }

  /** Runs a `cairn` command with `--json` that has to fail; returns the error. */
  async fails(argv: readonly string[], options: RunOptions = {}): Promise<ReportedError> {
    const result = await this.cairn(withJson(argv), options);
    assert.notEqual(result.code, 0, `cairn ${argv.join(' ')} should have failed: ${result.stdout}`);
    let error: ReportedError;
    try {
      ({ error } = JSON.parse(result.stderr) as { error: ReportedError });
    } catch {
      throw new Error(`cairn ${argv.join(' ')}: no error in JSON: ${result.stderr}${result.stdout}`);
    }
    return { ...error, exitCode: result.code };
  }

  /** Starts a job in the background; `options` go before `--`. */
  async run(name: string, options: readonly string[], command: readonly string[]): Promise<void> {
    await this.ok(['run', '-d', '--name', name, ...options, '--', ...command]);
    await this.details(name);
  }

  async details(job: string): Promise<JobDetails> {
    const details = await this.client.job(job);
    if (details.unit !== undefined) this.#units.add(details.unit.id);
    return details;
  }

  async state(job: string): Promise<string> {
    return (await this.details(job)).job.state.kind;
  }

  async waitState(job: string, kind: string, timeoutMs = 30_000): Promise<JobDetails> {
    let last: JobDetails | undefined;
    return until(
      `job ${job} is ${kind}`,
      async () => {
        last = await this.details(job);
        return last.job.state.kind === kind && last;
      },
      { timeoutMs },
    ).catch((error: Error) => {
      throw new Error(`${error.message}; it is ${JSON.stringify(last?.job.state)}`);
    });
  }

  /** Lines that a job has written to standard output. */
  async output(job: string): Promise<string[]> {
    const lines: string[] = [];
    let open = '';
    for await (const line of this.client.logs(job, { follow: false })) {
      if (line.stream !== 'stdout') continue;
      open += line.text;
      if (line.partial) continue;
      lines.push(open);
      open = '';
    }
    return lines;
  }

  /** Waits for a line of output that matches. */
  async waitOutput(job: string, pattern: RegExp, timeoutMs = 60_000): Promise<string> {
    let lines: string[] = [];
    return until(
      `job ${job} writes ${pattern}`,
      async () => {
        lines = await this.output(job);
        return lines.find((line) => pattern.test(line));
      },
      { timeoutMs, intervalMs: 30 },
    ).catch((error: Error) => {
      throw new Error(`${error.message}; it wrote:\n${lines.slice(-20).join('\n')}`);
    });
  }

  async checkpoint(
    job: string,
    ...options: string[]
  ): Promise<Snapshot & { timings: Record<string, number> }> {
    return this.ok(['checkpoint', ...options, job]);
  }

  async restart(reference: string, ...options: string[]): Promise<RestartResult> {
    const result = await this.ok<RestartResult>(['restart', ...options, reference]);
    await this.details(result.job.id);
    return result;
  }

  /** SIGKILL for all processes of the job at once, by the first one; returns when the daemon has noticed. */
  async crash(job: string): Promise<void> {
    const { unit } = await this.details(job);
    assert.ok(unit, `job ${job} has no unit`);
    await killUnit(unit);
    await until(`the daemon notices the end of ${job}`, async () => (await this.state(job)) !== 'running');
  }

  async verifyAll(): Promise<void> {
    const { snapshots } = await this.ok<VerifyResult>(['verify'], { timeoutMs: 300_000 });
    for (const { name, sequence, valid, damage } of snapshots) {
      assert.ok(valid, `snapshot ${name}@${sequence} is damaged: ${damage.join('; ')}`);
    }
  }

  async remove(job: string): Promise<void> {
    await this.details(job);
    await this.ok(['rm', '-f', '--snapshots', job]);
  }

  /** What exists because of this node, by name; empty after the last job was removed. */
  async leaks(): Promise<string[]> {
    return findNodeLeaks({
      directory: this.directory,
      bridge: this.bridge.name,
      units: [...this.#units],
      daemon: this.#daemon?.pid,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const problems: string[] = [];
    try {
      if (this.#daemon === undefined || this.#daemon.exitCode !== null || this.#daemon.signalCode !== null) {
        await this.startDaemon({});
      }
      for (const { id } of await this.client.jobs()) await this.remove(id);
      await until('nothing is left', async () => (await this.leaks()).length === 0, {
        timeoutMs: 10_000,
      }).catch(async () => problems.push(...(await this.leaks())));
    } finally {
      await this.endDaemon('SIGTERM');
      await removeBridge({ name: this.bridge.name, subnet: parseSubnet(this.bridge.subnet) });
    }
    if (problems.length > 0) {
      throw new Error(
        `left behind (see ${this.directory}):\n${problems.join('\n')}\n${tail(this.daemonLog())}`,
      );
    }
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** `--json` before what belongs to the job's own command line. */
function withJson(argv: readonly string[]): string[] {
  const [command = '', ...rest] = argv;
  return [command, '--json', ...rest];
}

function tail(text: string): string {
  return text.split('\n').slice(-15).join('\n');
}
