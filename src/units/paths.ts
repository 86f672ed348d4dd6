/** Where everything of a unit lies. */

import path from 'node:path';

/** The directories of a node: `--state` survives a reboot, `--run` does not. */
export interface NodeDirectories {
  stateDirectory: string;
  runDirectory: string;
}

/** Paths of one unit. */
export interface UnitPaths {
  /** `STATE/units/UNIT`. */
  state: string;
  spec: string;
  /** Written by the monitor; see `unit-status.ts`. */
  status: string;
  bundle: string;
  /** Writable layer and work directory of the overlay. */
  upper: string;
  work: string;
  logs: string;
  /** `RUN/units/UNIT`. */
  run: string;
  /** The mounted root file system. */
  rootfs: string;
  /** tmpfs that is /dev/shm of the unit. */
  shm: string;
  /** devpts that is /dev/pts of the unit. */
  pts: string;
  /** Where CRIU works while the unit is restored. */
  restore: string;
  /** What the monitor is to do; see `monitor-plan.ts`. */
  plan: string;
  /** Socket of the monitor. */
  socket: string;
  /** Exists while the memory of a lazily restored unit is still arriving. */
  arriving: string;
  /** Which descriptors of the unit lead to the monitor; see `monitor-stdio.ts`. */
  stdio: string;
  /** Which descriptors of the monitor are the other ends of them; see `held-streams.ts`. */
  streams: string;
}

/** The paths of a unit. */
export function unitPaths({ stateDirectory, runDirectory }: NodeDirectories, id: string): UnitPaths {
  const state = path.join(stateDirectory, 'units', id);
  const run = path.join(runDirectory, 'units', id);
  return {
    state,
    spec: path.join(state, 'spec.json'),
    status: path.join(state, 'status.json'),
    bundle: path.join(state, 'bundle'),
    upper: path.join(state, 'upper'),
    work: path.join(state, 'work'),
    logs: path.join(state, 'logs'),
    run,
    rootfs: path.join(run, 'rootfs'),
    shm: path.join(run, 'shm'),
    pts: path.join(run, 'pts'),
    restore: path.join(run, 'restore'),
    plan: path.join(run, 'monitor.json'),
    socket: path.join(run, 'monitor.sock'),
    arriving: path.join(run, 'arriving'),
    stdio: path.join(run, 'stdio.json'),
    streams: path.join(run, 'streams.json'),
  };
}

/** Where runc keeps what it knows of the units (`--root`). */
export function runtimeRoot(
  { runDirectory }: Pick<NodeDirectories, 'runDirectory'>,
  runtime: string,
): string {
  return path.join(runDirectory, runtime);
}
