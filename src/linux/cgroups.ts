/**
 * The control group of a unit, at the same path in every hierarchy: version 1, version 2 and both at once (hybrid).
 *
 * Every path that is written to contains `/cairn/`, and a group is removed only when it is empty: the groups of others,
 * above all the root, are never touched, except that version 2 controllers are switched on for children, where systemd
 * or a container engine has not done so already.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CairnError, systemCode } from '../errors.ts';
import { findHierarchies, type Hierarchy } from './cgroup-hierarchies.ts';
import { openPidfd, signalPidfd } from './pidfd.ts';
import { close } from './libc.ts';

/** Limits of a control group; what is left out is unlimited. */
export interface CgroupLimits {
  memoryBytes?: number | undefined;
  /** Processors, for example 0.5. */
  cpus?: number | undefined;
  /** Tasks (threads count). */
  pids?: number | undefined;
}

const SIGKILL = 9;

/** A control group below `/cairn`. Making the object does nothing; `create` does. */
export class Cgroup {
  /** As in /proc/PID/cgroup: `/cairn/NAME`. */
  readonly path: string;
  readonly hierarchies: readonly Hierarchy[];

  constructor(name: string, hierarchies: readonly Hierarchy[] = findHierarchies()) {
    if (!/^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(name))
      throw new RangeError(`'${name}' cannot name a control group`);
    this.path = `/cairn/${name}`;
    this.hierarchies = hierarchies;
  }

  /** Its directory in every hierarchy. */
  directories(): string[] {
    return this.hierarchies.map((hierarchy) => this.#directory(hierarchy));
  }

  #directory(hierarchy: Hierarchy): string {
    return path.join(hierarchy.mountPoint, this.path);
  }

  /** The directory in the version 1 hierarchy of a controller. */
  #controller(name: string): string | undefined {
    const hierarchy = this.hierarchies.find((h) => h.version === 1 && h.controllers.includes(name));
    return hierarchy && this.#directory(hierarchy);
  }

  get #unified(): string | undefined {
    const hierarchy = this.hierarchies.find((h) => h.version === 2);
    return hierarchy && this.#directory(hierarchy);
  }

  /**
   * Makes the group in every hierarchy; it may exist. Throws `cgroup-missing` (environment) on a host without any.
   */
  create(): void {
    if (this.hierarchies.length === 0) {
      throw new CairnError('environment', 'cgroup-missing', 'No cgroup file system is mounted.', {
        remedy: 'mount -t cgroup2 none /sys/fs/cgroup',
      });
    }
    for (const hierarchy of this.hierarchies) {
      const parent = parentIn(hierarchy);
      const directory = this.#directory(hierarchy);
      // First, so that the parent cannot vanish: whoever removes the last group takes it along.
      makeWithParent(directory);
      if (hierarchy.version === 2) {
        enableControllers(hierarchy.mountPoint);
        enableControllers(parent);
      }
      if (hierarchy.controllers.includes('cpuset')) {
        // A version 1 cpuset group starts with no processor and accepts no task until it has some.
        for (const [from, to] of [
          [hierarchy.mountPoint, parent],
          [parent, directory],
        ] as const) {
          inherit(from, to, 'cpuset.cpus');
          inherit(from, to, 'cpuset.mems');
        }
      }
    }
  }

  /** True if it exists in at least one hierarchy. */
  exists(): boolean {
    return this.directories().some((directory) => existsSync(directory));
  }

  /** Sets limits. Throws `cgroup-limit-refused` (argument) if the kernel does not accept a value. */
  limit(limits: CgroupLimits): void {
    const set = (directory: string | undefined, file: string, value: string) => {
      if (directory === undefined || !existsSync(path.join(directory, file))) {
        throw new CairnError(
          'environment',
          'cgroup-controller-missing',
          `Cannot limit by ${file}: no controller.`,
        );
      }
      try {
        write(directory, file, value);
      } catch (cause) {
        throw new CairnError('argument', 'cgroup-limit-refused', `The kernel refuses ${file} = ${value}.`, {
          cause,
        });
      }
    };
    const { memoryBytes, cpus, pids } = limits;
    if (memoryBytes !== undefined) {
      const v1 = this.#controller('memory');
      if (v1) set(v1, 'memory.limit_in_bytes', String(memoryBytes));
      else set(this.#unified, 'memory.max', String(memoryBytes));
    }
    if (cpus !== undefined) {
      const period = 100_000;
      const quota = Math.max(1000, Math.round(cpus * period));
      const v1 = this.#controller('cpu');
      if (v1) {
        set(v1, 'cpu.cfs_period_us', String(period));
        set(v1, 'cpu.cfs_quota_us', String(quota));
      } else set(this.#unified, 'cpu.max', `${quota} ${period}`);
    }
    if (pids !== undefined) set(this.#controller('pids') ?? this.#unified, 'pids.max', String(pids));
  }

  /**
   * Version 1 only: allows the devices that OCI runtimes allow, and no other. (With version 2 the runtime attaches a
   * program; a restored unit is then protected by its user namespace alone, in which no device node can be made.)
   */
  restrictDevices(): void {
    const directory = this.#controller('devices');
    if (directory === undefined) return;
    write(directory, 'devices.deny', 'a');
    for (const rule of allowedDevices) write(directory, 'devices.allow', rule);
  }

  /** Moves a process with all its threads into the group in every hierarchy. */
  add(pid: number): void {
    for (const directory of this.directories()) write(directory, 'cgroup.procs', String(pid));
  }

  /** True if both versions are mounted. */
  get isHybrid(): boolean {
    return this.#unified !== undefined && this.hierarchies.some((h) => h.version === 1);
  }

  /** Moves a process into the version 2 hierarchy only: on a hybrid host runc leaves that out. */
  addToUnified(pid: number): void {
    if (this.#unified !== undefined) write(this.#unified, 'cgroup.procs', String(pid));
  }

  /** PIDs of all processes in it, in any hierarchy. */
  processes(): number[] {
    const pids = new Set<number>();
    for (const directory of this.directories()) {
      for (const pid of read(directory, 'cgroup.procs').split('\n')) if (pid !== '') pids.add(Number(pid));
    }
    return [...pids].sort((a, b) => a - b);
  }

  /** Stops all its processes; returns when they have stopped. Throws `cgroup-freeze-timeout` (temporary) and thaws. */
  async freeze(timeoutMs = 10_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    this.#setFrozen(true);
    while (!this.isFrozen()) {
      if (performance.now() > deadline) {
        this.#setFrozen(false);
        throw new CairnError(
          'temporary',
          'cgroup-freeze-timeout',
          `${this.path} did not freeze in ${timeoutMs} ms.`,
        );
      }
      await sleep(2);
    }
  }

  /** Asks for what `freeze` waits for: whoever is held by a tracer does not execute anything when it is let go. */
  requestFreeze(): void {
    this.#setFrozen(true);
  }

  /** Lets all its processes run. */
  thaw(): void {
    this.#setFrozen(false);
  }

  // The freezer of version 2 is preferred: its tasks can be killed and traced while they are frozen.
  #setFrozen(frozen: boolean): void {
    const v1 = this.#controller('freezer');
    if (this.#usesUnifiedFreezer()) write(this.#unified as string, 'cgroup.freeze', frozen ? '1' : '0');
    else if (v1 !== undefined) write(v1, 'freezer.state', frozen ? 'FROZEN' : 'THAWED');
    else throw new CairnError('environment', 'cgroup-controller-missing', 'This host has no freezer.');
  }

  #usesUnifiedFreezer(): boolean {
    return this.#unified !== undefined && existsSync(path.join(this.#unified, 'cgroup.freeze'));
  }

  isFrozen(): boolean {
    if (this.#usesUnifiedFreezer()) return /^frozen 1$/m.test(read(this.#unified as string, 'cgroup.events'));
    const v1 = this.#controller('freezer');
    return v1 !== undefined && read(v1, 'freezer.state').trim() === 'FROZEN';
  }

  /** Bytes of memory in use; 0 where the controller is missing. */
  memoryBytes(): number {
    const v1 = this.#controller('memory');
    const text = v1 ? read(v1, 'memory.usage_in_bytes') : read(this.#unified ?? '', 'memory.current');
    return Number(text) || 0;
  }

  /** How many of its processes the kernel has killed for want of memory. */
  oomKills(): number {
    const v1 = this.#controller('memory');
    const text = v1 ? read(v1, 'memory.oom_control') : read(this.#unified ?? '', 'memory.events');
    return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
  }

  /**
   * Kills all its processes, frozen ones too, and waits until they are gone. Throws `cgroup-busy` (temporary) if some
   * are left after `timeoutMs`.
   */
  async kill(timeoutMs = 10_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (let pauseMs = 1; ; pauseMs = Math.min(20, pauseMs * 2)) {
      const pids = this.processes();
      if (pids.length === 0) return;
      for (const pid of pids) this.#killOne(pid);
      // A task that the version 1 freezer holds dies only when it is let go.
      this.thaw();
      if (performance.now() > deadline) {
        throw new CairnError(
          'temporary',
          'cgroup-busy',
          `${this.path} still has processes: ${pids.join(', ')}.`,
        );
      }
      await sleep(pauseMs);
    }
  }

  #killOne(pid: number): void {
    const pidfd = openPidfd(pid);
    if (pidfd === undefined) return;
    try {
      // Asked again now that the descriptor holds it: the number may have passed to another process.
      if (this.holds(pid)) signalPidfd(pidfd, SIGKILL);
    } finally {
      close(pidfd);
    }
  }

  /** True if a process is in this group, in any hierarchy. */
  holds(pid: number): boolean {
    return read(`/proc/${pid}`, 'cgroup')
      .split('\n')
      .some((line) => line.slice(line.indexOf(':', line.indexOf(':') + 1) + 1) === this.path);
  }

  /**
   * Removes the group (and groups that its processes made below it) from every hierarchy, and `/cairn` with the last one; all must be empty. Throws
   * `cgroup-busy` (temporary) otherwise.
   */
  async remove(timeoutMs = 2000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (const directory of this.directories()) {
      while (!removeTree(directory)) {
        if (performance.now() > deadline) {
          const pids = this.processes().join(', ');
          throw new CairnError(
            'temporary',
            'cgroup-busy',
            `${directory} cannot be removed, it holds: ${pids}`,
          );
        }
        await sleep(5);
      }
    }
    for (const hierarchy of this.hierarchies) removeIfUnused(parentIn(hierarchy));
  }
}

const makeAttempts = 100;

/** Makes a group and its parent, which somebody else may remove between the two. */
function makeWithParent(directory: string): void {
  for (let attempt = 1; ; attempt++)
    try {
      mkdirSync(directory, { recursive: true });
      return;
    } catch (error) {
      if (systemCode(error) !== 'ENOENT' || attempt === makeAttempts) throw error;
    }
}

/** The group of all groups of Cairn. */
function parentIn(hierarchy: Hierarchy): string {
  return path.join(hierarchy.mountPoint, 'cairn');
}

/** The last one out takes the parent along; the kernel refuses it while there is another group or a process. */
function removeIfUnused(parent: string): void {
  try {
    rmdirSync(parent);
  } catch (error) {
    if (!['EBUSY', 'ENOTEMPTY', 'ENOENT'].includes(systemCode(error) ?? '')) throw error;
  }
}

/** Character devices of an OCI container: node creation of any, use of null, zero, full, random, urandom, tty, ptmx, ptys. */
const allowedDevices = [
  'c *:* m',
  'b *:* m',
  'c 1:3 rwm',
  'c 1:5 rwm',
  'c 1:7 rwm',
  'c 1:8 rwm',
  'c 1:9 rwm',
  'c 5:0 rwm',
  'c 5:2 rwm',
  'c 136:* rwm',
];

function read(directory: string, file: string): string {
  try {
    return readFileSync(path.join(directory, file), 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENODEV', 'ESRCH'].includes(systemCode(error) ?? '')) return '';
    throw error;
  }
}

function write(directory: string, file: string, value: string): void {
  if (!directory.includes('/cairn/'))
    throw new RangeError(`refuse to write ${file} of the foreign ${directory}`);
  writeFileSync(path.join(directory, file), value);
}

/** Copies a cpuset value from the parent if the child has none. */
function inherit(parent: string, child: string, file: string): void {
  if (read(child, file).trim() === '') writeFileSync(path.join(child, file), read(parent, file));
}

/** Version 2: makes the controllers that limits need available to the children of a group. */
function enableControllers(directory: string): void {
  const available = read(directory, 'cgroup.controllers').trim().split(' ');
  const enabled = read(directory, 'cgroup.subtree_control').trim().split(' ');
  for (const controller of ['memory', 'cpu', 'pids']) {
    if (!available.includes(controller) || enabled.includes(controller)) continue;
    try {
      writeFileSync(path.join(directory, 'cgroup.subtree_control'), `+${controller}`);
    } catch {
      // `limit` reports it if it matters.
    }
  }
}

/** Removes a directory tree of cgroups, deepest first; false if one is busy. */
function removeTree(directory: string): boolean {
  if (!directory.includes('/cairn/')) throw new RangeError(`refuse to remove the foreign ${directory}`);
  if (!existsSync(directory)) return true;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory() && !removeTree(path.join(directory, entry.name))) return false;
  }
  try {
    rmdirSync(directory);
    return true;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return true;
    if (systemCode(error) === 'EBUSY') return false;
    throw error;
  }
}
