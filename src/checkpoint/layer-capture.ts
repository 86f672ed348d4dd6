import { readMaps } from '../linux/process-maps.ts';
import { ChunkList } from '../store/chunk-list.ts';
import type { LayerEntry, StoredStream } from '../store/manifest.ts';
import { type CaptureWorker, oneReaderBytes } from './capture-pool.ts';
import type { CaptureMode, PortableStream, ReadFile, SharedCounter } from './capture-protocol.ts';
import { filesToRead, type KnownFile } from './layer-changes.ts';
import type { ScannedEntry } from './layer-scan.ts';

export function newCounter(): SharedCounter {
  return new Int32Array(new SharedArrayBuffer(4));
}

/** Makes everyone who takes turns through this counter find nothing more to do. */
export function stopCounter(counter: SharedCounter): void {
  Atomics.store(counter, 0, -(2 ** 30));
}

/** A stream as the manifest holds it. */
export function storedStream(stream: PortableStream): StoredStream {
  if (stream.chunks !== undefined) return { size: stream.size, chunks: ChunkList.deserialize(stream.chunks) };
  return { size: stream.size, chunks: stream.inline ?? new Uint8Array() };
}

/**
 * One tree of files of a unit, as far as its content is already stored.
 *
 * `update` brings it up to date: called while the unit runs it saves in advance; called while the unit is frozen it reads only what may
 * have changed since, and its result is the layer at that moment.
 */
export class LayerCapture {
  readonly name: 'root' | 'shm';
  readonly #root: string;
  readonly #known: Map<string, KnownFile>;
  readonly #counters = new Set<SharedCounter>();

  /** `known`: what an earlier snapshot, which still exists, has of this very directory. */
  constructor(name: 'root' | 'shm', root: string, known: ReadonlyMap<string, KnownFile> = new Map()) {
    this.name = name;
    this.#root = root;
    this.#known = new Map(known);
  }

  get known(): ReadonlyMap<string, KnownFile> {
    return this.#known;
  }

  /**
   * `mapped` tells which paths are mapped shared and writable now; `all`: a tmpfs, whose files are all used that way. A write through a
   * mapping need not change any time of a file: what was read while it was mapped is not known for later.
   */
  async update(
    workers: readonly [CaptureWorker, ...CaptureWorker[]],
    mode: CaptureMode,
    mapped: () => ReadonlySet<string> | 'all',
    onBytes: (bytes: number) => void,
  ): Promise<{ entries: LayerEntry[]; bytesRead: number }> {
    const scanned = await workers[0].request({ op: 'scan-layer', root: this.#root });
    const always = expandMapped(scanned, mapped());
    const paths = filesToRead(scanned, this.#known, always);
    const changed = new Set(paths);
    const bytes = scanned.reduce((sum, { path, size }) => sum + (changed.has(path) ? size : 0), 0);
    const readers = bytes <= oneReaderBytes ? [workers[0]] : workers;
    const read = paths.length === 0 ? [] : await this.#read(readers, mode, paths, onBytes);
    let bytesRead = 0;
    const mappedSince = expandMapped(scanned, mapped());
    for (const file of read) {
      bytesRead += file.size;
      const path = paths[file.index] as string;
      const certain = !always.has(path) && !mappedSince.has(path);
      this.#known.set(path, { ...knownFile(file), ...(certain ? {} : { startedNs: '0' }) });
    }
    const present = new Set(scanned.map((entry) => entry.path));
    for (const path of this.#known.keys()) if (!present.has(path)) this.#known.delete(path);
    const entries: LayerEntry[] = [];
    for (const entry of scanned) {
      if (entry.type !== 'file') {
        entries.push(entry);
        continue;
      }
      const known = this.#known.get(entry.path);
      // Vanished between scan and read: only possible while the unit runs, and then the next scan decides.
      if (known !== undefined) entries.push({ ...entry, size: known.size, content: known.content });
    }
    return { entries, bytesRead };
  }

  /** Lets reads that are under way end soon. */
  stop(): void {
    for (const counter of this.#counters) stopCounter(counter);
  }

  async #read(
    workers: readonly CaptureWorker[],
    mode: CaptureMode,
    paths: readonly string[],
    onBytes: (bytes: number) => void,
  ): Promise<ReadFile[]> {
    const next = newCounter();
    this.#counters.add(next);
    try {
      const parts = await Promise.all(
        workers.map((worker) =>
          worker.request({ op: 'read-files', root: this.#root, paths, next, mode }, (event) => {
            if (event.kind === 'progress') onBytes(event.bytes);
          }),
        ),
      );
      return parts.flat();
    } finally {
      this.#counters.delete(next);
    }
  }
}

/** All mapped paths; a file with several names is mapped by each of them. */
function expandMapped(scanned: readonly ScannedEntry[], mapped: ReadonlySet<string> | 'all'): Set<string> {
  if (mapped === 'all') return new Set(scanned.map((entry) => entry.path));
  const all = new Set(mapped);
  for (const { type, path, target } of scanned)
    if (type === 'hardlink' && target !== undefined && mapped.has(path)) all.add(target);
  return all;
}

function knownFile(file: ReadFile): KnownFile {
  const { ino, size, mtimeNs, ctimeNs, startedNs } = file;
  return { ino, size, mtimeNs, ctimeNs, startedNs, content: storedStream(file.content) };
}

/** Paths (as in `LayerEntry`) of files that some of the processes have mapped shared and writable. */
export function sharedWritableFiles(pids: readonly number[]): Set<string> {
  const paths = new Set<string>();
  for (const pid of pids)
    for (const { shared, writable, path, deleted } of readMaps(pid) ?? [])
      if (shared && writable && !deleted && path.startsWith('/'))
        paths.add(Buffer.from(path.slice(1), 'utf8').toString('latin1'));
  return paths;
}
