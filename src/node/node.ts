import { mkdir } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { Checkpointer } from '../checkpoint/checkpointer.ts';
import { SqliteState } from '../cluster/sqlite-state.ts';
import { findCriu } from '../criu/find.ts';
import { CairnError, messageOf } from '../errors.ts';
import { EventBus } from '../jobs/event-bus.ts';
import { Jobs } from '../jobs/jobs.ts';
import { type JobCheckpointer, systemClock } from '../jobs/ports.ts';
import { findRuntime } from '../linux/find-program.ts';
import { Store } from '../store/store.ts';
import { Units } from '../units/units.ts';
import { settleUserfaultfd } from '../units/userfaultfd-permission.ts';
import { NodeUnit, NodeUnits } from './node-unit.ts';
import { specifyUnit } from './specify-unit.ts';
import { cairnVersion } from './version.ts';

/** Where a node keeps its things, and how its network is called. */
export interface NodeOptions {
  /** Survives a reboot. */
  stateDirectory: string;
  /** Does not. */
  runDirectory: string;
  /** Name and subnet of the bridge; default as in the network room. */
  bridge?: { name: string; subnet: string };
}

/** The daemon of one node, without the HTTP in front of it: everything it owns, from start to end. */
export class Node implements AsyncDisposable {
  readonly jobs: Jobs<NodeUnit>;
  readonly snapshots: Store;
  readonly events: EventBus;
  readonly #options: NodeOptions;
  readonly #owned: AsyncDisposableStack;
  readonly #host: Record<string, string>;
  readonly #startedAt = new Date().toISOString();
  #closing: Promise<void> | undefined;

  private constructor(
    parts: { jobs: Jobs<NodeUnit>; snapshots: Store; events: EventBus; host: Record<string, string> },
    options: NodeOptions,
    owned: AsyncDisposableStack,
  ) {
    this.jobs = parts.jobs;
    this.snapshots = parts.snapshots;
    this.events = parts.events;
    this.#host = parts.host;
    this.#options = options;
    this.#owned = owned;
  }

  /**
   * Opens the state, the store and everything else, and brings the jobs that are found in order. Errors: `not-root`, `state-locked`,
   * `runtime-missing` and the like, those of the store.
   */
  static async open(options: NodeOptions, events: EventBus): Promise<Node> {
    requireRoot();
    const { stateDirectory, runDirectory } = options;
    await mkdir(stateDirectory, { recursive: true, mode: 0o700 });
    await mkdir(runDirectory, { recursive: true, mode: 0o700 });
    await using owned = new AsyncDisposableStack();
    const state = owned.use(SqliteState.open(join(stateDirectory, 'node.db')));
    const tools = await findTools(events);
    const snapshots = owned.use(
      await Store.open({ directory: join(stateDirectory, 'store'), keys: join(stateDirectory, 'keys') }),
    );
    const units = new Units({
      stateDirectory,
      runDirectory,
      tools: { runc: tools.runc, ...(tools.crun === undefined ? {} : { crun: tools.crun }) },
      ...(options.bridge === undefined ? {} : { bridge: options.bridge }),
    });
    owned.defer(async () => units.close());
    const checkpointer = owned.use(new Checkpointer({ units, store: snapshots }));
    const jobs = new Jobs<NodeUnit>({
      state,
      units: new NodeUnits(units),
      snapshots,
      checkpointer: forJobs(checkpointer),
      specify: (job) => specifyUnit(job, units.imageDirectory),
      clock: systemClock,
      events,
    });
    owned.defer(() => jobs.close());
    settleUserfaultfd();
    for (const id of await units.sweep()) warn(events, `removed the remains of the unfinished unit ${id}`);
    await jobs.recover();
    warnOfOrphans(events, units, jobs);
    checkpointer.warm();
    units.keepReady();
    return new Node({ jobs, snapshots, events, host: tools.host }, options, owned.move());
  }

  /** What `GET /node` answers. */
  async information(): Promise<NodeReport> {
    const statistics = this.snapshots.statistics();
    return {
      version: cairnVersion(),
      pid: process.pid,
      startedAt: this.#startedAt,
      stateDirectory: this.#options.stateDirectory,
      runDirectory: this.#options.runDirectory,
      jobs: this.jobs.list().length,
      snapshots: (await this.snapshots.snapshots()).length,
      storedBytes: statistics.packBytes,
      host: this.#host,
    };
  }

  /** Ends what is under way and gives everything back. Jobs run on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#owned.disposeAsync();
    await this.#closing;
  }
}

/** A node in figures. */
export interface NodeReport {
  version: string;
  pid: number;
  startedAt: string;
  stateDirectory: string;
  runDirectory: string;
  jobs: number;
  snapshots: number;
  /** Bytes of packs. */
  storedBytes: number;
  host: Record<string, string>;
}

function requireRoot(): void {
  if (process.geteuid?.() === 0) return;
  throw new CairnError('environment', 'not-root', 'The node daemon cannot work without being root.', {
    remedy: 'Start it as root: sudo cairn node.',
  });
}

/** Finds the programs. CRIU may be missing: jobs run without it, and a checkpoint says so. */
async function findTools(
  events: EventBus,
): Promise<{ runc: string; crun?: string; host: Record<string, string> }> {
  const [runc, crun, criu] = await Promise.all([
    findRuntime('runc'),
    findRuntime('crun').catch(() => undefined),
    findCriu().catch((error: unknown) => {
      warn(events, `checkpoints are not possible: ${messageOf(error)}`);
      return undefined;
    }),
  ]);
  return {
    runc: runc.path,
    ...(crun === undefined ? {} : { crun: crun.path }),
    host: {
      kernel: release(),
      architecture: process.arch,
      node: process.versions.node,
      runc: runc.version,
      ...(crun === undefined ? {} : { crun: crun.version }),
      ...(criu === undefined ? {} : { criu: criu.version }),
    },
  };
}

function forJobs(checkpointer: Checkpointer): JobCheckpointer<NodeUnit> {
  return {
    preflight: ({ unit }, options) => checkpointer.preflight(unit, options),
    checkpoint: ({ unit, ...request }) => checkpointer.checkpoint({ ...request, unit: unit.unit }),
    async restart(request) {
      const { unit, timings } = await checkpointer.restart(request);
      return { unit: new NodeUnit(unit), timings };
    },
    recover: ({ unit }) => checkpointer.recover(unit),
    jobDescription: (jobId, sequence) => checkpointer.jobDescription(jobId, sequence),
  };
}

/** A unit without a job must not be ended for that: perhaps the state was lost, and it is what somebody needs. */
function warnOfOrphans(events: EventBus, units: Units, jobs: Jobs<NodeUnit>): void {
  const known = new Set(jobs.list().map((job) => job.unit));
  for (const id of units.list()) {
    if (!known.has(id)) warn(events, `the unit ${id} belongs to no job; it is left alone`);
  }
}

function warn(events: EventBus, message: string): void {
  events.emit({ kind: 'node-warning', at: new Date().toISOString(), message });
}
