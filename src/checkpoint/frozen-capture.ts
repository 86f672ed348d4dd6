import { readStatus, readTree } from '../linux/process.ts';
import { CairnError } from '../errors.ts';
import type { LayerEntry } from '../store/manifest.ts';
import { type CaptureSet, oneReaderBytes } from './capture-pool.ts';
import type { DumpProcess } from './dump-process.ts';
import type { ReadMemory, ReceivedImage, SharedCounter } from './capture-protocol.ts';
import { type LayerCapture, newCounter, sharedWritableFiles, stopCounter } from './layer-capture.ts';
import { type MergedMemory, mergeMemory } from './memory-merge.ts';
import { type MemorySegments, pageSize } from './memory-segments.ts';

/** Memory of one process at the moment of the checkpoint. */
export interface CapturedMemory extends MergedMemory {
  /** PID inside the unit: the number in the names of its images. */
  unitPid: number;
  pagesId: number;
}

/** Everything of a unit at one moment, already in the staging memory of the workers or in packs. */
export interface FrozenUnit {
  images: ReceivedImage[];
  memory: CapturedMemory[];
  layers: { name: 'root' | 'shm'; entries: LayerEntry[]; bytesRead: number }[];
  /** performance.timeOrigin + performance.now() when the first image of a process arrived. */
  frozenAtMs: number;
  /** The same, when CRIU had written everything. */
  dumpedAtMs: number;
}

interface RunningRead {
  unitPid: number;
  pagesId: number;
  segments: MemorySegments;
  parts: Promise<ReadMemory[]>;
}

/**
 * Reads a frozen unit: images from CRIU as they come, memory of each process as soon as its page map is there, and, when CRIU has
 * written everything, what has changed in the layers. Ends with all of it in hand and the unit still frozen.
 */
export class FrozenCapture {
  readonly #workers: CaptureSet;
  readonly #rootPid: number;
  readonly #layers: readonly LayerCapture[];
  readonly #onBytes: (bytes: number) => void;
  readonly #counters: SharedCounter[] = [];
  readonly #reads: RunningRead[] = [];
  #hostPids: Map<number, number> | undefined;
  #pages = 0;

  constructor(
    workers: CaptureSet,
    rootPid: number,
    layers: readonly LayerCapture[],
    onBytes: (bytes: number) => void,
  ) {
    this.#workers = workers;
    this.#rootPid = rootPid;
    this.#layers = layers;
    this.#onBytes = onBytes;
  }

  /** `onFrozen` is called once, when the tree is known to be frozen. */
  async run(dump: DumpProcess, onFrozen: () => void): Promise<FrozenUnit> {
    const { statusFd } = dump;
    let frozenAtMs = 0;
    let failed: unknown;
    const receiving = this.#workers.stream.request({ op: 'receive-images', statusFd }, (event) => {
      try {
        if (event.kind === 'frozen') {
          frozenAtMs = event.atMs;
          this.#hostPids = pidsByUnitPid(this.#rootPid);
          onFrozen();
        } else if (event.kind === 'pagemap') this.#readProcess(event.pid, event.pagesId, event.segments);
        else this.#onBytes(event.bytes);
      } catch (error) {
        failed ??= error;
      }
    });
    // Awaited later; a failure must not count as unhandled until then.
    receiving.catch(() => {});
    await Promise.race([dump.written, receiving]);
    const dumpedAtMs = performance.timeOrigin + performance.now();
    const layers = await this.#readLayers();
    dump.goOn();
    const images = await receiving;
    if (failed !== undefined) throw failed;
    const memory: CapturedMemory[] = [];
    for (const { unitPid, pagesId, segments, parts } of this.#reads)
      memory.push({ unitPid, pagesId, ...mergeMemory(await parts, segments.starts.length - 1) });
    return { images, memory, layers, frozenAtMs, dumpedAtMs };
  }

  /** Lets everything that reads end soon. */
  stop(): void {
    for (const counter of this.#counters) stopCounter(counter);
    for (const layer of this.#layers) layer.stop();
  }

  #readProcess(unitPid: number, pagesId: number, segments: MemorySegments): void {
    const pid = this.#hostPids?.get(unitPid);
    if (pid === undefined)
      throw new CairnError(
        'temporary',
        'process-vanished',
        `process ${unitPid} of the unit was not found while frozen`,
      );
    const next = newCounter();
    this.#counters.push(next);
    this.#pages += segments.pages;
    // The stream's thread comes to it when CRIU has written everything: soon, for something this small.
    const { stream, readers } = this.#workers;
    const workers = this.#pages * pageSize <= oneReaderBytes ? [stream] : readers;
    const parts = Promise.all(
      workers.map((worker) =>
        worker.request({ op: 'read-memory', pid, segments, next, mode: 'stage' }, (event) => {
          if (event.kind === 'progress') this.#onBytes(event.bytes);
        }),
      ),
    );
    // Awaited later; a failure must not count as unhandled until then.
    parts.catch(() => {});
    this.#reads.push({ unitPid, pagesId, segments, parts });
  }

  async #readLayers(): Promise<FrozenUnit['layers']> {
    const mapped = sharedWritableFiles([...(this.#hostPids?.values() ?? [])]);
    // The stream's thread is busy until CRIU goes on, and CRIU waits for this.
    const [first, ...others] = this.#workers.readers;
    if (first === undefined) throw new Error('a capture set without readers');
    const workers = [first, ...others] as const;
    const layers: FrozenUnit['layers'] = [];
    for (const layer of this.#layers) {
      const always = () => (layer.name === 'shm' ? 'all' : mapped);
      const result = await layer.update(workers, 'stage', always, this.#onBytes);
      layers.push({ name: layer.name, ...result });
    }
    return layers;
  }
}

/** Host PIDs of a tree by their PID in the PID namespace of its root. */
function pidsByUnitPid(rootPid: number): Map<number, number> {
  const pids = new Map<number, number>();
  const depth = (readStatus(rootPid)?.namespacePids.length ?? 1) - 1;
  for (const pid of readTree(rootPid)) {
    const inside = readStatus(pid)?.namespacePids[depth];
    if (inside !== undefined) pids.set(inside, pid);
  }
  return pids;
}
