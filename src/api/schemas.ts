import Type from 'typebox';
import { JobDescription } from '../jobs/description.ts';
import { NodeEvent, OperationProgress } from '../jobs/events.ts';
import { AfterCheckpoint, Failure, Job } from '../jobs/job.ts';

const strict = { additionalProperties: false };
const Count = Type.Integer({ minimum: 0 });
const Milliseconds = Type.Number({ minimum: 0 });
const Sequence = Type.Integer({ minimum: 1 });

export { Failure, Job, JobDescription, NodeEvent };

/** In the path: a job. */
export const JobParams = Type.Object({
  job: Type.String({ description: 'Name of the job, its id, or the beginning of its id.' }),
});

/** In the path: a snapshot. */
export const SnapshotParams = Type.Object({ ...JobParams.properties, sequence: Sequence });

/** What `GET /node` answers. */
export const NodeInformation = Type.Object(
  {
    version: Type.String(),
    pid: Type.Integer(),
    startedAt: Type.String(),
    stateDirectory: Type.String(),
    runDirectory: Type.String(),
    jobs: Count,
    snapshots: Count,
    storedBytes: Type.Integer({ minimum: 0, description: 'Bytes of the store on disk.' }),
    host: Type.Record(Type.String(), Type.String(), { description: 'Kernel, CRIU, runtime and so on.' }),
  },
  { ...strict, title: 'NodeInformation' },
);
export type NodeInformation = Type.Static<typeof NodeInformation>;

/** A snapshot in a list. */
export const Snapshot = Type.Object(
  {
    job: Type.String(),
    name: Type.String(),
    sequence: Sequence,
    createdAt: Type.String(),
    state: Type.Union([Type.Literal('local'), Type.Literal('damaged')]),
    current: Type.Boolean({ description: 'The newest valid one of its job.' }),
    pinned: Type.Boolean(),
    note: Type.Optional(Type.String()),
    logicalBytes: Type.Integer({ minimum: 0, description: 'Everything in it, zeros included.' }),
    storedBytes: Type.Integer({ minimum: 0, description: 'What it added to the store.' }),
    damage: Type.Optional(Type.String({ description: 'Why it cannot be used.' })),
  },
  { ...strict, title: 'Snapshot' },
);
export type Snapshot = Type.Static<typeof Snapshot>;

/** What `GET /jobs/JOB/snapshots/SEQUENCE` answers. */
export const SnapshotDetails = Type.Object(
  {
    snapshot: Snapshot,
    description: Type.Unknown({ description: 'The job as it was described.' }),
    timings: Type.Record(Type.String(), Type.Number(), { description: 'Milliseconds.' }),
    host: Type.Record(Type.String(), Type.String()),
    units: Type.Array(
      Type.Object(
        {
          unit: Type.String(),
          images: Type.Array(Type.Object({ name: Type.String(), bytes: Count }, strict)),
          layers: Type.Array(Type.Object({ name: Type.String(), entries: Count, bytes: Count }, strict)),
        },
        strict,
      ),
    ),
  },
  { ...strict, title: 'SnapshotDetails' },
);
export type SnapshotDetails = Type.Static<typeof SnapshotDetails>;

/** What is known of the unit of a job. */
export const UnitDetails = Type.Object(
  {
    id: Type.String(),
    state: Type.Union([
      Type.Literal('prepared'),
      Type.Literal('running'),
      Type.Literal('suspended'),
      Type.Literal('exited'),
      Type.Literal('gone'),
    ]),
    pid: Type.Optional(Type.Integer({ description: 'First process, numbered as on the host.' })),
    startTime: Type.Optional(
      Type.Number({ description: 'Of the first process, in clock ticks since boot.' }),
    ),
    processes: Type.Array(Type.Integer(), { description: 'All processes, numbered as on the host.' }),
    address: Type.Optional(Type.String()),
  },
  { ...strict, title: 'UnitDetails' },
);
export type UnitDetails = Type.Static<typeof UnitDetails>;

/** What `GET /jobs/JOB` answers. */
export const JobDetails = Type.Object(
  { job: Job, unit: Type.Optional(UnitDetails), snapshots: Type.Array(Snapshot) },
  { ...strict, title: 'JobDetails' },
);
export type JobDetails = Type.Static<typeof JobDetails>;

/** What `GET /jobs/JOB/wait` answers. */
export const WaitResult = Type.Object(
  { job: Job, exitCode: Type.Integer({ description: 'As a shell gives it: 128 + number of the signal.' }) },
  { ...strict, title: 'WaitResult' },
);
export type WaitResult = Type.Static<typeof WaitResult>;

/** A line of output of a job. */
export const LogLine = Type.Object(
  {
    time: Type.String({ description: 'RFC 3339 with nanoseconds.' }),
    stream: Type.Union([Type.Literal('stdout'), Type.Literal('stderr')]),
    text: Type.String({ description: 'Without the newline.' }),
    partial: Type.Boolean({ description: 'The line goes on in the next one of the same stream.' }),
  },
  { ...strict, title: 'LogLine' },
);
export type LogLine = Type.Static<typeof LogLine>;

/** Body of `POST /jobs/JOB/checkpoints`. */
export const CheckpointBody = Type.Object(
  {
    then: Type.Optional(AfterCheckpoint),
    timeoutMs: Type.Optional(Type.Integer({ minimum: 1 })),
    preSave: Type.Optional(Type.Boolean()),
    stagingLimitBytes: Type.Optional(Type.Integer({ minimum: 1 })),
    pinned: Type.Optional(Type.Boolean()),
    note: Type.Optional(Type.String({ maxLength: 4096 })),
  },
  { ...strict, title: 'CheckpointBody' },
);
export type CheckpointBody = Type.Static<typeof CheckpointBody>;

/** What a checkpoint brought (H07). */
export const CheckpointResult = Type.Object(
  {
    job: Type.String(),
    name: Type.String(),
    sequence: Sequence,
    then: AfterCheckpoint,
    timings: Type.Record(Type.String(), Milliseconds, {
      description: 'preflightMs, preSaveMs, freezeMs, frozenMs, dumpMs, readMs, publishMs, totalMs.',
    }),
    bytes: Type.Record(Type.String(), Count, {
      description: 'memory, layer, images, zero, known, new, stored.',
    }),
  },
  { ...strict, title: 'CheckpointResult' },
);
export type CheckpointResult = Type.Static<typeof CheckpointResult>;

const Obstacle = Type.Object(
  {
    pid: Type.Integer({ description: 'On the host; 0 where no single process is meant.' }),
    unitPid: Type.Integer({ description: 'Inside the unit.' }),
    command: Type.String(),
    descriptor: Type.Optional(Type.Integer()),
    resource: Type.String(),
    reason: Type.String(),
    remedy: Type.String(),
  },
  strict,
);

/** What a checkpoint would meet (H08, R18). */
export const PreflightResult = Type.Object(
  {
    possible: Type.Boolean(),
    obstacles: Type.Array(Obstacle),
    warnings: Type.Array(Obstacle),
    estimate: Type.Object(
      {
        memoryBytes: Count,
        layerBytes: Count,
        newBytes: Type.Optional(Count),
        frozenMs: Milliseconds,
        totalMs: Milliseconds,
      },
      strict,
    ),
  },
  { ...strict, title: 'PreflightResult' },
);
export type PreflightResult = Type.Static<typeof PreflightResult>;

/** Body of `POST /jobs/JOB/restarts`. */
export const RestartBody = Type.Object(
  {
    sequence: Type.Optional(Sequence),
    lazy: Type.Optional(Type.Boolean({ description: 'Run before the memory has arrived.' })),
    clone: Type.Optional(Type.Boolean({ description: 'Start a second copy with its own name and address.' })),
    name: Type.Optional(Type.String({ description: 'Name of the clone.' })),
  },
  { ...strict, title: 'RestartBody' },
);
export type RestartBody = Type.Static<typeof RestartBody>;

/** What a restart brought. */
export const RestartResult = Type.Object(
  {
    job: Job,
    sequence: Sequence,
    timings: Type.Record(Type.String(), Milliseconds),
    skipped: Type.Array(Type.Object({ sequence: Sequence, reason: Type.String() }, strict)),
  },
  { ...strict, title: 'RestartResult' },
);
export type RestartResult = Type.Static<typeof RestartResult>;

/** What a verification found. */
export const VerifyResult = Type.Object(
  {
    snapshots: Type.Array(
      Type.Object(
        {
          job: Type.String(),
          name: Type.String(),
          sequence: Sequence,
          valid: Type.Boolean(),
          damage: Type.Array(Type.String(), { description: 'What is damaged, by name.' }),
        },
        strict,
      ),
    ),
  },
  { ...strict, title: 'VerifyResult' },
);
export type VerifyResult = Type.Static<typeof VerifyResult>;

/** Body of `POST /jobs/JOB/execs`. */
export const ExecBody = Type.Object(
  {
    command: Type.Array(Type.String(), { minItems: 1 }),
    environment: Type.Optional(Type.Record(Type.String(), Type.String())),
    user: Type.Optional(Type.String()),
    workingDirectory: Type.Optional(Type.String()),
    terminal: Type.Optional(Type.Boolean()),
    stdin: Type.Optional(Type.Boolean()),
    columns: Type.Optional(Type.Integer({ minimum: 1, maximum: 65535 })),
    rows: Type.Optional(Type.Integer({ minimum: 1, maximum: 65535 })),
  },
  { ...strict, title: 'ExecBody' },
);
export type ExecBody = Type.Static<typeof ExecBody>;

/** What `POST /jobs/JOB/execs` answers: open `GET /execs/ID/stream` within ten seconds. */
export const ExecTicket = Type.Object({ id: Type.String() }, { ...strict, title: 'ExecTicket' });
export type ExecTicket = Type.Static<typeof ExecTicket>;

/** A line of the answer of a long operation: progress, then exactly one result or error. */
export function OperationLine<T extends Type.TSchema>(result: T) {
  return Type.Union([
    ...OperationProgress.anyOf,
    Type.Object({ kind: Type.Literal('result'), result }, strict),
    Type.Object({ kind: Type.Literal('error'), error: Failure }, strict),
  ]);
}
/** See `OperationLine`. */
export type OperationLine<T> =
  | OperationProgress
  | { kind: 'result'; result: T }
  | { kind: 'error'; error: Failure };
