import { CairnError, messageOf } from '../errors.ts';
import { newUnitId } from '../units/spec.ts';
import { type JobDescription, parseDescription } from './description.ts';
import type { EventBus } from './event-bus.ts';
import { isFinal, type Job, newJobId } from './job.ts';
import { JobController, type OperationOptions } from './job-controller.ts';
import { JobRecord } from './job-record.ts';
import { checkJobName } from './job-reference.ts';
import type { RestartOutcome } from './job-restart.ts';
import { abortError } from './operation-queue.ts';
import type { JobsPorts, JobUnit } from './ports.ts';
import { defaultJobName } from './unit-spec.ts';

/** What `Jobs` stands on. */
export interface JobsOptions<U extends JobUnit> extends Omit<JobsPorts<U>, 'emit'> {
  events: EventBus;
}

/** How a restart is wanted; see `RestartWish`. */
export interface RestartRequestOptions extends OperationOptions {
  sequence?: number;
  lazy: boolean;
}

/** All jobs of a node. */
export class Jobs<U extends JobUnit> {
  readonly #ports: JobsPorts<U>;
  readonly #events: EventBus;
  readonly #controllers = new Map<string, JobController<U>>();
  /** Names of jobs that are just being made. */
  readonly #reserved = new Set<string>();
  readonly #closing = new AbortController();
  #sweeping: Promise<void> | undefined;
  #sweepAgain = false;

  constructor(options: JobsOptions<U>) {
    this.#ports = { ...options, emit: options.events.emit };
    this.#events = options.events;
  }

  /**
   * Reads the jobs from the state and makes state and units agree, after the daemon was away. A job whose creation was interrupted
   * goes away; for the others see `reconcile`.
   */
  async recover(): Promise<void> {
    for (const record of await JobRecord.list(this.#ports)) this.#adopt(record);
    for (const controller of [...this.#controllers.values()]) {
      try {
        await controller.reconcile();
        if (controller.state.kind === 'created') await controller.remove({ force: true, snapshots: false });
      } catch (error) {
        const message = `the job ${controller.job.name} could not be brought in order: ${messageOf(error)}`;
        this.#events.emit({ kind: 'node-warning', at: this.#now(), message });
      }
    }
  }

  /** All jobs, the oldest first. */
  list(): Job[] {
    return [...this.#controllers.values()]
      .map((controller) => controller.job)
      .sort((a, b) => a.createdAt.localeCompare(b.createdAt) || a.id.localeCompare(b.id));
  }

  /** The job with this name or id, or whose id is the only one that begins so. Errors: `job-unknown`, `job-ambiguous`. */
  get(reference: string): JobController<U> {
    const found = this.#find(reference);
    if (found !== undefined) return found;
    throw unknownJob(reference);
  }

  /** Id and name of a job, also of one that was removed and of which only snapshots remain. Error: `job-unknown`. */
  async identify(reference: string): Promise<{ id: string; name: string }> {
    const { id, name } = this.#find(reference)?.job ?? (await this.#findRemoved(reference));
    return { id, name };
  }

  /** Makes a job and starts it; if it cannot be started, there is no job. Errors: `job-name-taken` and those of the units. */
  async run(value: unknown, options: { signal?: AbortSignal } = {}): Promise<Job> {
    const description = parseDescription(value);
    const name = description.name ?? defaultJobName(description.command, (taken) => this.#isTaken(taken));
    using _name = this.#reserve(name);
    const job = this.#newJob({ name, description });
    // What is wrong with the description shows before anything is written.
    await this.#ports.specify(job);
    const controller = this.#adopt(await JobRecord.create(this.#ports, job));
    try {
      await controller.start(options.signal);
      // Nobody has heard of it, and nobody will.
      if (options.signal?.aborted === true) throw abortError(options.signal, 'start');
    } catch (error) {
      await this.#removeQuietly(controller);
      throw error;
    }
    return controller.job;
  }

  /**
   * Brings a job back from a snapshot; also one that was removed and whose snapshots are still there. Errors: `job-unknown` and
   * those of `restartJob`.
   */
  async restart(
    reference: string,
    options: RestartRequestOptions,
  ): Promise<RestartOutcome<U> & { job: Job }> {
    const wish = {
      lazy: options.lazy,
      ...(options.sequence === undefined ? {} : { sequence: options.sequence }),
    };
    const existing = this.#find(reference);
    if (existing !== undefined) return { ...(await existing.restart(wish, options)), job: existing.job };
    const removed = await this.#findRemoved(reference);
    using _name = this.#reserve(removed.name);
    const description = await this.#descriptionOf(removed.id, options.sequence);
    const job = {
      ...this.#newJob({ id: removed.id, name: removed.name, description }),
      checkpoints: removed.checkpoints,
    };
    const controller = this.#adopt(await JobRecord.create(this.#ports, job));
    try {
      return { ...(await controller.restart(wish, options)), job: controller.job };
    } catch (error) {
      await this.#removeQuietly(controller);
      throw error;
    }
  }

  /** Starts a second copy of a job from a snapshot, with its own name and address, and without published ports (R23). */
  async clone(
    reference: string,
    options: RestartRequestOptions & { name?: string },
  ): Promise<RestartOutcome<U> & { job: Job }> {
    const existing = this.#find(reference);
    const source = existing?.job ?? (await this.#findRemoved(reference));
    const description = structuredClone(await this.#descriptionOf(source.id, options.sequence));
    const name = options.name ?? defaultJobName([`${source.name}-clone`], (taken) => this.#isTaken(taken));
    if (options.name !== undefined) checkJobName(name);
    using _name = this.#reserve(name);
    const ports = description.network?.ports ?? [];
    if (ports.length > 0) {
      const message = `the ports ${ports.join(', ')} belong to ${source.name}; the clone publishes none`;
      options.onProgress?.({ kind: 'warning', message });
    }
    const { address: _address, ports: _ports, ...network } = description.network ?? {};
    const { hostname: _hostname, ...rest } = description;
    const clonedFrom = {
      job: source.id,
      ...(options.sequence === undefined ? {} : { sequence: options.sequence }),
    };
    const job = { ...this.#newJob({ name, description: { ...rest, name, network } }), clonedFrom };
    const controller = this.#adopt(await JobRecord.create(this.#ports, job));
    try {
      const outcome = await controller.restart(
        {
          lazy: options.lazy,
          from: source.id,
          ...(options.sequence === undefined ? {} : { sequence: options.sequence }),
        },
        options,
      );
      return { ...outcome, job: controller.job };
    } catch (error) {
      await this.#removeQuietly(controller);
      throw error;
    }
  }

  /** Resolves with the job when nothing will happen to it any more by itself, or it has been removed. Rejects when the signal aborts. */
  async waitUntilFinal(reference: string, signal: AbortSignal): Promise<Job> {
    const controller = this.get(reference);
    const { id } = controller.job;
    const { promise, resolve, reject } = Promise.withResolvers<Job>();
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    using _subscription = this.#events.subscribe((event) => {
      if (!('job' in event) || event.job !== id) return;
      if (event.kind === 'job-removed' || isFinal(controller.state)) resolve(controller.job);
    });
    try {
      signal.throwIfAborted();
      if (isFinal(controller.state)) return controller.job;
      return await promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Stops looking after the jobs, which run on. */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all([...this.#controllers.values()].map((controller) => controller.close()));
    await this.#sweeping;
  }

  /** Lets the store remove what no snapshot needs any more, in the background. */
  sweepSoon(): void {
    if (this.#sweeping !== undefined) {
      this.#sweepAgain = true;
      return;
    }
    this.#sweeping = this.#sweep();
  }

  async #sweep(): Promise<void> {
    try {
      do {
        this.#sweepAgain = false;
        if (this.#closing.signal.aborted) return;
        await this.#ports.snapshots.sweep({ signal: this.#closing.signal });
      } while (this.#sweepAgain);
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      const message = `removing what no snapshot needs failed: ${messageOf(error)}`;
      this.#events.emit({ kind: 'node-warning', at: this.#now(), message });
    } finally {
      this.#sweeping = undefined;
    }
  }

  #adopt(record: JobRecord): JobController<U> {
    const controller = new JobController(this.#ports, record, {
      sweepSoon: () => this.sweepSoon(),
      removed: (id) => void this.#controllers.delete(id),
    });
    this.#controllers.set(record.job.id, controller);
    return controller;
  }

  #newJob(parts: { id?: string; name: string; description: JobDescription }): Job {
    const now = this.#now();
    return {
      id: parts.id ?? newJobId(),
      name: parts.name,
      createdAt: now,
      unit: newUnitId(),
      description: { ...parts.description, name: parts.name },
      state: { kind: 'created', since: now },
      restarts: { total: 0, attempts: 0 },
      checkpoints: { failures: 0 },
    };
  }

  #find(reference: string): JobController<U> | undefined {
    const all = [...this.#controllers.values()];
    const exact = all.find(({ job }) => job.name === reference) ?? this.#controllers.get(reference);
    if (exact !== undefined) return exact;
    if (!/^j-[0-9a-f]+$/.test(reference)) return undefined;
    const matching = all.filter(({ job }) => job.id.startsWith(reference));
    if (matching.length <= 1) return matching[0];
    throw new CairnError('argument', 'job-ambiguous', `"${reference}" is the beginning of several ids.`, {
      lines: matching.map(({ job }) => `${job.id}  ${job.name}`),
      remedy: 'Write more of the id, or the name.',
    });
  }

  /** A job of which only snapshots remain: by id, or the last one that had this name. */
  async #findRemoved(
    reference: string,
  ): Promise<{ id: string; name: string; checkpoints: Job['checkpoints'] }> {
    const headers = await this.#ports.snapshots.snapshots();
    const matching = headers
      .filter((header) => header.jobId === reference || (header.jobName === reference && !header.damaged))
      .filter((header) => !this.#controllers.has(header.jobId))
      .sort((a, b) => b.createdAt.localeCompare(a.createdAt));
    const [newest] = matching;
    if (newest === undefined) throw unknownJob(reference);
    const checkpoints = { failures: 0, lastAt: newest.createdAt, lastSequence: newest.sequence };
    return { id: newest.jobId, name: newest.jobName, checkpoints };
  }

  /** The description in a snapshot: in this one, or in the newest that can be read. */
  async #descriptionOf(jobId: string, sequence: number | undefined): Promise<JobDescription> {
    const headers = (await this.#ports.snapshots.snapshots(jobId)).sort((a, b) => b.sequence - a.sequence);
    const candidates = sequence === undefined ? headers.map((header) => header.sequence) : [sequence];
    let lastError: unknown = new CairnError(
      'argument',
      'snapshot-none',
      `There is no snapshot of the job ${jobId}.`,
    );
    for (const candidate of candidates) {
      try {
        return parseDescription(await this.#ports.checkpointer.jobDescription(jobId, candidate));
      } catch (error) {
        lastError = error;
      }
    }
    throw lastError;
  }

  #isTaken(name: string): boolean {
    return this.#reserved.has(name) || [...this.#controllers.values()].some(({ job }) => job.name === name);
  }

  #reserve(name: string): Disposable {
    if (this.#isTaken(name)) {
      throw new CairnError('argument', 'job-name-taken', `There is already a job called ${name}.`, {
        remedy: `Choose another name, or remove that job with "cairn rm ${name}".`,
      });
    }
    this.#reserved.add(name);
    return { [Symbol.dispose]: () => void this.#reserved.delete(name) };
  }

  async #removeQuietly(controller: JobController<U>): Promise<void> {
    try {
      await controller.remove({ force: true, snapshots: false });
    } catch (error) {
      const message = `removing the job ${controller.job.name}, which could not be started, failed: ${messageOf(error)}`;
      this.#events.emit({ kind: 'node-warning', at: this.#now(), message });
    }
  }

  #now(): string {
    return new Date(this.#ports.clock.now()).toISOString();
  }
}

function unknownJob(reference: string): CairnError {
  return new CairnError('argument', 'job-unknown', `There is no job called "${reference}".`, {
    remedy: '"cairn jobs -a" lists all jobs.',
  });
}
