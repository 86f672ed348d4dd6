/** One unit of this node: its sandbox and the program in it. */

import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { endLeftoverCriu } from '../criu/leftovers.ts';
import { CairnError } from '../errors.ts';
import { Cgroup } from '../linux/cgroups.ts';
import { close } from '../linux/libc.ts';
import { isMountPoint, mountsOf } from '../linux/mounts.ts';
import { openPidfd, signalPidfd } from '../linux/pidfd.ts';
import { isAlive, readNamespaces } from '../linux/process.ts';
import { bridgedNetwork, detachNetwork, type UnitNetwork } from '../network/attach.ts';
import type { Addresses } from '../network/addresses.ts';
import type { Bridge } from '../network/bridge.ts';
import { publishPorts, withdrawPorts } from '../network/publish.ts';
import type { OciConfiguration } from './bundle.ts';
import { consoleKeys } from './console-keys.ts';
import { type ExternalMount, externalMounts } from './external-mounts.ts';
import { type ExecSession, type ExecSpec, execInUnit } from './exec.ts';
import type { HeldStreams } from './held-streams.ts';
import { type LogLine, type LogOptions, readLog } from './log-reader.ts';
import { askMonitor, type Attachment, attachToMonitor, type MonitorLauncher } from './monitor-client.ts';
import type { MonitorPlan, MonitorTask } from './monitor-plan.ts';
import type { SnapshotReference } from './monitor-start.ts';
import { readStdioKeys, type StdioKeys } from './monitor-stdio.ts';
import type { UnitPaths } from './paths.ts';
import {
  coverHostDirectories,
  mountRootFileSystem,
  mountShm,
  unmountRootFileSystem,
  writeNetworkFiles,
} from './root-file-system.ts';
import { forgetContainer, type OciRuntime, readRuntimeState } from './runtime.ts';
import type { UnitSpec } from './spec.ts';
import type { TerminalSize } from './terminal.ts';
import { readStatusRecord, recordIsAlive, statusOf, type UnitEnd, type UnitStatus } from './unit-status.ts';

const SIGTERM = 15;
const SIGKILL = 9;

/** What all units of a node share. */
export interface UnitSurroundings {
  bridge: Bridge;
  addresses: Addresses;
  monitors: MonitorLauncher;
  /** Output streams of the units, held for the case that a monitor is killed. */
  streams: HeldStreams;
  /** Units that are being given another monitor. */
  adopting: Map<string, Promise<void>>;
  /** Directories of the host that no unit may see: those of the node itself. */
  hidden: readonly string[];
}

/** What leads out of a unit, as it has to be known for its restore. All of it is plain data. */
export interface UnitExternals {
  mounts: ExternalMount[];
  /** Standard streams. */
  stdio: StdioKeys;
  /** Everything that is the unit's terminal: `--external` of the dump. Empty without a terminal. */
  consoleKeys: string[];
  /** What the OCI runtime knows of the unit; `undefined` if it knows nothing. */
  runtimeState: Record<string, unknown> | undefined;
}

/** A unit whose files exist. Holds no descriptors: it may be thrown away and opened again at any time. */
export class Unit {
  readonly spec: UnitSpec;
  readonly paths: UnitPaths;
  readonly cgroup: Cgroup;
  readonly runtime: OciRuntime;
  /** Lower layer of its root file system. */
  readonly lower: string;
  /** IPv4 address on the bridge; `undefined` without a network. */
  readonly address: string | undefined;
  readonly #around: UnitSurroundings;

  constructor(
    made: {
      spec: UnitSpec;
      paths: UnitPaths;
      runtime: OciRuntime;
      lower: string;
      address: string | undefined;
    },
    around: UnitSurroundings,
  ) {
    this.spec = made.spec;
    this.paths = made.paths;
    this.runtime = made.runtime;
    this.lower = made.lower;
    this.address = made.address;
    this.cgroup = new Cgroup(made.spec.id);
    this.#around = around;
  }

  get id(): string {
    return this.spec.id;
  }

  /** The network it gets; `undefined` only if it shall not even have one of its own. */
  get network(): UnitNetwork {
    if (this.address === undefined) return { link: bridgedNetwork(this.id, this.#around.bridge, '').link };
    return bridgedNetwork(this.id, this.#around.bridge, this.address);
  }

  /** Mounts the root file system, /dev/shm and /dev/pts. They may be mounted already. */
  mountRoot(): void {
    const { rootFileSystem, resources } = this.spec;
    // Also for a layer from a snapshot: on the node that it comes from other directories may have been hidden.
    if (rootFileSystem.kind === 'host' && !isMountPoint(this.paths.rootfs)) {
      coverHostDirectories(this.paths.upper, this.#around.hidden);
    }
    mountRootFileSystem(this.paths, this.lower, resources.memoryBytes);
  }

  /** Mounts only /dev/shm, so that a restore can fill it. */
  mountShm(): void {
    mountShm(this.paths, this.spec.resources.memoryBytes);
  }

  /**
   * Starts the command under a monitor. Throws `unit-create-failed`, `unit-command-not-found`, `port-taken` …; nothing
   * runs then.
   */
  async start(size: TerminalSize = { columns: 80, rows: 24 }): Promise<UnitStatus> {
    return this.launch({ kind: 'start' }, size);
  }

  /** Starts the monitor with a task: `start` does it for a first start, a restart gives it a restore. */
  async launch(task: MonitorTask, size: TerminalSize = { columns: 80, rows: 24 }): Promise<UnitStatus> {
    const before = await this.status();
    if (task.kind !== 'adopt' && (before.state === 'running' || before.state === 'suspended')) {
      throw new CairnError('argument', 'unit-running', `The unit ${this.id} is running already.`);
    }
    this.mountRoot();
    // A restored program finds the files that it knew.
    if (task.kind === 'start')
      writeNetworkFiles(this.paths.rootfs, { hostname: this.spec.hostname, address: this.address });
    if (task.kind !== 'adopt') {
      rmSync(this.paths.status, { force: true });
      forgetContainer(this.runtime, this.id);
      await this.#publish();
    }
    try {
      const held = task.kind === 'adopt' ? this.#around.streams.holderOf(this.id) : undefined;
      const order = held === undefined ? task : { ...task, holder: held };
      await this.#around.monitors.launch(this.monitorPlan(size), order);
    } catch (error) {
      // One that was to be adopted runs on, and its ports belong to it.
      if (task.kind !== 'adopt') await this.withdraw();
      throw error;
    }
    this.#around.streams.hold(this.id, this.paths.streams);
    return this.status();
  }

  /** What its monitor needs to know. */
  monitorPlan(size: TerminalSize): MonitorPlan {
    const { id, terminal, stdin, logs } = this.spec;
    const { paths, network, runtime } = this;
    const { pids } = this.spec.resources;
    return { id, paths, terminal, stdin, logs, network, runtime, size, pids };
  }

  async #publish(): Promise<void> {
    const { ports } = this.spec.network;
    if (this.address !== undefined) await publishPorts(this.#around.bridge, this.address, ports);
  }

  /** Withdraws its published ports. */
  async withdraw(): Promise<void> {
    const { ports } = this.spec.network;
    if (this.address !== undefined && ports.length > 0) {
      await withdrawPorts(this.#around.bridge, this.address, ports);
    }
  }

  /** Its state now. A unit whose monitor is about to write down its end is waited for. */
  async status(): Promise<UnitStatus> {
    for (let waitedMs = 0; ; waitedMs += 10) {
      const record = readStatusRecord(this.paths.status);
      const initAlive = record !== undefined && recordIsAlive(record, 'init');
      const status = statusOf(record, { initAlive, frozen: initAlive && this.cgroup.isFrozen() });
      if (status.state !== 'gone' || record === undefined) return status;
      if (!recordIsAlive(record, 'monitor') || waitedMs > 5000) return status;
      await sleep(10);
    }
  }

  /** True while a monitor serves it. */
  async isMonitored(): Promise<boolean> {
    const answer = await askMonitor(this.paths.socket, { op: 'status' }, { timeoutMs: 5000 });
    if (answer === undefined) return false;
    if (!this.#around.streams.has(this.id)) this.#around.streams.hold(this.id, this.paths.streams);
    return true;
  }

  /** Gives a unit that runs without a monitor another one. One at a time: who comes second waits for the first. */
  async ensureMonitored(): Promise<void> {
    const { adopting } = this.#around;
    const adopt = async () => {
      const { state } = await this.status();
      if (state !== 'running' && state !== 'suspended') return;
      if (!(await this.isMonitored())) await this.launch({ kind: 'adopt' });
    };
    const running = adopting.get(this.id) ?? adopt().finally(() => adopting.delete(this.id));
    adopting.set(this.id, running);
    await running;
  }

  /** What has to be done when its monitor was killed: another one takes over, unless memory has still to come from the dead one. */
  async #afterMonitor(): Promise<void> {
    const record = readStatusRecord(this.paths.status);
    if (record === undefined || !recordIsAlive(record, 'init') || recordIsAlive(record, 'monitor')) return;
    if (this.arrivingFrom() === undefined) return this.ensureMonitored();
    // What has not arrived will never come; see `HeldUserfaultfds`.
    await this.sendSignal(SIGKILL).catch(() => {});
    await this.cgroup.kill();
  }

  /** Waits until its first process has ended; looks after its monitor meanwhile. Throws the reason of the signal when that says stop. */
  async waitExit(signal?: AbortSignal): Promise<UnitStatus> {
    for (;;) {
      signal?.throwIfAborted();
      const status = await this.status();
      if (status.state !== 'running' && status.state !== 'suspended') return status;
      const answer = await askMonitor(
        this.paths.socket,
        { op: 'wait' },
        signal === undefined ? {} : { signal },
      );
      // Without a monitor nobody tells; look again.
      if (answer !== undefined) continue;
      await this.#afterMonitor().catch(() => {});
      await sleep(100);
    }
  }

  /** Sends a signal to its first process. Throws `unit-not-running` (argument). */
  async sendSignal(signal: number): Promise<void> {
    const record = readStatusRecord(this.paths.status);
    const pidfd =
      record !== undefined && recordIsAlive(record, 'init') ? openPidfd(record.init.pid) : undefined;
    if (record === undefined || pidfd === undefined) throw this.#notRunning();
    try {
      // Asked again now that the descriptor holds the process: the number may have passed to another one.
      if (!isAlive(record.init) || !signalPidfd(pidfd, signal)) throw this.#notRunning();
    } finally {
      close(pidfd);
    }
  }

  #notRunning(): CairnError {
    return new CairnError('argument', 'unit-not-running', `The unit ${this.id} is not running.`);
  }

  /**
   * Asks the command to end (SIGTERM) and kills it if it has not after `graceMs`. The first process of a PID namespace
   * ignores SIGTERM unless it has a handler for it: such a command is always killed.
   */
  async stop({ graceMs = 10_000 }: { graceMs?: number } = {}): Promise<UnitStatus> {
    const status = await this.status();
    if (status.state === 'suspended') this.resume();
    if (status.state !== 'running' && status.state !== 'suspended') return status;
    await this.sendSignal(SIGTERM).catch(() => {});
    try {
      return await this.waitExit(AbortSignal.timeout(graceMs));
    } catch {
      return this.kill();
    }
  }

  /** Kills everything in it at once. */
  async kill(): Promise<UnitStatus> {
    if (this.cgroup.isFrozen()) this.cgroup.thaw();
    await this.sendSignal(SIGKILL).catch(() => {});
    await this.cgroup.kill();
    return this.waitExit(AbortSignal.timeout(10_000));
  }

  /** Stops all its processes where they are; returns when they have stopped. */
  async suspend(timeoutMs?: number): Promise<void> {
    if ((await this.status()).state === 'suspended') return;
    if ((await this.status()).state !== 'running') throw this.#notRunning();
    await this.cgroup.freeze(timeoutMs);
  }

  /** Lets its processes run on. */
  resume(): void {
    this.cgroup.thaw();
  }

  /** PIDs on the host of its processes: those in its control group that live in its PID namespace. */
  async processes(): Promise<number[]> {
    const { pid } = await this.status();
    const own = pid === undefined ? undefined : readNamespaces(pid)?.get('pid');
    if (own === undefined) return [];
    return this.cgroup.processes().filter((other) => readNamespaces(other)?.get('pid') === own);
  }

  /** Runs another command in it. Throws `unit-not-running` (argument). */
  async exec(command: ExecSpec): Promise<ExecSession> {
    if ((await this.status()).state !== 'running') throw this.#notRunning();
    return execInUnit(this, command);
  }

  /**
   * Connects to its terminal or pipes, from now on or, with `replay`, from the last 64 KiB of output. Throws
   * `unit-not-running` (argument).
   */
  async attach(
    options: { stdin?: boolean; replay?: boolean; size?: TerminalSize } = {},
  ): Promise<Attachment> {
    const { stdin = true, replay = false, size } = options;
    const attachment = await attachToMonitor(this.paths.socket, {
      stdin,
      replay,
      ...(size === undefined ? {} : { size }),
    });
    if (attachment === undefined) throw this.#notRunning();
    return attachment;
  }

  /** Its output, oldest first. */
  logs(options: Omit<LogOptions, 'ended'> = {}): AsyncIterable<LogLine> {
    const ended = async () => !['running', 'suspended'].includes((await this.status()).state);
    return readLog(this.paths.logs, { ...options, ended });
  }

  /** How CRIU names the descriptors that lead to the monitor; `undefined` before the first start. */
  stdioKeys(): StdioKeys | undefined {
    return readStdioKeys(this.paths.stdio);
  }

  /** Ends it and takes its mounts, control group and interface away; its files (spec, layer, logs) stay. */
  async release(): Promise<UnitEnd | undefined> {
    if (this.cgroup.exists()) await this.kill();
    await this.#waitForMonitor();
    endLeftoverCriu(this.paths.restore, ['restore']);
    this.#around.streams.drop(this.id);
    await this.withdraw();
    await detachNetwork(this.id);
    unmountRootFileSystem(this.paths);
    await this.cgroup.remove();
    forgetContainer(this.runtime, this.id);
    rmSync(this.paths.run, { recursive: true, force: true });
    return readStatusRecord(this.paths.status)?.finished;
  }

  /** A monitor writes the end down and leaves; its files must not vanish under it. */
  async #waitForMonitor(): Promise<void> {
    const record = readStatusRecord(this.paths.status);
    const deadline = performance.now() + 5000;
    while (record !== undefined && recordIsAlive(record, 'monitor') && performance.now() < deadline) {
      await sleep(5);
    }
  }

  /** `release`, and its address and files too: nothing is left. */
  async remove(): Promise<void> {
    await this.release();
    await this.#around.addresses.release(this.id);
    rmSync(this.paths.state, { recursive: true, force: true });
  }

  /** Its OCI configuration, as it was written. */
  readBundle(): OciConfiguration {
    return JSON.parse(readFileSync(path.join(this.paths.bundle, 'config.json'), 'utf8')) as OciConfiguration;
  }

  /** What leads out of it, for a checkpoint. Throws `unit-not-running` (argument). */
  async externals(): Promise<UnitExternals> {
    const { pid } = await this.status();
    const stdio = this.stdioKeys();
    if (pid === undefined || stdio === undefined) throw this.#notRunning();
    const binds = this.readBundle().mounts.filter((mount) => mount.type === 'bind');
    return {
      mounts: externalMounts(mountsOf(pid), { binds, pts: this.paths.pts, host: mountsOf() }),
      stdio,
      consoleKeys: consoleKeys(stdio, await this.processes()),
      runtimeState: readRuntimeState(this.runtime, this.id),
    };
  }

  /** The snapshot from which its memory is still arriving (a lazy restore); `undefined` if all of it is here. */
  arrivingFrom(): SnapshotReference | undefined {
    try {
      return JSON.parse(readFileSync(this.paths.arriving, 'utf8')) as SnapshotReference;
    } catch {
      return undefined;
    }
  }

  /** Makes the directories that `launch` needs after a reboot. */
  ensureRunDirectory(): void {
    mkdirSync(this.paths.run, { recursive: true, mode: 0o700 });
  }
}
