import { CairnError, messageOf } from '../errors.ts';
import { CheckpointTimer } from './checkpoint-timer.ts';
import type { OperationProgress, Trigger } from './events.ts';
import { failureOf, isResting, type Job, type JobState } from './job.ts';
import {
  type CheckpointWish,
  checkpointJob,
  preflightJob,
  requireRunning,
  retainSnapshots,
} from './job-checkpoint.ts';
import type { JobRecord } from './job-record.ts';
import { type RestartOutcome, type RestartWish, restartJob, runningError } from './job-restart.ts';
import { reconcileJob } from './job-reconciliation.ts';
import { JobRecovery } from './job-recovery.ts';
import { OperationQueue } from './operation-queue.ts';
import { UnitWatch } from './unit-watch.ts';
import type { CheckpointOutcome, JobsPorts, JobUnit, JobUnitStatus, PreflightAnswer } from './ports.ts';
import { endingOf } from './reconcile.ts';

/** How long a unit may take to vanish after SIGKILL, in milliseconds. */
const killDeadlineMs = 30_000;

/** Who asks, and how they hear of it. */
export interface OperationOptions {
  onProgress?: (progress: OperationProgress) => void;
  signal?: AbortSignal;
}

/** What the controller asks of all jobs together. */
export interface ControllerOwner {
  /** Snapshots were removed: their packs may be swept. */
  sweepSoon(): void;
  removed(id: string): void;
}

/** Everything that is done to one job: one operation at a time, the schedule of its checkpoints, and its recovery. */
export class JobController<U extends JobUnit> {
  readonly #ports: JobsPorts<U>;
  readonly #record: JobRecord;
  readonly #owner: ControllerOwner;
  readonly #queue: OperationQueue;
  #unit: U | undefined;
  readonly #watch: UnitWatch;
  readonly #checkpointTimer: CheckpointTimer;
  readonly #recovery: JobRecovery;
  #retryTimer: Disposable | undefined;
  #closed = false;

  constructor(ports: JobsPorts<U>, record: JobRecord, owner: ControllerOwner) {
    this.#ports = ports;
    this.#record = record;
    this.#owner = owner;
    this.#queue = new OperationQueue(ports.clock);
    this.#recovery = new JobRecovery(ports.clock, record, {
      start: () => this.#start(),
      restart: (signal) => this.#restart({ lazy: false }, 'recovery', () => {}, signal),
    });
    this.#watch = new UnitWatch(() => void this.#handleEnd());
    this.#checkpointTimer = new CheckpointTimer(ports.clock, () => void this.#scheduledCheckpoint());
  }

  get job(): Job {
    return this.#record.job;
  }

  get state(): JobState {
    return this.#record.state;
  }

  /** The unit, if there is one. */
  async unit(): Promise<U | undefined> {
    this.#unit ??= await this.#ports.units.open(this.job.unit);
    return this.#unit;
  }

  /** Starts the job from the beginning. On failure nothing of the unit remains. */
  async start(signal?: AbortSignal): Promise<void> {
    await this.#queue.run({ name: 'start', automatic: false }, { signal }, () => this.#start());
  }

  /** Takes a checkpoint; see `checkpointJob`. Waits for its turn no longer than the checkpoint itself may take. */
  async checkpoint(wish: CheckpointWish, options: OperationOptions = {}): Promise<CheckpointOutcome> {
    return this.#checkpoint(wish, 'user', options);
  }

  /** What a checkpoint would meet; see `preflightJob`. */
  async preflight(options: OperationOptions = {}): Promise<PreflightAnswer> {
    requireRunning(this.#record, 'checkpointed');
    return this.#queue.run(
      { name: 'preflight', automatic: false },
      { signal: options.signal },
      async (signal) => preflightJob(this.#ports, this.#record, await this.#liveUnit(), signal),
    );
  }

  /** Brings the job back from a snapshot; see `restartJob`. */
  async restart(wish: RestartWish, options: OperationOptions = {}): Promise<RestartOutcome<U>> {
    // A recovery that waits, or is at work, gives way to the user's own restart; a job that lives is refused without waiting.
    if (!isResting(this.state) && this.state.kind !== 'restarting') throw runningError(this.#record);
    this.#queue.abortAutomatic(
      new CairnError('temporary', 'aborted', 'The recovery gave way to a restart by the user.'),
    );
    return this.#queue.run({ name: 'restart', automatic: false }, { signal: options.signal }, (signal) =>
      this.#restart(wish, 'user', options.onProgress ?? (() => {}), signal),
    );
  }

  /** Freezes the processes of the job; they stay in memory. */
  async suspend(): Promise<void> {
    await this.#queue.run({ name: 'suspend', automatic: false }, {}, async () => {
      if (this.state.kind === 'suspended') return;
      requireRunning(this.#record, 'suspended');
      const unit = await this.#liveUnit();
      await this.#record.apply([{ kind: 'suspend' }]);
      this.#plan();
      try {
        await unit.suspend();
      } catch (error) {
        await this.#record.apply([{ kind: 'resume' }]);
        this.#plan();
        throw error;
      }
    });
  }

  /** Lets a suspended job run on. */
  async resume(): Promise<void> {
    await this.#queue.run({ name: 'resume', automatic: false }, {}, async () => {
      if (this.state.kind === 'running') return;
      if (this.state.kind !== 'suspended') {
        throw new CairnError(
          'argument',
          'job-not-suspended',
          `The job ${this.job.name} is ${this.state.kind}: it cannot be resumed.`,
          {
            remedy: `Only suspended jobs can; to bring an ended one back, use "cairn restart ${this.job.name}".`,
          },
        );
      }
      const unit = await this.#liveUnit();
      await unit.resume();
      await this.#record.apply([{ kind: 'resume' }]);
      this.#plan();
    });
  }

  /** Ends the processes of the job: SIGTERM, and SIGKILL after the grace period. Does nothing to a job that has none. */
  async stop(options: { graceMs: number }): Promise<void> {
    this.#queue.abortAutomatic(new CairnError('temporary', 'aborted', 'The job is being stopped.'));
    await this.#queue.run({ name: 'stop', automatic: false }, {}, () => this.#stop(options.graceMs));
  }

  /** Removes the job. `force` ends its processes first. Its snapshots remain unless `snapshots` is set. */
  async remove(options: { force: boolean; snapshots: boolean }): Promise<void> {
    if (!isResting(this.state) && !options.force) {
      throw new CairnError(
        'argument',
        'job-running',
        `The job ${this.job.name} is ${this.state.kind}: it cannot be removed.`,
        {
          remedy: `Stop it first, or use "cairn rm -f ${this.job.name}".`,
        },
      );
    }
    this.#queue.abortAll(new CairnError('temporary', 'aborted', 'The job is being removed.'));
    await this.#queue.run({ name: 'removal', automatic: false }, {}, () => this.#remove(options.snapshots));
  }

  /** Makes state and unit agree after the daemon was away, and carries on. Nothing of the job is disturbed. */
  async reconcile(): Promise<void> {
    await this.#queue.run({ name: 'reconciliation', automatic: false }, {}, async () => {
      await this.#reconcile();
      this.#plan();
    });
  }

  /** Stops looking after the job, which runs on. Waits for the running operation to end. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#forgetPlans();
    this.#watch.stop();
    await this.#queue.close(
      new CairnError('temporary', 'node-stopping', 'The node daemon is stopping; the job runs on.'),
    );
  }

  async #start(): Promise<void> {
    const spec = await this.#ports.specify(this.job);
    await this.#record.apply([{ kind: 'start' }]);
    let unit: U | undefined;
    try {
      unit = await this.#ports.units.prepare(spec);
      await unit.start();
    } catch (error) {
      await this.#discard(unit);
      await this.#record.apply([{ kind: 'start-failed', failure: failureOf(error) }]);
      throw error;
    }
    this.#unit = unit;
    await this.#record.apply([{ kind: 'started' }]);
    this.#plan();
  }

  async #checkpoint(
    wish: CheckpointWish,
    trigger: Trigger,
    options: OperationOptions,
  ): Promise<CheckpointOutcome> {
    requireLive(this.#record);
    const automatic = trigger !== 'user';
    const queueOptions = { signal: options.signal, waitMs: wish.timeoutMs ?? killDeadlineMs };
    try {
      return await this.#queue.run({ name: 'checkpoint', automatic }, queueOptions, async (signal) => {
        const unit = await this.#liveUnit();
        const onProgress = options.onProgress ?? (() => {});
        const outcome = await checkpointJob(this.#ports, this.#record, unit, wish, trigger, {
          onProgress,
          signal,
        });
        if (isResting(this.state)) {
          this.#watch.stop();
          await this.#release();
        }
        return outcome;
      });
    } finally {
      this.#plan();
      this.#retainSoon();
    }
  }

  async #restart(
    wish: RestartWish,
    trigger: Trigger,
    onProgress: (progress: OperationProgress) => void,
    signal: AbortSignal,
  ): Promise<RestartOutcome<U>> {
    this.#forgetPlans();
    this.#watch.stop();
    this.#unit = undefined;
    try {
      const outcome = await restartJob(this.#ports, this.#record, wish, trigger, { onProgress, signal });
      this.#unit = outcome.unit;
      return outcome;
    } finally {
      this.#plan();
    }
  }

  async #stop(graceMs: number): Promise<void> {
    this.#forgetPlans();
    const { state } = this;
    if (state.kind === 'crashed' && state.next !== undefined) {
      await this.#record.apply([{ kind: 'give-up', reason: 'it was stopped by the user' }]);
    }
    if (isResting(state)) return;
    if (state.kind !== 'stopping') await this.#record.apply([{ kind: 'stop' }]);
    const unit = await this.unit();
    await unit?.stop({ graceMs });
    await this.#ended(await this.#waitEnd(unit));
  }

  async #remove(snapshots: boolean): Promise<void> {
    this.#forgetPlans();
    this.#watch.stop();
    if (this.state.kind !== 'removing') await this.#record.apply([{ kind: 'remove' }]);
    await (await this.unit())?.remove();
    if (snapshots) {
      await this.#ports.snapshots.removeJob(this.job.id);
      this.#owner.sweepSoon();
    }
    await this.#record.delete();
    this.#closed = true;
    this.#owner.removed(this.job.id);
  }

  async #reconcile(): Promise<void> {
    const gone = await reconcileJob(this.#ports, this.#record, await this.unit(), {
      stop: () => this.#stop(0),
      remove: () => this.#remove(false),
      discard: (unit) => this.#discard(unit),
    });
    if (gone) return;
    this.#record.tell({ kind: 'job-found', state: this.state });
    await this.#recovery.decideAgain();
  }

  /** Sets timers and watchers to what the state asks for; to be called after every change of the state. */
  #plan(): void {
    this.#forgetPlans();
    if (this.#closed) return;
    const { state } = this;
    const alive = state.kind === 'running' || state.kind === 'suspended' || state.kind === 'checkpointing';
    if (alive) this.#watch.begin(() => this.unit());
    if (state.kind === 'running') this.#checkpointTimer.plan(this.job, state);
    if (state.kind === 'crashed' && state.next !== undefined) {
      const inMs = Math.max(0, Date.parse(state.next.at) - this.#ports.clock.now());
      this.#retryTimer = this.#ports.clock.after(inMs, () => void this.#recover());
    }
  }

  async #scheduledCheckpoint(): Promise<void> {
    const { current } = this.#queue;
    if (current !== undefined) {
      this.#record.tell({ kind: 'checkpoint-skipped', reason: `the job is busy with a ${current.name}` });
      this.#plan();
      return;
    }
    // A failure has been told as an event and noted in the job; the next time is already planned.
    await this.#checkpoint({ then: 'continue' }, 'schedule', {}).catch(() => {});
  }

  #retainSoon(): void {
    void this.#queue
      .run({ name: 'removal of old snapshots', automatic: true }, {}, () =>
        retainSnapshots(this.#ports, this.#record),
      )
      .then(
        (removed) => removed > 0 && this.#owner.sweepSoon(),
        (error: unknown) => this.#closed || this.#warn('removing old snapshots failed', error),
      );
  }

  async #handleEnd(): Promise<void> {
    await this.#queue
      .run({ name: 'handling of its end', automatic: false }, {}, async () => {
        const alive = this.state.kind === 'running' || this.state.kind === 'suspended';
        if (alive) await this.#ended(await (await this.unit())?.status());
      })
      .catch((error: unknown) => this.#closed || this.#warn('noting its end failed', error));
  }

  async #ended(status: JobUnitStatus | undefined): Promise<void> {
    this.#watch.stop();
    const comesBack = await this.#recovery.ended(endingOf(status));
    // Before a restart the checkpoint room does it.
    if (!comesBack) await this.#release();
    this.#plan();
  }

  async #recover(): Promise<void> {
    await this.#queue
      .run({ name: 'recovery', automatic: true }, {}, (signal) => this.#recovery.attempt(signal))
      .catch((error: unknown) => this.#closed || this.#warn('its recovery failed', error));
    this.#plan();
  }

  /** Takes away what a unit without processes does not need. What cannot be taken away now is when the job is removed or restarted. */
  async #release(): Promise<void> {
    try {
      await (await this.unit())?.release();
    } catch (error) {
      this.#warn('cleaning up after its end failed', error);
    }
  }

  /** Ends what an unfinished start or restart left, and removes what is not needed without processes. */
  async #discard(unit: U | undefined): Promise<void> {
    try {
      const found = unit ?? (await this.#ports.units.open(this.job.unit));
      await found?.release();
    } catch (error) {
      this.#warn('cleaning up after it failed', error);
    }
    this.#unit = undefined;
  }

  async #waitEnd(unit: U | undefined): Promise<JobUnitStatus | undefined> {
    if (unit === undefined) return undefined;
    return unit.waitExit(AbortSignal.timeout(killDeadlineMs));
  }

  async #liveUnit(): Promise<U> {
    const unit = await this.unit();
    if (unit !== undefined) return unit;
    throw new CairnError(
      'permanent',
      'unit-missing',
      `The unit ${this.job.unit} of the job ${this.job.name} is gone.`,
      {
        remedy: `Bring the job back with "cairn restart ${this.job.name}".`,
      },
    );
  }

  #forgetPlans(): void {
    this.#checkpointTimer.cancel();
    this.#retryTimer?.[Symbol.dispose]();
    this.#retryTimer = undefined;
  }

  #warn(what: string, error: unknown): void {
    this.#record.tell({ kind: 'job-warning', message: `${what}: ${messageOf(error)}` });
  }
}

function requireLive(record: JobRecord): void {
  if (record.state.kind !== 'checkpointing') requireRunning(record, 'checkpointed');
}
