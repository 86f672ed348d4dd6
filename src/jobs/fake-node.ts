import { inMemory, SqliteState } from '../cluster/sqlite-state.ts';
import type { Json, State } from '../cluster/state.ts';
import { CairnError } from '../errors.ts';
import type { SnapshotHeader } from '../store/manifest.ts';
import type { UnitSpec } from '../units/spec.ts';
import { echo, type FakeLine, fakeLine, type FakeSession } from './fake-session.ts';
import { EventBus } from './event-bus.ts';
import type { NodeEvent } from './events.ts';
import { Jobs } from './jobs.ts';
import type {
  CheckpointOutcome,
  CheckpointRequest,
  Clock,
  JobCheckpointer,
  JobSnapshots,
  JobUnit,
  JobUnits,
  JobUnitStatus,
  PreflightAnswer,
  RestartRequest,
  UnitRequest,
} from './ports.ts';

/** A clock that stands until it is told to go on. */
export class FakeClock implements Clock {
  #now = Date.parse('2026-11-27T10:00:00Z');
  readonly #timers = new Set<{ at: number; callback: () => void }>();

  now(): number {
    return this.#now;
  }

  after(ms: number, callback: () => void): Disposable {
    const timer = { at: this.#now + ms, callback };
    this.#timers.add(timer);
    return { [Symbol.dispose]: () => void this.#timers.delete(timer) };
  }

  /** Lets time pass; what is due is called in its order, and gets the time to do something. */
  async advance(ms: number): Promise<void> {
    await settle();
    const end = this.#now + ms;
    for (;;) {
      const [next] = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.callback();
      await settle();
    }
    this.#now = end;
    await settle();
  }
}

/** Lets everything that can go on without time passing go on. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A unit that exists only in memory. It survives the daemon, as real ones do. */
interface UnitLife {
  spec: UnitSpec;
  status: JobUnitStatus;
  waiting: (() => void)[];
}

/** What the checkpointer of the fake node does next; by default it succeeds. */
export interface Script {
  checkpoint?: (request: CheckpointRequest<FakeUnit>) => Promise<void>;
  restart?: (request: RestartRequest) => Promise<void>;
  start?: () => void;
}

/** A node without Linux: its state, units and snapshots outlive the daemons that are made for it. */
export class FakeNode implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly units = new Map<string, UnitLife>();
  readonly headers: SnapshotHeader[] = [];
  readonly descriptions = new Map<string, unknown>();
  readonly events: NodeEvent[] = [];
  readonly script: Script = {};
  sweeps = 0;
  readonly #state: State = SqliteState.open(inMemory);

  /** A daemon. With `dieAt` it hangs for good at that point: as SIGKILL would leave it. Points are before and after each effect. */
  daemon(
    dieAt = Number.POSITIVE_INFINITY,
    bus: EventBus = new EventBus(),
  ): {
    jobs: Jobs<FakeUnit>;
    points: () => number;
    died: Promise<void>;
  } {
    const life = new Life(dieAt);
    bus.subscribe((event) => this.events.push(event));
    const jobs = new Jobs<FakeUnit>({
      state: guardState(this.#state, life),
      units: this.#units(life),
      snapshots: this.#snapshots(life),
      checkpointer: this.#checkpointer(life),
      specify: async (job) => fakeSpec(job),
      clock: this.clock,
      events: bus,
    });
    return { jobs, points: () => life.points, died: life.died };
  }

  /** Ends the first process of a unit. */
  end(unit: string, status: Omit<JobUnitStatus, 'state'>): void {
    const found = this.units.get(unit);
    if (found === undefined) throw new Error(`no unit ${unit}`);
    found.status = { state: 'exited', ...status };
    for (const resolve of found.waiting.splice(0)) resolve();
  }

  /** Events of one kind, oldest first. */
  eventsOf<K extends NodeEvent['kind']>(kind: K): Extract<NodeEvent, { kind: K }>[] {
    return this.events.filter((event): event is Extract<NodeEvent, { kind: K }> => event.kind === kind);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#state[Symbol.asyncDispose]();
  }

  #units(life: Life): JobUnits<FakeUnit> {
    return {
      prepare: (spec) =>
        life.act(() => {
          this.units.set(spec.id, { spec, status: { state: 'prepared' }, waiting: [] });
          return new FakeUnit(spec.id, this, life);
        }),
      open: (id) => life.act(() => (this.units.has(id) ? new FakeUnit(id, this, life) : undefined)),
    };
  }

  #snapshots(life: Life): JobSnapshots {
    const of = (jobId: string): SnapshotHeader[] => this.headers.filter((header) => header.jobId === jobId);
    const remove = (which: (header: SnapshotHeader) => boolean): void => {
      this.headers.splice(0, this.headers.length, ...this.headers.filter((header) => !which(header)));
    };
    return {
      snapshots: (jobId) => life.act(() => (jobId === undefined ? [...this.headers] : of(jobId))),
      nextSequence: (jobId) => life.act(() => Math.max(0, ...of(jobId).map((header) => header.sequence)) + 1),
      removeSnapshot: (jobId, sequence) =>
        life.act(() => remove((header) => header.jobId === jobId && header.sequence === sequence)),
      removeJob: (jobId) => life.act(() => remove((header) => header.jobId === jobId)),
      sweep: () => life.act(() => void (this.sweeps += 1)),
    };
  }

  #checkpointer(life: Life): JobCheckpointer<FakeUnit> {
    return {
      preflight: () => life.act(() => emptyPreflight),
      checkpoint: async (request) => {
        await life.act(() => {});
        await this.script.checkpoint?.(request);
        request.signal.throwIfAborted();
        const { job, sequence, then } = request;
        await life.act(() => this.publish(job, sequence, request.jobDescription));
        if (then === 'terminate') await life.act(() => this.end(request.unit.id, { signal: 9 }));
        if (then === 'stop') await request.unit.suspend();
        return { ...emptyOutcome, sequence };
      },
      restart: async (request) => {
        await life.act(() => {});
        await this.script.restart?.(request);
        request.signal.throwIfAborted();
        return life.act(() => {
          this.units.set(request.unitId, {
            spec: fakeSpec({ unit: request.unitId, name: 'restored', description: {} }),
            status: { state: 'running', pid: 1 },
            waiting: [],
          });
          return { unit: new FakeUnit(request.unitId, this, life), timings: { totalMs: 1 } };
        });
      },
      recover: () => life.act(() => {}),
      jobDescription: (jobId, sequence) =>
        life.act(() => {
          const found = this.descriptions.get(`${jobId}@${sequence}`);
          if (found === undefined) throw new CairnError('argument', 'snapshot-unknown', 'no such snapshot');
          return found;
        }),
    };
  }

  /** Puts a snapshot into the store. */
  publish(job: { id: string; name: string }, sequence: number, description: unknown): void {
    this.headers.push({
      jobId: job.id,
      jobName: job.name,
      sequence,
      createdAt: new Date(this.clock.now()).toISOString(),
      state: 'local',
      pinned: false,
      logicalBytes: 1000,
      storedBytes: 100,
      manifestBytes: 10,
    });
    this.descriptions.set(`${job.id}@${sequence}`, description);
  }
}

/** One unit of a fake node, as one daemon sees it. */
export class FakeUnit implements JobUnit {
  readonly id: string;
  readonly #node: FakeNode;
  readonly #life: Life;

  constructor(id: string, node: FakeNode, life: Life) {
    this.id = id;
    this.#node = node;
    this.#life = life;
  }

  start(): Promise<void> {
    return this.#life.act(() => {
      this.#node.script.start?.();
      this.#set({ state: 'running', pid: 1 });
    });
  }

  status(): Promise<JobUnitStatus> {
    return this.#life.act(() => this.#found()?.status ?? { state: 'gone' });
  }

  async waitExit(signal?: AbortSignal): Promise<JobUnitStatus> {
    for (;;) {
      const found = this.#found();
      const state = found?.status.state;
      if (found === undefined || (state !== 'running' && state !== 'suspended')) return this.status();
      await new Promise<void>((resolve, reject) => {
        found.waiting.push(resolve);
        signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
      });
    }
  }

  stop(): Promise<void> {
    return this.#life.act(() => this.#node.end(this.id, { signal: 15 }));
  }

  suspend(): Promise<void> {
    return this.#life.act(() => this.#set({ state: 'suspended', pid: 1 }));
  }

  resume(): Promise<void> {
    return this.#life.act(() => this.#set({ state: 'running', pid: 1 }));
  }

  readonly address = '10.213.0.2';

  async processes(): Promise<number[]> {
    return this.#found()?.status.state === 'running' ? [1, 2] : [];
  }

  sendSignal(signal: number): Promise<void> {
    return this.#life.act(() => this.#node.end(this.id, { signal }));
  }

  /** What it wrote: two lines; followed, one more when it has ended. */
  async *logs(options: {
    tail?: number;
    follow?: boolean;
    ended?: () => Promise<boolean>;
  }): AsyncGenerator<FakeLine> {
    const lines = ['one', 'two'].map((text) => fakeLine(text));
    yield* options.tail === undefined ? lines : lines.slice(lines.length - options.tail);
    if (options.follow !== true) return;
    while ((await options.ended?.()) !== true) await settle();
    yield fakeLine('three');
  }

  /** Its input comes back as its output, until it ends. */
  async attach(): Promise<FakeSession> {
    return echo();
  }

  async exec(): Promise<FakeSession> {
    return echo();
  }

  async settle(): Promise<void> {}

  async ensureMonitored(): Promise<void> {}

  release(): Promise<void> {
    return this.#life.act(() => {
      const state = this.#found()?.status.state;
      if (state === 'running' || state === 'suspended') this.#node.end(this.id, { signal: 9 });
    });
  }

  remove(): Promise<void> {
    return this.#life.act(() => void this.#node.units.delete(this.id));
  }

  #found(): UnitLife | undefined {
    return this.#node.units.get(this.id);
  }

  #set(status: JobUnitStatus): void {
    const found = this.#found();
    if (found !== undefined) found.status = status;
  }
}

/** The life of one daemon: counts the points at which it could die, and does so at one of them. */
class Life {
  points = 0;
  readonly died: Promise<void>;
  readonly #dieAt: number;
  #die!: () => void;
  #dead = false;

  constructor(dieAt: number) {
    this.#dieAt = dieAt;
    this.died = new Promise((resolve) => (this.#die = resolve));
  }

  /** Does something that lasts beyond the daemon; it may die before and after it. */
  async act<T>(effect: () => T): Promise<T> {
    await this.#point();
    const result = effect();
    await this.#point();
    return result;
  }

  async #point(): Promise<void> {
    this.points += 1;
    if (this.points >= this.#dieAt) {
      this.#dead = true;
      this.#die();
    }
    if (this.#dead) await new Promise<never>(() => {});
  }
}

function guardState(state: State, life: Life): State {
  const through = <T>(change: () => Promise<T>): Promise<T> => life.act(change).then((result) => result);
  return {
    get: (key) => state.get(key),
    list: (prefix) => state.list(prefix),
    put: (key: string, value: Json) => through(() => state.put(key, value)),
    compareAndSwap: (key, expected, value) => through(() => state.compareAndSwap(key, expected, value)),
    delete: (key) => through(() => state.delete(key)),
    watch: (prefix, options) => state.watch(prefix, options),
    [Symbol.asyncDispose]: async () => {},
  };
}

function fakeSpec(job: UnitRequest): UnitSpec {
  return {
    id: job.unit,
    hostname: job.name,
    command: job.description.command ?? ['true'],
    environment: {},
    user: { uid: 0, gid: 0, additionalGids: [] },
    workingDirectory: '/',
    terminal: false,
    stdin: false,
    rootFileSystem: { kind: 'host' },
    mounts: [],
    resources: {},
    capabilities: [],
    seccomp: 'default',
    network: { mode: 'bridge', ports: [] },
    logs: { maxBytes: 4096, files: 1 },
    runtime: 'runc',
  };
}

const emptyOutcome: Omit<CheckpointOutcome, 'sequence'> = {
  timings: {
    preflightMs: 1,
    preSaveMs: 1,
    freezeMs: 1,
    frozenMs: 1,
    dumpMs: 1,
    readMs: 1,
    publishMs: 1,
    totalMs: 7,
  },
  bytes: { memory: 10, layer: 10, images: 10, zero: 0, known: 0, new: 30, stored: 20 },
};

const emptyPreflight: PreflightAnswer = {
  obstacles: [],
  warnings: [],
  estimate: { memoryBytes: 10, layerBytes: 10, frozenMs: 1, totalMs: 2 },
};
