import type { State } from '../cluster/state.ts';
import { CairnError } from '../errors.ts';
import type { NodeEvent } from './events.ts';
import { type Job, type JobAction, type JobState, nextState, parseJob } from './job.ts';
import type { Clock } from './ports.ts';

const prefix = 'jobs/';

/** An event about a job without what every such event has. */
type EventAbout = NodeEvent extends infer E
  ? E extends { job: string }
    ? Omit<E, 'at' | 'job' | 'name'>
    : never
  : never;

/** What changes besides the state, in the same write. */
export type JobChanges = Partial<Pick<Job, 'restarts' | 'checkpoints' | 'description'>>;

/** Actions that say what has happened already: no failure to write them down can undo it. */
const happened: ReadonlySet<JobAction['kind']> = new Set([
  'started',
  'start-failed',
  'checkpointed',
  'checkpoint-failed',
  'resume',
  'restarted',
  'restart-failed',
  'ended',
  'retry-later',
  'give-up',
]);

/** After which time a state that could not be written is tried again, in milliseconds. */
const writeAgainMs = 1000;

/**
 * One job in the state of the node: the only place that changes it. Every change is durable before it is acted on; what has happened by
 * itself is known at once, and written again and again if it cannot be written (a full disk). A daemon that ends before that finds out
 * for itself, as after every interruption.
 */
export class JobRecord {
  readonly #state: State;
  readonly #clock: Clock;
  readonly #emit: (event: NodeEvent) => void;
  #job: Job;
  #revision: number;
  #unwritten: Disposable | undefined;

  private constructor(ports: RecordPorts, job: Job, revision: number) {
    this.#state = ports.state;
    this.#clock = ports.clock;
    this.#emit = ports.emit;
    this.#job = job;
    this.#revision = revision;
  }

  /** Writes a new job. Error: `job-exists`. */
  static async create(ports: RecordPorts, job: Job): Promise<JobRecord> {
    const revision = await ports.state.compareAndSwap(prefix + job.id, 0, job);
    if (revision === undefined) {
      throw new CairnError('argument', 'job-exists', `There is already a job with the id ${job.id}.`);
    }
    const record = new JobRecord(ports, job, revision);
    record.tell({ kind: 'job-changed', state: job.state });
    return record;
  }

  /** All jobs of the state. Error: `job-record-invalid`. */
  static async list(ports: RecordPorts): Promise<JobRecord[]> {
    const entries = await ports.state.list(prefix);
    return entries.map(({ value, revision }) => new JobRecord(ports, parseJob(value), revision));
  }

  get job(): Job {
    return this.#job;
  }

  get state(): JobState {
    return this.#job.state;
  }

  /** Takes the actions one after the other and writes the result in one step. Error: `job-state` if one makes no sense. */
  async apply(actions: readonly JobAction[], changes: JobChanges = {}): Promise<void> {
    const now = new Date(this.#clock.now());
    let state = this.#job.state;
    for (const action of actions) {
      const next = nextState(state, action, now);
      if (next === undefined) {
        throw new CairnError(
          'argument',
          'job-state',
          `The job ${this.#job.name} is ${state.kind}: "${action.kind}" is not possible now.`,
        );
      }
      state = next;
    }
    const next = { ...this.#job, ...changes, state };
    if (actions.length > 0 && actions.every(({ kind }) => happened.has(kind))) await this.#note(next);
    else await this.#write(next);
    if (actions.length > 0) this.tell({ kind: 'job-changed', state });
  }

  /** Sets the state to what was found, whatever it was. */
  async adopt(state: JobState): Promise<void> {
    await this.#note({ ...this.#job, state });
    this.tell({ kind: 'job-changed', state });
  }

  /** Deletes the job. */
  async delete(): Promise<void> {
    await this.#state.delete(prefix + this.#job.id);
    this.#unwritten?.[Symbol.dispose]();
    this.tell({ kind: 'job-removed' });
  }

  /** Tells something about this job. */
  tell(event: EventAbout): void {
    const { id, name } = this.#job;
    this.#emit({ ...event, at: new Date(this.#clock.now()).toISOString(), job: id, name } as NodeEvent);
  }

  async #note(job: Job): Promise<void> {
    try {
      await this.#write(job);
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== 'state-write') throw error;
      this.#job = job;
      this.#unwritten ??= this.#clock.after(writeAgainMs, () => {
        this.#unwritten = undefined;
        void this.#note(this.#job).catch(() => {});
      });
    }
  }

  async #write(job: Job): Promise<void> {
    const revision = await this.#state.compareAndSwap(prefix + job.id, this.#revision, job);
    if (revision === undefined) {
      throw new CairnError(
        'temporary',
        'job-changed',
        `The job ${job.name} was changed by somebody else at the same time.`,
        { remedy: 'Try again.' },
      );
    }
    this.#unwritten?.[Symbol.dispose]();
    this.#unwritten = undefined;
    this.#revision = revision;
    this.#job = job;
  }
}

/** What records stand on. */
export interface RecordPorts {
  state: State;
  clock: Clock;
  emit(event: NodeEvent): void;
}
