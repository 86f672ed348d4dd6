import type {
  AfterCheckpoint,
  CheckpointBytes,
  CheckpointEvent,
  CheckpointTimings,
} from '../checkpoint/events.ts';
import type { Obstacle } from '../checkpoint/obstacles.ts';
import type { State } from '../cluster/state.ts';
import type { SnapshotHeader } from '../store/manifest.ts';
import type { UnitSpec } from '../units/spec.ts';
import type { JobDescription } from './description.ts';
import type { NodeEvent } from './events.ts';

/** What the jobs room needs of a unit; `Unit` of the units room is one. */
export interface JobUnit {
  readonly id: string;
  start(): Promise<unknown>;
  status(): Promise<JobUnitStatus>;
  /** Resolves when the first process has ended; rejects when the signal aborts. */
  waitExit(signal?: AbortSignal): Promise<JobUnitStatus>;
  stop(options: { graceMs: number }): Promise<unknown>;
  suspend(): Promise<void>;
  resume(): Promise<void> | void;
  /** Waits while it is still being started or restored by somebody whom an earlier daemon told to. */
  settle(): Promise<void>;
  /** Sees to it that somebody keeps the output of a running unit: its monitor may have been killed. */
  ensureMonitored(): Promise<void>;
  /** Ends it, and takes away everything that it does not need without processes; its files and logs stay. */
  release(): Promise<unknown>;
  /** Removes everything that belongs to the unit, its logs and files included. */
  remove(): Promise<void>;
}

/** What the jobs room needs to know of the state of a unit. */
export interface JobUnitStatus {
  state: 'prepared' | 'running' | 'suspended' | 'exited' | 'gone';
  pid?: number;
  exitCode?: number;
  signal?: number;
  oomKilled?: boolean;
}

/** What the jobs room needs of the units. */
export interface JobUnits<U extends JobUnit> {
  /** A unit that is ready to be started from the beginning; one that has this id and does not run is made anew, its logs stay. */
  prepare(spec: UnitSpec): Promise<U>;
  open(id: string): Promise<U | undefined>;
}

/** What the jobs room needs of the store; `Store` fits. */
export interface JobSnapshots {
  snapshots(jobId?: string): Promise<SnapshotHeader[]>;
  nextSequence(jobId: string): Promise<number>;
  removeSnapshot(jobId: string, sequence: number): Promise<void>;
  /** Removes all snapshots of a job. */
  removeJob(jobId: string): Promise<void>;
  sweep(options: { signal: AbortSignal }): Promise<unknown>;
}

/** What is asked of the checkpoint room, for one unit. */
export interface CheckpointRequest<U> {
  unit: U;
  job: { id: string; name: string };
  jobDescription: unknown;
  sequence: number;
  then: AfterCheckpoint;
  deadlineMs: number;
  preSave: boolean;
  stagingLimitBytes?: number;
  note?: string;
  pinned?: boolean;
  onEvent: (event: CheckpointEvent) => void;
  signal: AbortSignal;
}

/** What a checkpoint brought. */
export interface CheckpointOutcome {
  sequence: number;
  timings: CheckpointTimings;
  bytes: CheckpointBytes;
}

/** What would happen at a checkpoint (H08, R18). */
export interface PreflightAnswer {
  obstacles: Obstacle[];
  warnings: Obstacle[];
  estimate: {
    memoryBytes: number;
    layerBytes: number;
    newBytes?: number;
    frozenMs: number;
    totalMs: number;
  };
}

/** What is asked of the checkpoint room for a restart. `unitId` may be that of a unit whose processes have ended; it is replaced. */
export interface RestartRequest {
  jobId: string;
  sequence: number;
  unitId: string;
  overrides: RestartOverrides;
  lazy: boolean;
  onEvent: (event: CheckpointEvent) => void;
  signal: AbortSignal;
}

/** What a clone must not share with the job that it comes from. */
export interface RestartOverrides {
  hostname?: string;
  /** `null`: a free address is chosen. */
  address?: string | null;
  /** Published ports; `[]` for none. */
  ports?: UnitSpec['network']['ports'];
}

/** What the jobs room needs of the checkpoint room, bound to this node's units and store. */
export interface JobCheckpointer<U extends JobUnit> {
  preflight(unit: U, options: { signal: AbortSignal }): Promise<PreflightAnswer>;
  checkpoint(request: CheckpointRequest<U>): Promise<CheckpointOutcome>;
  restart(request: RestartRequest): Promise<{ unit: U; timings: Record<string, number> }>;
  /** After a start of the daemon: ends what its predecessor had begun with the unit, a dump or a restart. */
  recover(unit: U): Promise<unknown>;
  /** The description that the job had when the snapshot was taken. Errors: as reading a manifest. */
  jobDescription(jobId: string, sequence: number): Promise<unknown>;
}

/** Turns a description into what a unit is made of. */
export type SpecifyUnit = (job: UnitRequest) => Promise<UnitSpec>;

/** The parts of a job that its unit is made from. */
export interface UnitRequest {
  unit: string;
  name: string;
  description: JobDescription;
}

/** Time, so that tests can have their own. */
export interface Clock {
  now(): number;
  /** Calls back once after so many milliseconds, unless the result is disposed of before. */
  after(ms: number, callback: () => void): Disposable;
}

/** Everything that the jobs room stands on. */
export interface JobsPorts<U extends JobUnit> {
  state: State;
  units: JobUnits<U>;
  snapshots: JobSnapshots;
  checkpointer: JobCheckpointer<U>;
  specify: SpecifyUnit;
  clock: Clock;
  emit(event: NodeEvent): void;
}

/** The clock of the system. Its timers do not keep the process alive. */
export const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, Math.min(ms, 2 ** 31 - 1));
    timer.unref();
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  },
};
