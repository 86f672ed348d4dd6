/** A worker thread of a checkpoint: reads memory, files and CRIU's images, and stores them. See `capture-protocol.ts`. */

import { parentPort } from 'node:worker_threads';
import { type CaptureEvent as StreamEvent, StreamCapture } from '../criu/stream-capture.ts';
import { CairnError } from '../errors.ts';
import { read } from '../linux/libc.ts';
import { returnFreeMemory } from '../linux/memory.ts';
import { ChunkListBuilder } from '../store/chunk-list.ts';
import { ChunkReader } from '../store/chunk-reader.ts';
import { ChunkWriter } from '../store/chunk-writer.ts';
import { chunkIdBytes, inlineLimitBytes, maxChunkBytes } from '../store/format.ts';
import type {
  CaptureEvent,
  CaptureMode,
  CaptureReply,
  CaptureRequest,
  PortableStream,
  ReadMemory,
  SharedCounter,
} from './capture-protocol.ts';
import { ImageCollector } from './image-collector.ts';
import { readFiles, type StreamSink } from './layer-read.ts';
import { restoreLayer } from './layer-restore.ts';
import { scanLayer } from './layer-scan.ts';
import { segmentFields } from './memory-merge.ts';
import { planMemory } from './memory-plan.ts';
import { MemoryReader } from './memory-read.ts';
import { type MemorySegments, planSegments, runFields } from './memory-segments.ts';
import { portableError } from './portable-error.ts';

if (parentPort === null) throw new Error('capture-worker runs in a worker thread');
const port = parentPort;

let writer: ChunkWriter | undefined;
let capture: StreamCapture | undefined;
let collected: ImageCollector | undefined;

port.on('message', ({ id, request }: { id: number; request: CaptureRequest }) => {
  const tell = (event: CaptureEvent) => port.postMessage({ id, kind: 'event', event } satisfies CaptureReply);
  try {
    const value = answer(request, tell);
    port.postMessage({ id, kind: 'value', value } satisfies CaptureReply, transferables(value));
  } catch (error) {
    port.postMessage({ id, kind: 'error', error: portableError(error) } satisfies CaptureReply);
  }
});

function answer(request: CaptureRequest, tell: (event: CaptureEvent) => void): unknown {
  switch (request.op) {
    case 'begin':
      writer?.[Symbol.dispose]();
      writer = new ChunkWriter(request.environment, { stagingLimitBytes: request.stagingLimitBytes });
      return undefined;
    case 'reserve':
      current().reserve(request.bytes);
      return undefined;
    case 'plan-memory':
      return planMemory(request.pid);
    case 'read-memory':
      return readSegments(request.pid, request.segments, request.next, request.mode, tell);
    case 'listen':
      capture = new StreamCapture(request.directory);
      capture.watch(request.wakeFd);
      return undefined;
    case 'receive-images':
      return receiveImages(request.statusFd, tell);
    case 'hang-up':
      capture?.[Symbol.dispose]();
      capture = undefined;
      collected = undefined;
      return undefined;
    case 'store-bytes': {
      const sink = openSink('write');
      sink.push(request.bytes);
      return sink.end();
    }
    case 'scan-layer':
      return scanLayer(request.root);
    case 'read-files':
      return readFiles(request.root, request.paths, request.next, openSink, request.mode, (bytes) =>
        tell({ kind: 'progress', bytes }),
      );
    case 'restore-layer': {
      using reader = new ChunkReader(request.environment, request.plan);
      restoreLayer(request.root, request.entries, reader, request.before);
      return undefined;
    }
    case 'finish': {
      const ended = current();
      writer = undefined;
      try {
        return ended.seal();
      } finally {
        ended[Symbol.dispose]();
        returnFreeMemory();
      }
    }
    case 'abort':
      writer?.[Symbol.dispose]();
      writer = undefined;
      returnFreeMemory();
      return undefined;
  }
}

function current(): ChunkWriter {
  if (writer === undefined) throw new Error('no snapshot has begun in this worker');
  return writer;
}

/** A stream that is cut at multiples of 64 KiB; runs of zero blocks are noted, not stored. */
function openSink(mode: CaptureMode): StreamSink {
  const target = current();
  const list = new ChunkListBuilder();
  let small: Uint8Array | undefined;
  let size = 0;
  return {
    push(bytes) {
      // The first block of a small stream is kept aside: it may go into the manifest as it is.
      if (size === 0 && bytes.byteLength <= inlineLimitBytes) {
        // Not `slice`, which on a Buffer shares its memory with what is read next.
        small = new Uint8Array(bytes);
        size = bytes.byteLength;
        return;
      }
      if (small !== undefined) throw new Error('only the last block of a stream may be short');
      size += bytes.byteLength;
      for (let at = 0; at < bytes.byteLength; at += maxChunkBytes) {
        const chunk = bytes.subarray(at, Math.min(at + maxChunkBytes, bytes.byteLength));
        if (mode === 'stage') target.stage(chunk, list);
        else target.write(chunk, list);
      }
    },
    end(): PortableStream {
      if (small !== undefined) return { size, inline: small };
      return size === 0 ? { size, inline: new Uint8Array() } : { size, chunks: list.build().serialize() };
    },
  };
}

function readSegments(
  pid: number,
  plan: MemorySegments,
  next: SharedCounter,
  mode: CaptureMode,
  tell: (event: CaptureEvent) => void,
): ReadMemory {
  using reader = new MemoryReader();
  const target = current();
  const segments: number[] = [];
  const kept: number[] = [];
  const list = new SegmentChunks();
  let told = 0;
  for (;;) {
    const index = Atomics.add(next, 0, 1);
    if (index < 0 || index + 1 >= plan.starts.length) break;
    const from = plan.starts[index] as number;
    const to = plan.starts[index + 1] as number;
    const pages: number[] = [];
    const builder = new ChunkListBuilder(24);
    reader.readSegment(pid, plan.runs, from, to, pages, (window) => {
      told += window.byteLength;
      if (mode === 'stage') target.stage(window, builder);
      else target.write(window, builder);
    });
    segments.push(index, kept.length / runFields, pages.length / runFields, list.count, builder.count);
    for (const number of pages) kept.push(number);
    list.append(builder);
    if (told >= progressBytes) {
      tell({ kind: 'progress', bytes: told });
      told = 0;
    }
  }
  if (segments.length % segmentFields !== 0) throw new Error('segment fields');
  tell({ kind: 'progress', bytes: told });
  return { segments: Uint32Array.from(segments), runs: Float64Array.from(kept), ...list.take() };
}

const progressBytes = 64 * 1024 * 1024;

/** Chunks of many segments, one after the other; zero runs are never joined across segments, which may be far apart. */
class SegmentChunks {
  count = 0;
  #ids = new Uint8Array(1024 * chunkIdBytes);
  #lengths = new Uint32Array(1024);

  append(builder: ChunkListBuilder): void {
    const list = builder.build();
    while (this.count + list.count > this.#lengths.length) {
      const ids = new Uint8Array(this.#ids.length * 2);
      ids.set(this.#ids);
      this.#ids = ids;
      const lengths = new Uint32Array(this.#lengths.length * 2);
      lengths.set(this.#lengths);
      this.#lengths = lengths;
    }
    this.#ids.set(list.ids, this.count * chunkIdBytes);
    this.#lengths.set(list.lengths, this.count);
    this.count += list.count;
  }

  take(): { ids: Uint8Array<ArrayBuffer>; lengths: Uint32Array<ArrayBuffer> } {
    return {
      ids: this.#ids.slice(0, this.count * chunkIdBytes),
      lengths: this.#lengths.slice(0, this.count),
    };
  }
}

/** Serves CRIU until it waits on its page socket (the status descriptor says so) and every image has been read to its end. */
function receiveImages(statusFd: number, tell: (event: CaptureEvent) => void): unknown {
  if (capture === undefined) throw new Error('the image streamer does not listen');
  capture.watch(statusFd);
  collected = new ImageCollector(
    () => openSink('stage'),
    ({ pid, runs, pagesId }) => tell({ kind: 'pagemap', pid, pagesId, segments: planSegments(runs) }),
  );
  const images = collected;
  let frozen = false;
  const take = (event: StreamEvent) => {
    if (event.kind === 'open') {
      // cpuinfo is written before the tree is frozen; everything else after.
      if (!frozen && !event.name.startsWith('cpuinfo')) {
        frozen = true;
        tell({ kind: 'frozen', atMs: performance.timeOrigin + performance.now() });
      }
      images.open(event.stream, event.name);
    } else if (event.kind === 'data') images.data(event.stream, event.bytes);
    else if (event.kind === 'end') images.end(event.stream);
  };
  try {
    for (;;) {
      for (const event of capture.poll(-1)) {
        if (event.kind === 'finished') throw gaveUp();
        if (event.kind !== 'ready') take(event);
        else if (event.fd !== statusFd) throw interrupted();
        else {
          // The byte says that all is written; an end of file, that CRIU is gone.
          if (read(statusFd, new Uint8Array(1)) !== 1) throw gaveUp();
          for (const last of capture.drain(drainTimeoutMs)) take(last);
          return images.finish();
        }
      }
    }
  } finally {
    capture.unwatch(statusFd);
  }
}

/** What CRIU has written lies in its pipes; reading that takes milliseconds. */
const drainTimeoutMs = 10_000;

function gaveUp(): CairnError {
  return new CairnError('permanent', 'criu-gave-up', 'CRIU stopped before it had saved everything');
}

function interrupted(): CairnError {
  return new CairnError('temporary', 'checkpoint-aborted', 'the checkpoint was given up');
}

function transferables(value: unknown): ArrayBuffer[] {
  if (typeof value !== 'object' || value === null || !('ids' in value)) return [];
  const memory = value as ReadMemory;
  return [memory.segments.buffer, memory.runs.buffer, memory.ids.buffer, memory.lengths.buffer];
}
