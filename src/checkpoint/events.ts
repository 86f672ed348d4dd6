/** The phases of a checkpoint and of a restart, in the order in which they happen. */
export type CheckpointPhase =
  | 'preflight'
  | 'pre-save'
  | 'freeze'
  | 'dump'
  | 'thaw'
  | 'publish'
  | 'prepare'
  | 'restore'
  | 'resume';

/** What a checkpoint or restart of a unit tells while it works; loggers and progress displays are the readers. */
export type CheckpointEvent =
  | { kind: 'phase'; phase: CheckpointPhase; atMs: number }
  | { kind: 'progress'; phase: CheckpointPhase; doneBytes: number; totalBytes: number }
  | { kind: 'warning'; message: string };

/** Measured times of one checkpoint, all in milliseconds (H07). */
export interface CheckpointTimings {
  preflightMs: number;
  preSaveMs: number;
  /** From starting CRIU until the first process image arrived, when the unit is known to be frozen. */
  freezeMs: number;
  /** Processes stopped: from the first process image until CRIU had let the unit go. */
  frozenMs: number;
  /** Of the frozen time: until CRIU had written everything that it writes. */
  dumpMs: number;
  /** Of the frozen time: what reading memory and layers took beyond that. */
  readMs: number;
  /** Compressing, encrypting, syncing and publishing. */
  publishMs: number;
  totalMs: number;
}

/** What a checkpoint saw and stored, in bytes (H07). */
export interface CheckpointBytes {
  /** Pages of the unit's processes, without zero pages. */
  memory: number;
  /** Files of the writable layer and of /dev/shm. */
  layer: number;
  /** Everything else: CRIU's own images, shared memory, unlinked files. */
  images: number;
  /** Zero bytes that were met and not stored. */
  zero: number;
  /** Bytes that an earlier snapshot had already brought into the store. */
  known: number;
  /** Bytes that are new in the store, before compression. */
  new: number;
  /** Bytes appended to packs. */
  stored: number;
}

export type AfterCheckpoint = 'continue' | 'stop' | 'terminate';
