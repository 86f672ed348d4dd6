import { release } from 'node:os';
import path from 'node:path';
import type { Criu } from '../criu/find.ts';
import { CairnError } from '../errors.ts';
import { readStat } from '../linux/process.ts';
import type { SnapshotManifest, UnitImage } from '../store/manifest.ts';
import type { SnapshotWriter, Store } from '../store/store.ts';
import { dumpExternals } from '../units/external-mounts.ts';
import type { Unit } from '../units/unit.ts';
import { type CapturePool, type CaptureSet, oneReaderBytes, workersOf } from './capture-pool.ts';
import { DumpProcess } from './dump-process.ts';
import type {
  AfterCheckpoint,
  CheckpointBytes,
  CheckpointEvent,
  CheckpointPhase,
  CheckpointTimings,
} from './events.ts';
import { FrozenCapture, type FrozenUnit } from './frozen-capture.ts';
import type { KnownFile } from './layer-changes.ts';
import { LayerCapture, storedStream } from './layer-capture.ts';
import { describeObstacle } from './obstacles.ts';
import { type Preflight, preflightUnit } from './preflight.ts';
import { preSave, preSaveFromBytes } from './pre-save.ts';
import { keepStopped } from './stop-after-dump.ts';
import { removeCriuLocks, waitUntilThawed } from './thaw-check.ts';
import { presentPagemap, type RestoreFacts, restoreFacts, unitImage } from './unit-image.ts';

/** One checkpoint of one unit. */
export interface CheckpointRequest {
  unit: Unit;
  job: { id: string; name: string };
  jobDescription: unknown;
  sequence: number;
  then: AfterCheckpoint;
  /** From the call until the unit runs on; then everything is given up and the unit runs as before (R21). */
  deadlineMs: number;
  preSave: boolean;
  /** New chunks that are held in memory while the unit is frozen; more are written out at once, and freeze it longer. */
  stagingLimitBytes?: number;
  note?: string;
  pinned?: boolean;
  onEvent: (event: CheckpointEvent) => void;
  signal: AbortSignal;
}

export interface CheckpointResult {
  sequence: number;
  timings: CheckpointTimings;
  bytes: CheckpointBytes;
}

/** What a unit's layers held when a snapshot was taken; usable as long as that snapshot exists. */
interface LayerMemory {
  sequence: number;
  /** The unit's first process: a restart replaces the layer's files. */
  rootPid: number;
  layers: Map<'root' | 'shm', ReadonlyMap<string, KnownFile>>;
}

const defaultStagingLimitBytes = 4 * 1024 ** 3;
/** Made ready for new chunks beyond what is expected. */
const spareReserveBytes = 1024 * 1024;
/** Largest unlinked file in an image: everything that is open is saved. */
const ghostLimitBytes = 2 ** 40;

/** Saves units of this node. One for the daemon. */
export class UnitCheckpointer {
  readonly #store: Store;
  readonly #pool: CapturePool;
  readonly #criu: () => Promise<Criu>;
  readonly #layerMemories = new Map<string, LayerMemory>();

  constructor(store: Store, pool: CapturePool, criu: () => Promise<Criu>) {
    this.#store = store;
    this.#pool = pool;
    this.#criu = criu;
  }

  /**
   * Takes a checkpoint. When it fails, for whatever reason, the unit runs on as before, nothing of it is visible, and the
   * reason is thrown.
   */
  async checkpoint(request: CheckpointRequest): Promise<CheckpointResult> {
    await using run = new CheckpointRun(
      request,
      this.#store,
      this.#pool.lease(),
      this.#layerMemories.get(request.unit.id),
    );
    const result = await run.execute(await this.#criu());
    this.#layerMemories.set(request.unit.id, run.layerMemory);
    return result;
  }

  /** Forgets what it knows of a unit that is gone. */
  forget(unitId: string): void {
    this.#layerMemories.delete(unitId);
  }
}

class CheckpointRun implements AsyncDisposable {
  readonly #request: CheckpointRequest;
  readonly #store: Store;
  readonly #workers: CaptureSet & AsyncDisposable & { spoil(): void };
  readonly #signal: AbortSignal;
  readonly #deadline: AbortController;
  readonly #timer: NodeJS.Timeout;
  readonly #startedMs = performance.now();
  readonly #before: LayerMemory | undefined;
  layerMemory!: LayerMemory;

  constructor(
    request: CheckpointRequest,
    store: Store,
    workers: CaptureSet & AsyncDisposable & { spoil(): void },
    before: LayerMemory | undefined,
  ) {
    this.#request = request;
    this.#store = store;
    this.#workers = workers;
    this.#before = before;
    this.#deadline = new AbortController();
    this.#timer = setTimeout(
      () => this.#deadline.abort(deadlinePassed(request.deadlineMs)),
      request.deadlineMs,
    );
    this.#signal = AbortSignal.any([request.signal, this.#deadline.signal]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    await this.#workers[Symbol.asyncDispose]();
  }

  async execute(criu: Criu): Promise<CheckpointResult> {
    const { unit, job, sequence } = this.#request;
    const timings: CheckpointTimings = {
      preflightMs: 0,
      preSaveMs: 0,
      freezeMs: 0,
      frozenMs: 0,
      dumpMs: 0,
      readMs: 0,
      publishMs: 0,
      totalMs: 0,
    };
    this.#phase('preflight');
    const preflight = await preflightUnit(unit, { signal: this.#signal });
    if (preflight.obstacles.length > 0) throw cannotBeSaved(preflight);
    for (const warning of preflight.warnings)
      this.#request.onEvent({ kind: 'warning', message: describeObstacle(warning) });
    timings.preflightMs = this.#elapsed();

    const writer = await this.#store.begin(job.id, sequence);
    using _pin = this.#pinBefore();
    try {
      await this.#begin(writer);
      const layers = this.#layers(preflight.rootPid);
      await this.#save(preflight, layers, timings);
      const facts = restoreFacts(criu.version, await unit.externals());
      return await this.#dump(criu.path, preflight, layers, facts, writer, timings);
    } catch (error) {
      await this.#giveUp(writer);
      throw this.#signal.aborted && this.#signal.reason instanceof CairnError ? this.#signal.reason : error;
    }
  }

  async #begin(writer: SnapshotWriter): Promise<void> {
    const environment = writer.writerEnvironment();
    const workers = workersOf(this.#workers);
    const limit = this.#request.stagingLimitBytes ?? defaultStagingLimitBytes;
    const stagingLimitBytes = Math.ceil(limit / workers.length);
    await Promise.all(
      workers.map((worker) => worker.request({ op: 'begin', environment, stagingLimitBytes })),
    );
  }

  #layers(rootPid: number): LayerCapture[] {
    const known = this.#before?.rootPid === rootPid ? this.#before.layers : undefined;
    const { paths } = this.#request.unit;
    return [
      new LayerCapture('root', paths.upper, known?.get('root')),
      new LayerCapture('shm', paths.shm, known?.get('shm')),
    ];
  }

  /** Chunks of the snapshot whose files are compared must not be swept meanwhile. */
  #pinBefore(): Disposable | undefined {
    if (this.#before === undefined) return undefined;
    return this.#store.pin(this.#request.job.id, this.#before.sequence);
  }

  async #save(preflight: Preflight, layers: LayerCapture[], timings: CheckpointTimings): Promise<void> {
    const started = performance.now();
    const { memoryBytes } = preflight.estimate;
    const memory = this.#request.preSave && memoryBytes >= preSaveFromBytes;
    this.#phase('pre-save');
    if (this.#request.preSave)
      await preSave(this.#workers, preflight.pids, layers, {
        memory,
        onBytes: this.#counting('pre-save', memoryBytes + preflight.estimate.layerBytes),
        signal: this.#signal,
      });
    this.#signal.throwIfAborted();
    await this.#reserve(memory ? Math.ceil(memoryBytes / 8) : memoryBytes);
    timings.preSaveMs = performance.now() - started;
  }

  /** Staging memory for as much new data as is expected, where it will be read. */
  async #reserve(bytes: number): Promise<void> {
    const limit = this.#request.stagingLimitBytes ?? defaultStagingLimitBytes;
    const { stream, readers } = this.#workers;
    const workers = bytes <= oneReaderBytes ? [stream] : readers;
    const each = Math.ceil(Math.min(limit, bytes + spareReserveBytes) / workers.length);
    await Promise.all(workers.map((worker) => worker.request({ op: 'reserve', bytes: each })));
  }

  async #dump(
    criu: string,
    preflight: Preflight,
    layers: LayerCapture[],
    facts: RestoreFacts,
    writer: SnapshotWriter,
    timings: CheckpointTimings,
  ): Promise<CheckpointResult> {
    const { unit, then } = this.#request;
    this.#phase('freeze');
    const startedMs = performance.timeOrigin + performance.now();
    const capture = new FrozenCapture(
      this.#workers,
      preflight.rootPid,
      layers,
      this.#counting('dump', preflight.estimate.memoryBytes),
    );
    await using dump = await DumpProcess.start(
      criu,
      dumpDirectory(unit),
      {
        pid: preflight.rootPid,
        afterwards: then === 'stop' ? 'stop' : 'run',
        stream: true,
        root: unit.paths.rootfs,
        externals: [...dumpExternals(facts.mounts), ...facts.consoleKeys],
        emptyNetwork: true,
        tcp: 'established',
        networkLock: 'nftables',
        fileLocks: true,
        linkRemap: true,
        ghostLimitBytes,
        timeoutSeconds: Math.max(1, Math.ceil(this.#remainingMs() / 1000)),
      },
      (directory, wakeFd) => this.#workers.stream.request({ op: 'listen', directory, wakeFd }),
    );
    using stopped = watchForStop(preflight.rootPid);
    let frozen: FrozenUnit;
    let releasedMs: number;
    let published: Published | undefined;
    try {
      frozen = await this.#orGivenUp(dump, capture, () => this.#phase('dump'));
      // A unit that ends with the checkpoint stays frozen until the snapshot is safe: nothing may come after it.
      if (then !== 'continue') published = await this.#publish(frozen, facts, writer, timings);
      this.#phase('thaw');
      await this.#letGo(dump, preflight);
      releasedMs = performance.timeOrigin + performance.now();
      timings.frozenMs = releasedMs - Math.min(stopped.atMs ?? frozen.frozenAtMs, frozen.frozenAtMs);
    } catch (error) {
      capture.stop();
      await dump.abort();
      await this.#afterFailedDump(preflight);
      throw error;
    } finally {
      clearTimeout(this.#timer);
      await this.#workers.stream.request({ op: 'hang-up' }).catch(() => {});
    }
    timings.freezeMs = frozen.frozenAtMs - startedMs;
    timings.dumpMs = frozen.dumpedAtMs - frozen.frozenAtMs;
    timings.readMs = Math.max(0, releasedMs - frozen.dumpedAtMs);
    published ??= await this.#publish(frozen, facts, writer, timings);
    timings.totalMs = this.#elapsed();
    this.layerMemory = {
      sequence: this.#request.sequence,
      rootPid: preflight.rootPid,
      layers: new Map(layers.map((layer) => [layer.name, layer.known])),
    };
    return { sequence: this.#request.sequence, timings, bytes: published.bytes };
  }

  /** Ends the dump as the request wants it. */
  async #letGo(dump: DumpProcess, preflight: Preflight): Promise<void> {
    const { unit, then } = this.#request;
    if (then === 'continue') return dump.release();
    if (then === 'stop') return keepStopped(unit.id, preflight.pids, preflight.stopped, () => dump.release());
    // Killed while frozen: no instruction is executed after the moment that was saved.
    await unit.kill();
    await dump.abort();
  }

  /** Whatever made the dump fail: the processes must run, and their network must be open. */
  async #afterFailedDump(preflight: Preflight): Promise<void> {
    await waitUntilThawed(preflight.pids);
    await removeCriuLocks(preflight.rootPid).catch(() => {});
  }

  /** Reads the frozen unit, unless CRIU fails, the deadline passes or somebody calls it off first. */
  async #orGivenUp(dump: DumpProcess, capture: FrozenCapture, onFrozen: () => void): Promise<FrozenUnit> {
    const given = new Promise<never>((_, reject) => {
      if (this.#signal.aborted) reject(this.#signal.reason);
      this.#signal.addEventListener('abort', () => reject(this.#signal.reason), { once: true });
    });
    given.catch(() => {});
    const failure = dump.failure();
    failure.catch(() => {});
    const reading = capture.run(dump.statusFd, onFrozen);
    reading.catch(() => {});
    try {
      return await Promise.race([reading, given, failure]);
    } catch (error) {
      // What CRIU's log says is the better reason, and it ends at once when the image streamer has failed.
      if (error instanceof CairnError && error.code === 'criu-gave-up') await failure;
      throw error;
    }
  }

  async #publish(
    frozen: FrozenUnit,
    facts: RestoreFacts,
    writer: SnapshotWriter,
    timings: CheckpointTimings,
  ): Promise<Published> {
    const started = performance.now();
    this.#phase('publish');
    const { unit, job, jobDescription, sequence, note, pinned } = this.#request;
    const pagemaps = [];
    for (const memory of frozen.memory) {
      const bytes = presentPagemap(memory);
      pagemaps.push(storedStream(await this.#workers.stream.request({ op: 'store-bytes', bytes })));
    }
    const image = unitImage(unit.id, unit.spec, frozen, facts, pagemaps);
    const sealed = await Promise.all(
      workersOf(this.#workers).map((worker) => worker.request({ op: 'finish' })),
    );
    const manifest: SnapshotManifest = {
      job,
      sequence,
      createdAt: new Date().toISOString(),
      jobDescription,
      units: [image],
      timings: { ...timings },
      host: { kernel: release(), criu: facts.criuVersion, architecture: process.arch },
      ...(note === undefined ? {} : { note }),
      ...(pinned === undefined ? {} : { pinned }),
    };
    for (const packs of sealed) writer.collect(packs);
    await writer.publish(manifest);
    timings.publishMs = performance.now() - started;
    const total = { zero: 0, known: 0, new: 0, stored: 0 };
    for (const { statistics } of sealed) {
      total.zero += statistics.zeroBytes;
      total.known += statistics.knownBytes;
      total.new += statistics.newBytes;
      total.stored += statistics.storedBytes;
    }
    return { bytes: { ...imageBytes(image), ...total } };
  }

  async #giveUp(writer: SnapshotWriter): Promise<void> {
    const workers = workersOf(this.#workers);
    const ended = await Promise.allSettled(workers.map((worker) => worker.request({ op: 'abort' })));
    if (ended.some(({ status }) => status === 'rejected')) this.#workers.spoil();
    await writer.abort();
  }

  #phase(phase: CheckpointPhase): void {
    this.#request.onEvent({ kind: 'phase', phase, atMs: this.#elapsed() });
  }

  #counting(phase: CheckpointPhase, totalBytes: number): (bytes: number) => void {
    let doneBytes = 0;
    return (bytes) => {
      doneBytes += bytes;
      this.#request.onEvent({
        kind: 'progress',
        phase,
        doneBytes,
        totalBytes: Math.max(totalBytes, doneBytes),
      });
    };
  }

  #elapsed(): number {
    return performance.now() - this.#startedMs;
  }

  #remainingMs(): number {
    return this.#request.deadlineMs - this.#elapsed();
  }
}

/**
 * Notes when a process is stopped by a tracer, to the millisecond: CRIU itself does not tell (its statistics of a lazy dump are
 * not to be used), and the first image comes only after all are stopped.
 */
function watchForStop(pid: number): { atMs: number | undefined } & Disposable {
  const watch = {
    atMs: undefined as number | undefined,
    [Symbol.dispose]: () => clearInterval(timer),
  };
  const timer = setInterval(() => {
    if (readStat(pid)?.state !== 't') return;
    watch.atMs = performance.timeOrigin + performance.now();
    clearInterval(timer);
  }, 1);
  return watch;
}

/** Where CRIU's socket, log and statistics are during a dump. */
export function dumpDirectory(unit: Unit): string {
  return path.join(unit.paths.run, 'dump');
}

interface Published {
  bytes: CheckpointBytes;
}

/** Sizes of the parts of an image. */
function imageBytes(image: UnitImage): Pick<CheckpointBytes, 'memory' | 'layer' | 'images'> {
  let memory = 0;
  let images = 0;
  let layer = 0;
  const facts = image.restore as unknown as RestoreFacts;
  const pages = new Set(facts.memory.map(({ pagesId }) => `pages-${pagesId}.img`));
  for (const { name, content } of image.images) {
    if (pages.has(name)) memory += content.size;
    else images += content.size;
  }
  for (const { entries } of image.layers) for (const entry of entries) layer += entry.content?.size ?? 0;
  return { memory, images, layer };
}

function deadlinePassed(ms: number): CairnError {
  return new CairnError(
    'temporary',
    'deadline-passed',
    `the checkpoint was not complete after ${ms} ms; the job runs on`,
    {
      remedy: 'allow more time with --timeout, or look at `cairn checkpoint --dry-run`',
    },
  );
}

function cannotBeSaved(preflight: Preflight): CairnError {
  return new CairnError('permanent', 'cannot-be-saved', 'the job uses something that cannot be saved', {
    lines: preflight.obstacles.map(describeObstacle),
    remedy: 'the lines say what helps; `cairn checkpoint --dry-run` tells whether it did',
  });
}
