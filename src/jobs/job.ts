import { randomBytes } from 'node:crypto';
import Type from 'typebox';
import { Compile } from 'typebox/compile';
import { CairnError, fullDiskError } from '../errors.ts';
import { JobDescription } from './description.ts';
import { jobIdPattern, jobNamePattern } from './job-reference.ts';

const Time = Type.String({ format: 'date-time', description: 'Time, ISO 8601 in UTC.' });
const Sequence = Type.Integer({ minimum: 1, description: 'Sequence number of a snapshot.' });
const strict = { additionalProperties: false };

/** An expected failure as it is kept and sent: see `CairnError`. */
export const Failure = Type.Object(
  {
    class: Type.Union([
      Type.Literal('argument'),
      Type.Literal('temporary'),
      Type.Literal('permanent'),
      Type.Literal('environment'),
    ]),
    code: Type.String(),
    message: Type.String(),
    remedy: Type.Optional(Type.String()),
    lines: Type.Array(Type.String()),
  },
  { ...strict, title: 'Failure' },
);
export type Failure = Type.Static<typeof Failure>;

/** What happens to a job after its checkpoint (R20). */
export const AfterCheckpoint = Type.Union([
  Type.Literal('continue'),
  Type.Literal('stop'),
  Type.Literal('terminate'),
]);
export type AfterCheckpoint = Type.Static<typeof AfterCheckpoint>;

/** How the first process of a job ended. */
export const Ending = Type.Object(
  {
    code: Type.Optional(Type.Integer({ description: 'Exit code, if it ended by itself.' })),
    signal: Type.Optional(Type.Integer({ description: 'Number of the signal, if one ended it.' })),
    outOfMemory: Type.Optional(Type.Boolean()),
    lost: Type.Optional(Type.Boolean({ description: 'It was gone, and nobody knows how (a reboot).' })),
  },
  strict,
);
export type Ending = Type.Static<typeof Ending>;

/** What the restart policy will do, and when. */
export const NextAttempt = Type.Object(
  { at: Time, by: Type.Union([Type.Literal('restart'), Type.Literal('start-over')]) },
  strict,
);
export type NextAttempt = Type.Static<typeof NextAttempt>;

const since = { since: Time };

/** States without processes: what a restart begins with, and goes back to when it fails. */
export const RestingState = Type.Union(
  [
    Type.Object({ kind: Type.Literal('created'), ...since }, strict),
    Type.Object({ kind: Type.Literal('exited'), ...since, code: Type.Integer() }, strict),
    Type.Object(
      { kind: Type.Literal('stopped'), ...since, ending: Ending, sequence: Type.Optional(Sequence) },
      strict,
    ),
    Type.Object(
      {
        kind: Type.Literal('crashed'),
        ...since,
        ending: Ending,
        next: Type.Optional(NextAttempt),
        gaveUp: Type.Optional(Type.String({ description: 'Why the restart policy does nothing more.' })),
      },
      strict,
    ),
    Type.Object({ kind: Type.Literal('failed'), ...since, failure: Failure }, strict),
  ],
  { title: 'RestingState' },
);
export type RestingState = Type.Static<typeof RestingState>;

/**
 * The state of a job; each has only the fields that mean something in it.
 *
 * ```
 *  created ──start──▶ starting ──started──▶ running ◀──resume── suspended
 *                        │                  │  ▲ │ ──suspend──────▲   │
 *                 start-failed    checkpoint│  │ │                │   │
 *                        ▼                  ▼  │ │                │   │
 *                      failed          checkpointing ──(then stop)┘   │
 *                                           │  (continue, or it failed: running)
 *                                           └──(then terminate)──▶ stopped
 *  running, checkpointing, suspended ──ended──▶ exited | crashed
 *  running, checkpointing, suspended ──stop──▶ stopping ──ended──▶ stopped
 *  created, exited, stopped, crashed, failed ──restart──▶ restarting ──restarted──▶ running
 *                                       ▲                  │
 *                                       └──restart-failed──┘ (back to what it was)
 *  exited, stopped, crashed, failed ──start──▶ starting (restart policy: from the beginning)
 *  everything ──remove──▶ removing
 * ```
 */
export const JobState = Type.Union(
  [
    ...RestingState.anyOf,
    Type.Object({ kind: Type.Literal('starting'), ...since }, strict),
    Type.Object({ kind: Type.Literal('running'), ...since, startedAt: Time }, strict),
    Type.Object(
      {
        kind: Type.Literal('checkpointing'),
        ...since,
        startedAt: Time,
        sequence: Sequence,
        then: AfterCheckpoint,
      },
      strict,
    ),
    Type.Object(
      { kind: Type.Literal('suspended'), ...since, startedAt: Time, sequence: Type.Optional(Sequence) },
      strict,
    ),
    Type.Object({ kind: Type.Literal('stopping'), ...since, startedAt: Time }, strict),
    Type.Object(
      { kind: Type.Literal('restarting'), ...since, sequence: Sequence, before: RestingState },
      strict,
    ),
    Type.Object({ kind: Type.Literal('removing'), ...since }, strict),
  ],
  { title: 'JobState' },
);
export type JobState = Type.Static<typeof JobState>;
export type JobStateKind = JobState['kind'];

/** What can happen to a job. */
export type JobAction =
  | { kind: 'start' }
  | { kind: 'started' }
  | { kind: 'start-failed'; failure: Failure }
  | { kind: 'checkpoint'; sequence: number; then: AfterCheckpoint }
  | { kind: 'checkpointed' }
  | { kind: 'checkpoint-failed' }
  | { kind: 'suspend' }
  | { kind: 'resume' }
  | { kind: 'stop' }
  | { kind: 'restart'; sequence: number }
  | { kind: 'restarted' }
  | { kind: 'restart-failed' }
  /** `crash` says whether the restart policy takes this ending for a crash. */
  | { kind: 'ended'; ending: Ending; crash: boolean }
  | { kind: 'retry-later'; next: NextAttempt }
  | { kind: 'give-up'; reason: string }
  | { kind: 'remove' };

/** The state after an action, or `undefined` if the action makes no sense in this state. Pure. */
export function nextState(state: JobState, action: JobAction, now: Date): JobState | undefined {
  const since = now.toISOString();
  switch (action.kind) {
    case 'start':
      return isResting(state) ? { kind: 'starting', since } : undefined;
    case 'started':
      return state.kind === 'starting' ? { kind: 'running', since, startedAt: since } : undefined;
    case 'start-failed':
      return state.kind === 'starting' ? { kind: 'failed', since, failure: action.failure } : undefined;
    case 'checkpoint': {
      if (state.kind !== 'running') return undefined;
      const { startedAt } = state;
      return { kind: 'checkpointing', since, startedAt, sequence: action.sequence, then: action.then };
    }
    case 'checkpointed': {
      if (state.kind !== 'checkpointing') return undefined;
      const { startedAt, sequence } = state;
      if (state.then === 'stop') return { kind: 'suspended', since, startedAt, sequence };
      if (state.then === 'terminate') return { kind: 'stopped', since, ending: { signal: 9 }, sequence };
      return { kind: 'running', since, startedAt };
    }
    case 'checkpoint-failed':
      return state.kind === 'checkpointing'
        ? { kind: 'running', since, startedAt: state.startedAt }
        : undefined;
    case 'suspend':
      return state.kind === 'running' ? { kind: 'suspended', since, startedAt: state.startedAt } : undefined;
    case 'resume':
      return state.kind === 'suspended' ? { kind: 'running', since, startedAt: state.startedAt } : undefined;
    case 'stop':
      if (state.kind === 'running' || state.kind === 'checkpointing' || state.kind === 'suspended') {
        return { kind: 'stopping', since, startedAt: state.startedAt };
      }
      return undefined;
    case 'restart':
      if (!isResting(state)) return undefined;
      return { kind: 'restarting', since, sequence: action.sequence, before: state };
    case 'restarted':
      return state.kind === 'restarting' ? { kind: 'running', since, startedAt: since } : undefined;
    case 'restart-failed':
      return state.kind === 'restarting' ? state.before : undefined;
    case 'ended':
      return afterEnd(state, action.ending, action.crash, since);
    case 'retry-later':
      return state.kind === 'crashed' ? { ...withoutPlan(state), next: action.next } : undefined;
    case 'give-up':
      return state.kind === 'crashed' ? { ...withoutPlan(state), gaveUp: action.reason } : undefined;
    case 'remove':
      return state.kind === 'removing' ? undefined : { kind: 'removing', since };
    default:
      return action satisfies never;
  }
}

/** True in states in which the job has no processes and nothing is going on. */
export function isResting(state: JobState): state is RestingState {
  switch (state.kind) {
    case 'created':
    case 'exited':
    case 'stopped':
    case 'crashed':
    case 'failed':
      return true;
    case 'starting':
    case 'running':
    case 'checkpointing':
    case 'suspended':
    case 'stopping':
    case 'restarting':
    case 'removing':
      return false;
    default:
      return state satisfies never;
  }
}

/** True when nothing will happen to the job any more unless somebody asks for it. */
export function isFinal(state: JobState): boolean {
  return (
    isResting(state) && state.kind !== 'created' && !(state.kind === 'crashed' && state.next !== undefined)
  );
}

/** The exit code that a shell would give for a state without processes: 128 + signal for a signal; 1 where there is none. */
export function exitCodeOf(state: JobState): number {
  switch (state.kind) {
    case 'exited':
      return state.code;
    case 'stopped':
    case 'crashed':
      return state.ending.code ?? (state.ending.signal === undefined ? 1 : 128 + state.ending.signal);
    default:
      return 1;
  }
}

function afterEnd(state: JobState, ending: Ending, crash: boolean, since: string): JobState | undefined {
  switch (state.kind) {
    case 'stopping':
      return { kind: 'stopped', since, ending };
    case 'starting':
    case 'running':
    case 'checkpointing':
    case 'suspended':
      if (crash || ending.code === undefined) return { kind: 'crashed', since, ending };
      return { kind: 'exited', since, code: ending.code };
    default:
      return undefined;
  }
}

function withoutPlan(state: JobState & { kind: 'crashed' }): JobState & { kind: 'crashed' } {
  return { kind: 'crashed', since: state.since, ending: state.ending };
}

/** A job as it is kept in the state under `jobs/ID`. */
export const Job = Type.Object(
  {
    id: Type.String({ pattern: jobIdPattern }),
    name: Type.String({ pattern: jobNamePattern }),
    createdAt: Time,
    unit: Type.String({ description: 'Id of its unit, the same for the whole life of the job.' }),
    description: JobDescription,
    state: JobState,
    restarts: Type.Object(
      {
        total: Type.Integer({ minimum: 0 }),
        attempts: Type.Integer({
          minimum: 0,
          description: 'By the restart policy, one after the other without the job lasting.',
        }),
        lastSequence: Type.Optional(Sequence),
      },
      strict,
    ),
    checkpoints: Type.Object(
      {
        failures: Type.Integer({ minimum: 0, description: 'One after the other, since the last success.' }),
        lastAt: Type.Optional(Time),
        lastSequence: Type.Optional(Sequence),
        lastFailure: Type.Optional(Type.Object({ at: Time, sequence: Sequence, failure: Failure }, strict)),
      },
      strict,
    ),
    clonedFrom: Type.Optional(
      Type.Object(
        { job: Type.String(), sequence: Type.Optional(Sequence) },
        { ...strict, description: 'Whose snapshot it began with.' },
      ),
    ),
  },
  { ...strict, title: 'Job' },
);
export type Job = Type.Static<typeof Job>;

const compiledJob = Compile(Job);

/** Parses a job that was read from the state. Error: `job-record-invalid`. */
export function parseJob(value: unknown): Job {
  if (compiledJob.Check(value)) return value;
  const [first] = compiledJob.Errors(value);
  throw new CairnError(
    'permanent',
    'job-record-invalid',
    `A job in the state of the node cannot be read: ${first?.instancePath ?? ''} ${first?.message ?? ''}.`,
    { remedy: 'It was written by another version of Cairn; use that one, or a newer one.' },
  );
}

/** A fresh id of a job: `j-` and 12 hexadecimal digits. */
export function newJobId(): string {
  return `j-${randomBytes(6).toString('hex')}`;
}

/** An error in the form in which it is kept and sent; one that is not expected becomes `internal`. */
export function failureOf(thrown: unknown): Failure {
  const error = fullDiskError(thrown) ?? thrown;
  if (error instanceof CairnError) {
    return {
      class: error.class,
      code: error.code,
      message: error.message,
      lines: [...error.lines],
      ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    };
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const [message = text, ...lines] = text.split('\n');
  return {
    class: 'permanent',
    code: 'internal',
    message: `Cairn itself failed: ${message}`,
    lines,
    remedy: 'This is a defect of Cairn; please report it with these lines and the log of the node.',
  };
}
