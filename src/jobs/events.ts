import Type from 'typebox';
import { Failure, JobState } from './job.ts';

const strict = { additionalProperties: false };
const Text = Type.String();
const Count = Type.Integer({ minimum: 0 });

/** Which job an event is about. */
const about = { at: Type.String({ format: 'date-time' }), job: Text, name: Text };

export const Phase = Type.Union([
  Type.Literal('preflight'),
  Type.Literal('pre-save'),
  Type.Literal('freeze'),
  Type.Literal('dump'),
  Type.Literal('thaw'),
  Type.Literal('publish'),
  Type.Literal('prepare'),
  Type.Literal('restore'),
  Type.Literal('resume'),
  Type.Literal('verify'),
]);

/** Why a checkpoint or restart happens. */
export const Trigger = Type.Union([Type.Literal('user'), Type.Literal('schedule'), Type.Literal('recovery')]);
export type Trigger = Type.Static<typeof Trigger>;

/** What a long operation tells while it works. */
export const OperationProgress = Type.Union([
  Type.Object({ kind: Type.Literal('phase'), phase: Phase, atMs: Type.Number() }, strict),
  Type.Object({ kind: Type.Literal('progress'), phase: Phase, doneBytes: Count, totalBytes: Count }, strict),
  Type.Object({ kind: Type.Literal('warning'), message: Text }, strict),
]);
export type OperationProgress = Type.Static<typeof OperationProgress>;

/**
 * Everything that can happen on a node. Loggers, `GET /events` and displays are its only readers; nothing is steered by events.
 */
export const NodeEvent = Type.Union(
  [
    Type.Object({ kind: Type.Literal('job-changed'), ...about, state: JobState }, strict),
    Type.Object({ kind: Type.Literal('job-removed'), ...about }, strict),
    Type.Object(
      { kind: Type.Literal('checkpoint-started'), ...about, sequence: Count, trigger: Trigger },
      strict,
    ),
    Type.Object(
      {
        kind: Type.Literal('checkpoint-finished'),
        ...about,
        sequence: Count,
        trigger: Trigger,
        frozenMs: Type.Number(),
        totalMs: Type.Number(),
        storedBytes: Count,
      },
      strict,
    ),
    Type.Object(
      {
        kind: Type.Literal('checkpoint-failed'),
        ...about,
        sequence: Count,
        trigger: Trigger,
        failure: Failure,
      },
      strict,
    ),
    Type.Object({ kind: Type.Literal('checkpoint-skipped'), ...about, reason: Text }, strict),
    Type.Object({ kind: Type.Literal('snapshot-removed'), ...about, sequence: Count, reason: Text }, strict),
    Type.Object(
      { kind: Type.Literal('restart-started'), ...about, sequence: Count, trigger: Trigger },
      strict,
    ),
    Type.Object(
      {
        kind: Type.Literal('restart-finished'),
        ...about,
        sequence: Count,
        trigger: Trigger,
        totalMs: Type.Number(),
      },
      strict,
    ),
    Type.Object(
      { kind: Type.Literal('restart-failed'), ...about, sequence: Count, trigger: Trigger, failure: Failure },
      strict,
    ),
    Type.Object(
      { kind: Type.Literal('recovery-planned'), ...about, decision: Text, inMs: Type.Number() },
      strict,
    ),
    Type.Object({ kind: Type.Literal('recovery-ended'), ...about, reason: Text }, strict),
    Type.Object({ kind: Type.Literal('job-found'), ...about, state: JobState }, strict),
    Type.Object({ kind: Type.Literal('job-warning'), ...about, message: Text }, strict),
    Type.Object({ kind: Type.Literal('node-warning'), at: about.at, message: Text }, strict),
  ],
  { title: 'NodeEvent' },
);
export type NodeEvent = Type.Static<typeof NodeEvent>;
export type NodeEventKind = NodeEvent['kind'];
