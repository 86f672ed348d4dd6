import { constants, freemem } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Criu } from '../criu/find.ts';
import { CairnError, messageOf } from '../errors.ts';
import { readTree } from '../linux/process.ts';
import { StagingBudget } from '../store/staging.ts';
import type { SnapshotWriter, Store } from '../store/store.ts';
import { dumpExternals } from '../units/external-mounts.ts';
import type { Unit } from '../units/unit.ts';
import { type CaptureSet, oneReaderBytes, workersOf } from './capture-pool.ts';
import { DumpProcess } from './dump-process.ts';
import type { CheckpointBytes, CheckpointPhase, CheckpointTimings } from './events.ts';
import { FrozenCapture, type FrozenUnit } from './frozen-capture.ts';
import type { KnownFile } from './layer-changes.ts';
import { LayerCapture } from './layer-capture.ts';
import type { MemorySegments } from './memory-segments.ts';
import type { MemoryWindows } from './memory-windows.ts';
import { cannotBeSaved, deadlinePassed } from './checkpoint-errors.ts';
import { describeObstacle } from './obstacles.ts';
import { type Preflight, preflightUnit } from './preflight.ts';
import { preSave, preSaveFromBytes } from './pre-save.ts';
import { publishSnapshot } from './publish-snapshot.ts';
import { endTcpRepairs, removeCriuLocks, waitUntilThawed } from './thaw-check.ts';
import { watchForStop } from './stop-watch.ts';
import { type RestoreFacts, restoreFacts } from './unit-image.ts';
import type { CheckpointRequest, CheckpointResult } from './checkpoint-request.ts';

/** What a unit consisted of when a snapshot was taken. */
export interface UnitMemory {
  sequence: number;
  /** The unit's first process: a restart replaces the layer's files. */
  rootPid: number;
  /** Usable as long as that snapshot exists. */
  layers: Map<'root' | 'shm', ReadonlyMap<string, KnownFile>>;
  /** Memory of each process, by PID on the host; usable as long as the store has the chunks. */
  windows: ReadonlyMap<number, MemoryWindows>;
}

/** What each worker may hold at least, of the limit. */
const ownStagingBytes = 4 * 1024 ** 2;
/** Made ready for new chunks beyond what is expected. */
const spareReserveBytes = 1024 * 1024;
/** Largest unlinked file in an image: everything that is open is saved. */
const ghostLimitBytes = 2 ** 40;

/** One checkpoint under way, from preflight to publication. */
export class CheckpointRun implements AsyncDisposable {
  readonly #request: CheckpointRequest;
  readonly #store: Store;
  readonly #workers: CaptureSet & AsyncDisposable & { spoil(): void };
  readonly #signal: AbortSignal;
  readonly #deadline: AbortController;
  readonly #timer: NodeJS.Timeout;
  readonly #startedMs = performance.now();
  readonly #tagKey: Uint8Array;
  readonly #hold: boolean;
  readonly #stagingLimitBytes: number;
  #before: UnitMemory | undefined;
  /** What is known of the memory of each process. */
  #known: Map<number, MemoryWindows>;
  /** Pages of each process when it was saved in advance. */
  #expected: ReadonlyMap<number, MemorySegments> = new Map();
  /** For the next checkpoint of the unit. */
  memory!: UnitMemory;

  constructor(
    request: CheckpointRequest,
    store: Store,
    means: {
      workers: CaptureSet & AsyncDisposable & { spoil(): void };
      tagKey: Uint8Array;
      /** CRIU has to hold whatever the preflight says. */
      hold: boolean;
    },
    before: UnitMemory | undefined,
  ) {
    this.#request = request;
    this.#store = store;
    this.#workers = means.workers;
    this.#tagKey = means.tagKey;
    this.#hold = means.hold;
    this.#stagingLimitBytes = request.stagingLimitBytes ?? Math.floor(freemem() / 2);
    this.#known = new Map(before?.windows);
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

    const writer = this.#store.begin(job.id, sequence, {
      expectedBytes: preflight.estimate.memoryBytes,
    });
    using _pin = await this.#pinBefore();
    try {
      await this.#begin(writer);
      const layers = this.#layers(preflight.rootPid);
      await this.#save(preflight, layers, timings);
      const facts = restoreFacts(criu.version, await unit.externals());
      return await this.#dump(criu, preflight, layers, facts, writer, timings);
    } catch (error) {
      await this.#giveUp(writer);
      throw this.#signal.aborted && this.#signal.reason instanceof CairnError ? this.#signal.reason : error;
    }
  }

  async #begin(writer: SnapshotWriter): Promise<void> {
    const environment = writer.writerEnvironment();
    const workers = workersOf(this.#workers);
    const stagingBytes = Math.min(ownStagingBytes, Math.floor(this.#stagingLimitBytes / workers.length));
    const budget = StagingBudget.create(this.#stagingLimitBytes - stagingBytes * workers.length);
    await Promise.all(
      workers.map((worker) =>
        worker.request({
          op: 'begin',
          environment,
          stagingBytes,
          stagingBudget: budget.memory,
          tagKey: this.#tagKey,
        }),
      ),
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

  /** What the layers held before may be referred to only as long as that snapshot exists, and it must not be swept meanwhile. */
  async #pinBefore(): Promise<Disposable | undefined> {
    if (this.#before === undefined) return undefined;
    const { job } = this.#request;
    if (await this.#store.has(job.id, this.#before.sequence))
      return this.#store.pin(job.id, this.#before.sequence);
    this.#before = undefined;
    return undefined;
  }

  async #save(preflight: Preflight, layers: LayerCapture[], timings: CheckpointTimings): Promise<void> {
    const started = performance.now();
    const { memoryBytes } = preflight.estimate;
    const memory = this.#request.preSave && memoryBytes >= preSaveFromBytes;
    this.#phase('pre-save');
    if (this.#request.preSave) {
      const saved = await preSave(this.#workers, preflight.pids, layers, {
        memory: memory ? this.#known : undefined,
        onBytes: this.#counting('pre-save', memoryBytes + preflight.estimate.layerBytes),
        signal: this.#signal,
      });
      this.#expected = saved.pages;
    }
    this.#signal.throwIfAborted();
    await this.#reserve(memory ? Math.ceil(memoryBytes / 8) : memoryBytes);
    timings.preSaveMs = performance.now() - started;
  }

  /** Staging memory for as much new data as is expected, where it will be read. */
  async #reserve(bytes: number): Promise<void> {
    const limit = this.#stagingLimitBytes;
    const { readers } = this.#workers;
    const workers = bytes <= oneReaderBytes ? readers.slice(0, 1) : readers;
    const each = Math.ceil(Math.min(limit, bytes + spareReserveBytes) / workers.length);
    await Promise.all(workers.map((worker) => worker.request({ op: 'reserve', bytes: each })));
  }

  async #dump(
    criu: Criu,
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
      { bytes: preflight.estimate.memoryBytes, known: this.#known, expected: this.#expected },
      this.#counting('dump', preflight.estimate.memoryBytes),
    );
    await using dump = await DumpProcess.start(
      criu.path,
      dumpDirectory(unit),
      {
        pid: preflight.rootPid,
        hold: preflight.hold || this.#hold,
        afterwards: 'run',
        stream: true,
        root: unit.paths.rootfs,
        externals: [...dumpExternals(facts.mounts), ...facts.consoleKeys],
        emptyNetwork: true,
        tcp: 'established',
        networkLock: 'nftables',
        fileLocks: true,
        linkRemap: true,
        skipInFlight: true,
        ghostLimitBytes,
        timeoutSeconds: Math.max(1, Math.ceil(this.#remainingMs() / 1000)),
      },
      (directory, wakeFd) =>
        this.#workers.stream.request({
          op: 'listen',
          directory,
          wakeFd,
          cover: preflight.covered,
        }),
    );
    dump
      .killed()
      .then(() => endTcpRepairs(readTree(preflight.rootPid)))
      .catch(() => {});
    using stopped = watchForStop(preflight.rootPid);
    let frozen: FrozenUnit;
    let releasedMs: number;
    let published: CheckpointBytes | undefined;
    try {
      frozen = await this.#orGivenUp(dump, capture, () => this.#phase('dump'));
      // A unit that ends with the checkpoint stays frozen until the snapshot is safe: nothing may come after it.
      if (then !== 'continue') published = await this.#publish(frozen, facts, writer, timings);
      this.#phase('thaw');
      await this.#letGo(dump).catch((error: unknown) => {
        if (published === undefined) throw error;
        // The snapshot is there and complete; what became of the unit its state tells.
        this.#request.onEvent({ kind: 'warning', message: `after the snapshot: ${messageOf(error)}` });
      });
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
    this.memory = {
      sequence: this.#request.sequence,
      rootPid: preflight.rootPid,
      windows: this.#known,
      layers: new Map(layers.map((layer) => [layer.name, layer.known])),
    };
    return { sequence: this.#request.sequence, timings, bytes: published };
  }

  /** Ends the dump as the request wants it. */
  async #letGo(dump: DumpProcess): Promise<void> {
    const { unit, then } = this.#request;
    if (then === 'continue') return dump.release();
    if (then === 'stop') {
      // Asked for while CRIU holds the processes: they are suspended without having executed anything since the moment that was saved.
      unit.cgroup.requestFreeze();
      await dump.release();
      return unit.cgroup.freeze();
    }
    // Killed while frozen: no instruction is executed after the moment that was saved.
    // Only the signal at first: as long as CRIU traces them, nobody can take the dead away.
    await unit.sendSignal(constants.signals.SIGKILL);
    await dump.abort();
    await unit.kill();
  }

  /** Whatever made the dump fail: the processes must run, and their network must be open. */
  async #afterFailedDump(preflight: Preflight): Promise<void> {
    if (this.#request.then === 'stop') this.#request.unit.cgroup.thaw();
    endTcpRepairs(readTree(preflight.rootPid));
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
    const reading = capture.run(dump, onFrozen);
    reading.catch(() => {});
    try {
      return await Promise.race([reading, given, failure]);
    } catch (error) {
      // What CRIU's log says is the better reason, if it is what has failed.
      const why = error instanceof CairnError ? error.code : '';
      if (followsFromCriu.has(why))
        await Promise.race([failure, delay(criuEndMs, undefined, { ref: false })]);
      throw error;
    }
  }

  async #publish(
    frozen: FrozenUnit,
    facts: RestoreFacts,
    writer: SnapshotWriter,
    timings: CheckpointTimings,
  ): Promise<CheckpointBytes> {
    const started = performance.now();
    this.#phase('publish');
    const { bytes, memory } = await publishSnapshot(this.#request, this.#workers, {
      frozen,
      facts,
      writer,
      timings,
    });
    this.#known = memory;
    timings.publishMs = performance.now() - started;
    return bytes;
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

/** Errors in what CRIU sends: mostly it has ended, or is about to. */
const followsFromCriu: ReadonlySet<string> = new Set(['criu-gave-up', 'criu-protocol', 'image-damaged']);
/** How long its end is waited for then. */
const criuEndMs = 1000;

/** Where CRIU's socket, log and statistics are during a dump. */
export function dumpDirectory(unit: Unit): string {
  return path.join(unit.paths.run, 'dump');
}
