/** All units of this node: preparing new ones, finding those that exist. */

import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { endLeftoverCriu } from '../criu/leftovers.ts';
import { CairnError } from '../errors.ts';
import { Cgroup } from '../linux/cgroups.ts';
import { Addresses, parseSubnet } from '../network/addresses.ts';
import { type Bridge, defaultBridge, ensureBridge } from '../network/bridge.ts';
import { removeUnfinished, writeDurably } from '../store/durable-file.ts';
import { maskedDirectories, maskedFiles, ociConfiguration } from './bundle.ts';
import { HeldStreams } from './held-streams.ts';
import { loadImage } from './oci-image.ts';
import { MonitorLauncher } from './monitor-client.ts';
import { type NodeDirectories, runtimeRoot, type UnitPaths, unitPaths } from './paths.ts';
import { copyRootAttributes, hostMountsFor } from './root-file-system.ts';
import { isUnitId, parseUnitSpec, type UnitSpec } from './spec.ts';
import { Unit, type UnitSurroundings } from './unit.ts';

/** What a node gives its units. */
export interface UnitsOptions extends NodeDirectories {
  tools: { runc: string; crun?: string; node?: string };
  /** Default: `cairn0`, 10.213.0.0/16. */
  bridge?: { name: string; subnet: string };
}

/** The units of a node. */
export class Units {
  readonly #options: UnitsOptions;
  readonly #around: UnitSurroundings;
  #bridging: Promise<void> = Promise.resolve();

  constructor(options: UnitsOptions) {
    this.#options = options;
    const { name, subnet } = options.bridge ?? defaultBridge;
    const bridge: Bridge = { name, subnet: parseSubnet(subnet) };
    this.#around = {
      bridge,
      addresses: new Addresses(path.join(options.stateDirectory, 'addresses'), bridge.subnet),
      monitors: new MonitorLauncher(options.tools.node),
      streams: new HeldStreams(),
      adopting: new Map(),
      hidden: [options.stateDirectory, options.runDirectory],
    };
  }

  /** Has what starts and restarts units ready before it is needed; see `MonitorLauncher`. Until `close`. */
  keepReady(): void {
    this.#around.monitors.keepReady();
  }

  /** Ends what was kept ready. Units run on. */
  close(): void {
    this.#around.monitors[Symbol.dispose]();
    this.#around.streams[Symbol.dispose]();
  }

  get bridge(): Bridge {
    return this.#around.bridge;
  }

  get addresses(): Addresses {
    return this.#around.addresses;
  }

  /**
   * Makes a unit: directories, address, control group with limits, bundle. Nothing runs yet and nothing is mounted.
   * A writable layer that lies in `units/UNIT/upper` already (from a snapshot) is taken as it is.
   *
   * On an error nothing is left. Throws `unit-exists` (argument), `address-taken`, `runtime-missing` …
   */
  async prepare(spec: UnitSpec): Promise<Unit> {
    parseUnitSpec(spec);
    const paths = unitPaths(this.#options, spec.id);
    if (existsSync(paths.spec)) {
      throw new CairnError('argument', 'unit-exists', `There is a unit ${spec.id} already.`);
    }
    mkdirSync(paths.state, { recursive: true, mode: 0o700 });
    let unit: Unit | undefined;
    try {
      unit = await this.#build(spec, paths);
      await writeDurably(paths.spec, [Buffer.from(`${JSON.stringify(spec, null, 1)}\n`)]);
      return unit;
    } catch (error) {
      if (unit !== undefined) await unit.remove();
      else {
        await new Cgroup(spec.id).remove().catch(() => {});
        await this.addresses.release(spec.id);
        rmSync(paths.state, { recursive: true, force: true });
      }
      throw error;
    }
  }

  /**
   * Makes a unit that exists and does not run ready to be launched again, after a `release` or a reboot: run directory,
   * control group, bundle. Its files stay. `spec` may differ from the one it had.
   */
  async renew(spec: UnitSpec): Promise<Unit> {
    parseUnitSpec(spec);
    const paths = unitPaths(this.#options, spec.id);
    const unit = await this.#build(spec, paths);
    await writeDurably(paths.spec, [Buffer.from(`${JSON.stringify(spec, null, 1)}\n`)]);
    return unit;
  }

  async #build(spec: UnitSpec, paths: UnitPaths): Promise<Unit> {
    for (const directory of [paths.bundle, paths.upper, paths.work, paths.logs, paths.run]) {
      mkdirSync(directory, { recursive: true, mode: directory === paths.upper ? 0o755 : 0o700 });
    }
    const unit = await this.#unit(spec, paths, true);
    copyRootAttributes(unit.lower, paths.upper);
    unit.cgroup.create();
    unit.cgroup.restrictDevices();
    // The limit of tasks comes later; see `MonitorPlan`.
    unit.cgroup.limit({ ...spec.resources, pids: undefined });
    if (unit.address !== undefined) await this.#ensureBridge();
    const empty = path.join(this.#options.runDirectory, 'empty');
    mkdirSync(empty, { recursive: true, mode: 0o555 });
    const { visible, covered } = hostMountsFor(spec, this.#around.hidden);
    const configuration = ociConfiguration(spec, {
      architecture: process.arch,
      rootfs: paths.rootfs,
      shm: paths.shm,
      pts: paths.pts,
      empty,
      cgroupPath: unit.cgroup.path,
      existing: new Set([...maskedFiles, ...maskedDirectories].filter((file) => existsSync(file))),
      hostMounts: visible,
      coveredDirectories: covered,
    });
    writeFileSync(path.join(paths.bundle, 'config.json'), JSON.stringify(configuration, null, 1), {
      mode: 0o600,
    });
    return unit;
  }

  /** One at a time: two would both find the rules missing, and add them. */
  #ensureBridge(): Promise<void> {
    const next = this.#bridging.then(() => ensureBridge(this.bridge));
    this.#bridging = next.catch(() => {});
    return next;
  }

  async #unit(spec: UnitSpec, paths: UnitPaths, allocate: boolean): Promise<Unit> {
    const { addresses } = this.#around;
    const { mode, address: wanted } = spec.network;
    const address =
      mode === 'none'
        ? undefined
        : allocate
          ? await addresses.allocate(spec.id, wanted)
          : await addresses.addressOf(spec.id);
    const runtime = { program: this.#program(spec.runtime), root: runtimeRoot(this.#options, spec.runtime) };
    const lower = await this.#lower(spec, paths);
    return new Unit({ spec, paths, runtime, lower, address }, this.#around);
  }

  #program(name: UnitSpec['runtime']): string {
    const program = this.#options.tools[name];
    if (program !== undefined) return program;
    throw new CairnError('environment', 'runtime-missing', `The OCI runtime ${name} is not installed.`, {
      remedy: 'Install it, or use the default runtime runc.',
    });
  }

  /** Found once: the archive of an image may be gone when the unit is opened again. */
  async #lower(spec: UnitSpec, paths: UnitPaths): Promise<string> {
    const file = path.join(paths.state, 'lower');
    if (existsSync(file)) return readFileSync(file, 'utf8');
    const lower = await this.#findLower(spec);
    writeFileSync(file, lower, { mode: 0o600 });
    return lower;
  }

  async #findLower(spec: UnitSpec): Promise<string> {
    const root = spec.rootFileSystem;
    switch (root.kind) {
      case 'host':
        return '/';
      case 'directory':
        if (existsSync(root.path)) return root.path;
        throw new CairnError('argument', 'root-missing', `The root file system ${root.path} does not exist.`);
      case 'oci':
        return (await loadImage(this.imageDirectory, root.path, root.reference)).rootfs;
    }
  }

  /** Where images are unpacked. */
  get imageDirectory(): string {
    return path.join(this.#options.stateDirectory, 'images');
  }

  /** The unit with that id; `undefined` if there is none. */
  async open(id: string): Promise<Unit | undefined> {
    if (!isUnitId(id)) return undefined;
    const paths = unitPaths(this.#options, id);
    if (!existsSync(paths.spec)) return undefined;
    const spec = parseUnitSpec(JSON.parse(readFileSync(paths.spec, 'utf8')));
    return this.#unit(spec, paths, false);
  }

  /** Ids of all units that were prepared and not removed. */
  list(): string[] {
    const directory = path.join(this.#options.stateDirectory, 'units');
    if (!existsSync(directory)) return [];
    return readdirSync(directory).filter((id) => existsSync(unitPaths(this.#options, id).spec));
  }

  /**
   * Directories of units that were never finished or only half removed (killed in between). Their remains are taken away, and what a daemon that was
   * killed has not finished writing in others; returns the ids of the former.
   */
  async sweep(): Promise<string[]> {
    const swept: string[] = [];
    for (const root of [this.#options.stateDirectory, this.#options.runDirectory]) {
      const directory = path.join(root, 'units');
      for (const id of existsSync(directory) ? readdirSync(directory).filter(isUnitId) : []) {
        const paths = unitPaths(this.#options, id);
        if (existsSync(paths.spec)) {
          // Only this: its monitor may be writing others.
          removeUnfinished(paths.spec);
          continue;
        }
        await this.#sweepOne(id);
        swept.push(id);
      }
    }
    return [...new Set(swept)];
  }

  async #sweepOne(id: string): Promise<void> {
    const paths = unitPaths(this.#options, id);
    const { detachNetwork } = await import('../network/attach.ts');
    const { unmountRootFileSystem } = await import('./root-file-system.ts');
    const { forgetContainer } = await import('./runtime.ts');
    const cgroup = new Cgroup(id);
    if (cgroup.exists()) await cgroup.kill();
    endLeftoverCriu(paths.restore, ['restore']);
    unmountRootFileSystem(paths);
    await cgroup.remove();
    await detachNetwork(id);
    for (const runtime of ['runc', 'crun']) {
      forgetContainer({ program: '', root: runtimeRoot(this.#options, runtime) }, id);
    }
    await this.addresses.release(id);
    rmSync(paths.run, { recursive: true, force: true });
    rmSync(paths.state, { recursive: true, force: true });
  }
}
