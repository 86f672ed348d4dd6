/** A worker thread of a checkpoint: reads memory, files and CRIU's images, and stores them. See `capture-protocol.ts`. */

import { parentPort } from 'node:worker_threads';
import { type CaptureEvent as StreamEvent, StreamCapture } from '../criu/stream-capture.ts';
import { MappingCover } from '../criu/mapping-cover.ts';
import { CairnError, systemCode } from '../errors.ts';
import { Gmac, gmacKeyBytes } from '../linux/gmac.ts';
import { libc, read } from '../linux/libc.ts';
import { returnFreeMemory } from '../linux/memory.ts';
import { ChunkListBuilder } from '../store/chunk-list.ts';
import { ChunkReader } from '../store/chunk-reader.ts';
import { ChunkWriter } from '../store/chunk-writer.ts';
import { chunkIdBytes, inlineLimitBytes, maxChunkBytes } from '../store/format.ts';
import { StagingBudget } from '../store/staging.ts';
import type {
  CaptureEvent,
  CaptureMode,
  CaptureReply,
  CaptureRequest,
  PortableStream,
} from './capture-protocol.ts';
import { ImageCollector } from './image-collector.ts';
import { readFiles, type StreamSink } from './layer-read.ts';
import { restoreLayer } from './layer-restore.ts';
import { scanLayer } from './layer-scan.ts';
import { canListPages, listPages, planExpected, planMemory } from './memory-plan.ts';
import { MemoryReader, SegmentBuffer, type WindowVisitor } from './memory-read.ts';
import { pageSize, planSegments } from './memory-segments.ts';
import { countPages, type MemoryWindows, WindowLookup, WindowRecorder } from './memory-windows.ts';
import { portableError } from './portable-error.ts';

if (parentPort === null) throw new Error('capture-worker runs in a worker thread');
const port = parentPort;

let writer: ChunkWriter | undefined;
let tagKey: Uint8Array | undefined;
const segmentBuffer = new SegmentBuffer();
let capture: StreamCapture | undefined;
let collected: ImageCollector | undefined;
let covers: MappingCover[] = [];

// Bound now, not while somebody is frozen; and a thread that is ended while Node.js binds functions takes the process with it.
libc();
new Gmac(new Uint8Array(gmacKeyBytes))[Symbol.dispose]();

port.on('message', ({ id, request }: { id: number; request: CaptureRequest }) => {
  const tell = (event: CaptureEvent) => port.postMessage({ id, kind: 'event', event } satisfies CaptureReply);
  try {
    const value = answer(request, tell);
    port.postMessage({ id, kind: 'value', value } satisfies CaptureReply);
  } catch (error) {
    port.postMessage({ id, kind: 'error', error: portableError(error) } satisfies CaptureReply);
  }
});
port.postMessage({ kind: 'up' } satisfies CaptureReply);

function answer(request: CaptureRequest, tell: (event: CaptureEvent) => void): unknown {
  switch (request.op) {
    case 'begin':
      writer?.[Symbol.dispose]();
      writer = new ChunkWriter(request.environment, {
        stagingLimitBytes: request.stagingBytes,
        stagingBudget: new StagingBudget(request.stagingBudget),
      });
      tagKey = request.tagKey;
      return undefined;
    case 'reserve':
      current().reserve(request.bytes);
      return undefined;
    case 'plan-memory':
      return request.expected === undefined
        ? planMemory(request.pid, request.frozen)
        : planExpected(request.pid, request.expected);
    case 'list-pages':
      return listPages(request.pid, request.mappings, request.plan, request.listed);
    case 'read-memory':
      return readSegments(request, tell);
    case 'listen':
      capture = new StreamCapture(request.directory);
      capture.watch(request.wakeFd);
      covers = request.cover.flatMap(
        (pid) => MappingCover.create(request.directory, pid, canListPages()) ?? [],
      );
      return covers.map(({ cover }) => cover);
    case 'receive-images':
      return receiveImages(request, tell);
    case 'hang-up':
      capture?.[Symbol.dispose]();
      capture = undefined;
      collected = undefined;
      for (const cover of covers) cover[Symbol.dispose]();
      covers = [];
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

/**
 * Reads segments of a process. A window whose tag is that of an earlier reading is not named anew: its chunk is taken if the store
 * still has it.
 */
function readSegments(
  { pid, segments, next, mode, known, lenient }: Extract<CaptureRequest, { op: 'read-memory' }>,
  tell: (event: CaptureEvent) => void,
): MemoryWindows {
  if (tagKey === undefined) throw new Error('no snapshot has begun in this worker');
  using gmac = new Gmac(tagKey);
  const target = current();
  using reader = new MemoryReader(pid, segmentBuffer);
  const recorder = new WindowRecorder(segments.runs);
  const lookup = known === undefined ? undefined : new WindowLookup(known);
  let told = 0;
  const visit: WindowVisitor = (address, pages, lazy, bytes) => {
    told += bytes.byteLength;
    gmac.compute(bytes);
    if (known !== undefined && lookup !== undefined) {
      const i = lookup.find(address);
      if (i >= 0 && lookup.matches(i, pages, gmac.tag)) {
        const zeros = known.zeros[i] as number;
        const keptBytes = countPages(pages & ~zeros) * pageSize;
        const name = known.ids.subarray(i * chunkIdBytes, (i + 1) * chunkIdBytes);
        if ((zeros & ~lazy) === 0 && (keptBytes === 0 || target.reuse(name, keptBytes, recorder))) {
          recorder.add(address, pages, zeros, gmac.tag);
          return;
        }
      }
    }
    const { zeros, kept } = dropZeroPages(bytes, pages, lazy);
    if (kept.byteLength > 0) {
      if (mode === 'stage') target.stage(kept, recorder);
      else target.write(kept, recorder);
    }
    recorder.add(address, pages, zeros, gmac.tag);
  };
  for (;;) {
    const index = Atomics.add(next, 0, 1);
    if (index < 0 || index + 1 >= segments.starts.length) break;
    const from = segments.starts[index] as number;
    const to = segments.starts[index + 1] as number;
    try {
      reader.readSegment(segments.runs, from, to, visit);
    } catch (error) {
      // What was planned while the process runs may be gone; the rest of it is worth reading all the same.
      if (!lenient || systemCode(error) === 'ESRCH' || error instanceof CairnError) throw error;
    }
    if (told >= progressBytes) {
      tell({ kind: 'progress', bytes: told });
      told = 0;
    }
  }
  tell({ kind: 'progress', bytes: told });
  return recorder.build();
}

const progressBytes = 64 * 1024 * 1024;
const zeroPage = new Uint8Array(pageSize);

/** Leaves out all-zero pages of private anonymous memory: an absent page of such memory reads as zeros. Moves the others together. */
function dropZeroPages(
  bytes: Buffer<SharedArrayBuffer>,
  pages: number,
  lazy: number,
): { zeros: number; kept: Buffer<SharedArrayBuffer> } {
  let zeros = 0;
  let write = 0;
  let read = 0;
  for (let bit = 1; bit <= pages; bit <<= 1) {
    if ((pages & bit) === 0) continue;
    const end = read + pageSize;
    if ((lazy & bit) !== 0 && bytes.compare(zeroPage, 0, pageSize, read, end) === 0) zeros |= bit;
    else {
      if (write !== read) bytes.copyWithin(write, read, end);
      write += pageSize;
    }
    read = end;
  }
  return { zeros, kept: bytes.subarray(0, write) };
}

/** Serves CRIU until it waits on its page socket (the status descriptor says so) and every image has been read to its end. */
function receiveImages(
  { statusFd, holds }: Extract<CaptureRequest, { op: 'receive-images' }>,
  tell: (event: CaptureEvent) => void,
): unknown {
  if (capture === undefined) throw new Error('the image streamer does not listen');
  capture.watch(statusFd);
  collected = new ImageCollector(
    () => openSink('stage'),
    ({ pid, runs, pagesId }) => tell({ kind: 'pagemap', pid, pagesId, segments: planSegments(runs) }),
    (arrived) => tell({ kind: 'mappings', ...arrived }),
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
      let waiting = false;
      for (const cover of covers) {
        const shortened = cover.serve();
        if (shortened !== undefined) tell({ kind: 'covered', pid: cover.cover.pid, shortened });
        waiting ||= !cover.served;
      }
      for (const event of capture.poll(waiting ? coverPollMs : -1)) {
        if (event.kind === 'finished') throw gaveUp();
        if (event.kind !== 'ready') take(event);
        else if (event.fd !== statusFd) throw interrupted();
        else {
          // The byte says that all is written; an end of file, that CRIU is gone.
          if (read(statusFd, new Uint8Array(1)) !== 1) throw gaveUp();
          for (const last of capture.drain(drainTimeoutMs)) take(last);
          return images.finish(holds);
        }
      }
    }
  } finally {
    capture.unwatch(statusFd);
  }
}

/** How often it is looked whether CRIU waits for the mappings of a process. */
const coverPollMs = 1;

/** What CRIU has written lies in its pipes; reading that takes milliseconds. */
const drainTimeoutMs = 10_000;

function gaveUp(): CairnError {
  return new CairnError('permanent', 'criu-gave-up', 'CRIU stopped before it had saved everything');
}

function interrupted(): CairnError {
  return new CairnError('temporary', 'checkpoint-aborted', 'the checkpoint was given up');
}
