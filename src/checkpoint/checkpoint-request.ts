import type { Unit } from '../units/unit.ts';
import type { AfterCheckpoint, CheckpointBytes, CheckpointEvent, CheckpointTimings } from './events.ts';

/** One checkpoint of one unit. */
export interface CheckpointRequest {
  unit: Unit;
  job: { id: string; name: string };
  jobDescription: unknown;
  sequence: number;
  then: AfterCheckpoint;
  /** From the call until the unit runs on; then everything is given up and the unit runs as before (R21). */
  deadlineMs: number;
  preSave: boolean;
  /** New chunks that are held in memory while the unit is frozen; more are written out at once, and freeze it longer. */
  stagingLimitBytes?: number;
  note?: string;
  pinned?: boolean;
  onEvent: (event: CheckpointEvent) => void;
  signal: AbortSignal;
}

export interface CheckpointResult {
  sequence: number;
  timings: CheckpointTimings;
  bytes: CheckpointBytes;
}
