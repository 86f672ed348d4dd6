import { availableParallelism } from 'node:os';
import { CairnError } from '../errors.ts';
import { readStatus, readTree } from '../linux/process.ts';
import type { LayerEntry } from '../store/manifest.ts';
import { type CaptureSet, type CaptureWorker, oneReaderBytes } from './capture-pool.ts';
import type { ReceivedImage } from './capture-protocol.ts';
import type { ShortenedMapping } from '../criu/mapping-cover.ts';
import { decodeMappings } from '../criu/messages.ts';
import { privateMappings, withWholeMappings } from '../criu/saved-mappings.ts';
import type { DumpProcess } from './dump-process.ts';
import { type LayerCapture, sharedWritableFiles } from './layer-capture.ts';
import type { MemoryPlan } from './memory-plan.ts';
import { type MemorySegments, pageSize, planSegments } from './memory-segments.ts';
import { countWindows, type MemoryWindows, runsToRead, unreadRuns } from './memory-windows.ts';
import { SharedReading } from './shared-reading.ts';

/** Memory of one process at the moment of the checkpoint. */
export interface FrozenMemory {
  pid: number;
  /** PID inside the unit: the number in the names of its images. */
  unitPid: number;
  pagesId: number;
  /** The page map, CRIU's or our own: what has to be saved. */
  runs: Float64Array;
  /** Records in which every window of the page map has a good one; see `assemble`. */
  readings: MemoryWindows[];
  /** What has to stand in `mm-PID.img` instead of what CRIU wrote. */
  mappingsImage?: Uint8Array;
}

/** Everything of a unit at one moment, already in the staging memory of the workers or in packs. */
export interface FrozenUnit {
  images: ReceivedImage[];
  memory: FrozenMemory[];
  layers: { name: 'root' | 'shm'; entries: LayerEntry[]; bytesRead: number }[];
  /** performance.timeOrigin + performance.now() when the first image of a process arrived. */
  frozenAtMs: number;
  /** The same, when CRIU had written everything. */
  dumpedAtMs: number;
}

type LayersAtOnce = FrozenUnit['layers'];

/** What is known of a unit's memory when it is about to be frozen. */
export interface MemoryForecast {
  /** About how much there is. */
  bytes: number;
  /** What was read of each process before, by host PID. */
  known: ReadonlyMap<number, MemoryWindows>;
  /** The pages that each is expected to have. */
  expected: ReadonlyMap<number, MemorySegments>;
}

interface EarlyReading {
  plan: MemoryPlan;
  reading: SharedReading;
}

/**
 * Reads a frozen unit, as much as possible while CRIU is at work: its images as they come; memory from the moment at which all
 * processes are stopped, by a plan of our own, and what CRIU's page maps ask for beyond that as they arrive; what has changed in the layers
 * (when CRIU holds at `post-dump`, if it has to: see `DumpHook`). Ends with all of it in hand and the unit still frozen.
 */
export class FrozenCapture {
  readonly #workers: CaptureSet;
  readonly #rootPid: number;
  readonly #layers: readonly LayerCapture[];
  readonly #memory: MemoryForecast;
  readonly #onBytes: (bytes: number) => void;
  readonly #readings: SharedReading[] = [];
  readonly #reads: Promise<FrozenMemory>[] = [];
  /** Processes whose reading began before CRIU's page map was there; nothing of one that could not be planned. */
  readonly #early = new Map<number, Promise<EarlyReading | undefined>>();
  #current: SharedReading | undefined;
  #written = false;
  #cured: Promise<void> = Promise.resolve();
  readonly #arrived = new Set<number>();
  /** By PID inside the unit. */
  readonly #mappings = new Map<number, Uint8Array>();
  /** What CRIU has not seen whole, by PID on the host. */
  readonly #shortened = new Map<number, ShortenedMapping[]>();
  #hostPids: ReadonlyMap<number, number> = new Map();
  #stopped = false;

  constructor(
    workers: CaptureSet,
    rootPid: number,
    layers: readonly LayerCapture[],
    memory: MemoryForecast,
    onBytes: (bytes: number) => void,
  ) {
    this.#workers = workers;
    this.#rootPid = rootPid;
    this.#layers = layers;
    this.#memory = memory;
    this.#onBytes = onBytes;
  }

  /** `onFrozen` is called once, when the tree is known to be frozen. */
  async run(dump: DumpProcess, onFrozen: () => void): Promise<FrozenUnit> {
    const { statusFd } = dump;
    let frozenAtMs = 0;
    let failed: unknown;
    let reading: Promise<LayersAtOnce> | undefined;
    const receiving = this.#workers.stream.request(
      { op: 'receive-images', statusFd, holds: dump.holds },
      (event) => {
        try {
          if (event.kind === 'frozen') {
            frozenAtMs = event.atMs;
            this.#hostPids = pidsByUnitPid(this.#rootPid);
            if (!dump.holds) reading = quietly(this.#readLayers());
            void quietly(this.#readEarly());
            onFrozen();
          } else if (event.kind === 'pagemap') {
            const { pid, pagesId, segments } = event;
            this.#reads.push(quietly(this.#readProcess(pid, pagesId, segments)));
          } else if (event.kind === 'mappings') this.#mappings.set(event.pid, event.image);
          else if (event.kind === 'covered') this.#shortened.set(event.pid, event.shortened);
          else this.#onBytes(event.bytes);
        } catch (error) {
          failed ??= error;
        }
      },
    );
    void quietly(receiving);
    // CRIU has taken its code out of every process by then.
    this.#cured = quietly(receiving.then(() => undefined));
    await Promise.race([dump.written, receiving]);
    // CRIU needs no processor any more.
    this.#written = true;
    if (this.#memory.bytes > oneReaderBytes)
      for (const reader of this.#workers.readers) this.#current?.join(reader);
    const dumpedAtMs = performance.timeOrigin + performance.now();
    reading ??= quietly(this.#readLayers());
    const layers = await reading;
    dump.goOn();
    const images = await receiving;
    if (failed !== undefined) throw failed;
    const memory = await Promise.all(this.#reads);
    return { images, memory, layers, frozenAtMs, dumpedAtMs };
  }

  /** Lets everything that reads end soon. */
  stop(): void {
    this.#stopped = true;
    for (const reading of this.#readings) reading.stop();
    for (const layer of this.#layers) layer.stop();
  }

  /** Reads one process after the other, as long as CRIU has not come to it, and leaves CRIU a processor. */
  async #readEarly(): Promise<void> {
    const small = this.#memory.bytes <= oneReaderBytes;
    // The layers are read from the other end; little memory by the same, so that there is one pack less to be synced.
    const readers = small ? this.#workers.readers.slice(0, 1) : this.#workers.readers.toReversed();
    const [first] = readers;
    if (first === undefined) return;
    const beside = Math.max(1, Math.min(readers.length, availableParallelism() - 1));
    for (const pid of this.#hostPids.values()) {
      if (this.#stopped) return;
      if (this.#arrived.has(pid)) continue;
      const early = (async () => {
        const expected = this.#memory.expected.get(pid);
        const plan = await first.request({
          op: 'plan-memory',
          pid,
          frozen: true,
          ...(expected && { expected }),
        });
        if (plan === undefined || plan.segments.pages === 0 || this.#stopped) return undefined;
        const workers = this.#written ? readers : readers.slice(0, beside);
        const reading = this.#read(workers, pid, plan.segments, expected !== undefined);
        this.#current = reading;
        return { plan, reading };
      })().catch(() => undefined);
      this.#early.set(pid, early);
      await (await early)?.reading.result().catch(() => {});
      this.#current = undefined;
    }
  }

  /**
   * Reads what CRIU's page map asks for, unless it is being read already: when CRIU is through with the process, which may need to
   * be put in order (CRIU's system call stands in an executable mapping while it is at work).
   */
  async #readProcess(unitPid: number, pagesId: number, listed: MemorySegments): Promise<FrozenMemory> {
    const pid = this.#hostPids.get(unitPid);
    if (pid === undefined) throw vanished(unitPid);
    const shortened = this.#shortened.get(pid) ?? [];
    // Its page map says little, and comes early: there is time until CRIU is through with all processes.
    if (shortened.length > 0) await this.#cured;
    this.#arrived.add(pid);
    const early = await this.#early.get(pid);
    const { segments, mappingsImage } =
      shortened.length > 0
        ? await this.#complete(unitPid, pid, shortened, listed, early?.plan)
        : { segments: listed };
    const { runs } = segments;
    // Much of what was expected is gone: to read it would only fill it with zeros.
    if (early !== undefined && segments.pages < early.plan.segments.pages * 0.9) early.reading.stop();
    const rest = early === undefined ? segments : planSegments(runsToRead(runs, early.plan.segments.runs));
    await this.#cured;
    const planned = await early?.reading.result().catch(() => undefined);
    // What could not be read by the plan is read by the page map.
    const wanted =
      early === undefined || isComplete(early, planned)
        ? rest
        : planSegments(unreadRuns(runs, planned ?? []));
    const { readers } = this.#workers;
    const few = wanted.pages * pageSize <= oneReaderBytes;
    const readings = [...(planned ?? [])];
    if (wanted.pages > 0)
      readings.push(...(await this.#read(few ? readers.slice(0, 1) : readers, pid, wanted, false).result()));
    return { pid, unitPid, pagesId, runs, readings, ...(mappingsImage && { mappingsImage }) };
  }

  /** The page map and the mappings of a process of which CRIU has not seen all. */
  async #complete(
    unitPid: number,
    pid: number,
    shortened: readonly ShortenedMapping[],
    listed: MemorySegments,
    plan: MemoryPlan | undefined,
  ): Promise<{ segments: MemorySegments; mappingsImage: Uint8Array }> {
    const image = this.#mappings.get(unitPid);
    if (image === undefined) throw vanished(unitPid);
    const name = `mm-${unitPid}.img`;
    const mappingsImage = withWholeMappings(image, shortened, name);
    const starts = new Set(shortened.map(({ start }) => start));
    const mappings = privateMappings(decodeMappings(mappingsImage, name));
    // The stream's thread has nothing else to do any more, while the others read.
    const segments = await this.#workers.stream.request({
      op: 'list-pages',
      pid,
      mappings: mappings.filter(({ start }) => starts.has(start)),
      plan:
        plan === undefined || plan.ranges.length === 0
          ? undefined
          : { runs: plan.segments.runs, ranges: plan.ranges },
      listed: listed.runs,
    });
    if (segments === undefined) throw vanished(unitPid);
    return { segments, mappingsImage };
  }

  #read(
    workers: readonly CaptureWorker[],
    pid: number,
    segments: MemorySegments,
    lenient: boolean,
  ): SharedReading {
    const known = this.#memory.known.get(pid);
    const reading = new SharedReading(pid, segments, { known, lenient }, this.#onBytes);
    this.#readings.push(reading);
    if (this.#stopped) reading.stop();
    for (const worker of workers) reading.join(worker);
    return reading;
  }

  async #readLayers(): Promise<LayersAtOnce> {
    const mapped = sharedWritableFiles([...this.#hostPids.values()]);
    // The stream's thread is busy with CRIU.
    const [first, ...others] = this.#workers.readers;
    if (first === undefined) throw new Error('a capture set without readers');
    const workers = [first, ...others] as const;
    const layers: LayersAtOnce = [];
    for (const layer of this.#layers) {
      if (this.#stopped) break;
      const always = () => (layer.name === 'shm' ? 'all' : mapped);
      const result = await layer.update(workers, 'stage', always, this.#onBytes);
      layers.push({ name: layer.name, ...result });
    }
    return layers;
  }
}

/** Whether all windows of a plan were read. */
function isComplete({ plan }: EarlyReading, read: readonly MemoryWindows[] | undefined): boolean {
  const windows = (read ?? []).reduce((sum, { pages }) => sum + pages.length, 0);
  return windows === countWindows(plan.segments.runs);
}

function vanished(unitPid: number): CairnError {
  return new CairnError(
    'temporary',
    'process-vanished',
    `process ${unitPid} of the unit was not found while frozen`,
  );
}

/** A promise that is awaited later: its failure must not count as unhandled until then. */
function quietly<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/** Host PIDs of a tree by their PID in the PID namespace of its root. */
function pidsByUnitPid(rootPid: number): ReadonlyMap<number, number> {
  const pids = new Map<number, number>();
  const depth = (readStatus(rootPid)?.namespacePids.length ?? 1) - 1;
  for (const pid of readTree(rootPid)) {
    const inside = readStatus(pid)?.namespacePids[depth];
    if (inside !== undefined) pids.set(inside, pid);
  }
  return pids;
}
