import type { Job, JobState } from './job.ts';
import type { Clock } from './ports.ts';
import { parseDuration } from './quantities.ts';
import { nextCheckpointAt } from './schedule.ts';

/** More often than once a second nothing is saved, whatever is asked for: the job has to get on in between. */
const leastEveryMs = 1000;

/** Calls back when the next periodic checkpoint of a job is due. */
export class CheckpointTimer {
  readonly #clock: Clock;
  readonly #onDue: () => void;
  #timer: Disposable | undefined;
  /** When it was last due: also a time that was skipped, or failed before it began, counts as an attempt. */
  #lastDueAt = 0;

  constructor(clock: Clock, onDue: () => void) {
    this.#clock = clock;
    this.#onDue = onDue;
  }

  /** Sets the timer to what the description and the checkpoints so far ask for; without `every` it does nothing. */
  plan(job: Job, state: JobState & { kind: 'running' }): void {
    this.cancel();
    const every = job.description.checkpoint?.every;
    if (every === undefined) return;
    const { lastAt, lastFailure, failures } = job.checkpoints;
    const attempts = [lastAt, lastFailure?.at].filter((at) => at !== undefined).map((at) => Date.parse(at));
    const due = nextCheckpointAt({
      everyMs: Math.max(leastEveryMs, parseDuration(every, 'checkpoint.every')),
      startedAt: Date.parse(state.startedAt),
      lastAttemptAt: Math.max(this.#lastDueAt, ...attempts),
      failures,
    });
    this.#timer = this.#clock.after(Math.max(0, due - this.#clock.now()), () => {
      this.#lastDueAt = this.#clock.now();
      this.#onDue();
    });
  }

  /** Nothing is due any more. */
  cancel(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
  }
}
