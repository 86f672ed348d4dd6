import type { SealedPacks, WriterEnvironment } from '../store/chunk-writer.ts';
import type { ReaderEnvironment } from '../store/chunk-reader.ts';
import type { ReadPlan } from '../store/read-plan.ts';
import type { RestoredEntry } from './layer-restore.ts';
import type { ScannedEntry } from './layer-scan.ts';
import type { Cover } from '../criu/covered-command.ts';
import type { ShortenedMapping } from '../criu/mapping-cover.ts';
import type { PrivateMapping } from '../criu/saved-mappings.ts';
import type { MemoryPlan } from './memory-plan.ts';
import type { MemorySegments } from './memory-segments.ts';
import type { MemoryWindows } from './memory-windows.ts';
import type { PortableError } from './portable-error.ts';

/** How new chunks are treated: kept in memory while the unit is frozen, or written at once while it runs. */
export type CaptureMode = 'stage' | 'write';

/** A stream of bytes in the store as it crosses between threads: small ones as they are, others as a packed chunk list. */
export interface PortableStream {
  size: number;
  /** The bytes themselves, or `ChunkList.serialize()`. */
  inline?: Uint8Array;
  chunks?: Uint8Array;
}

/** What a worker can be asked. Requests of one worker are answered in turn. */
export type CaptureRequest =
  /** A snapshot begins: from now on this worker's chunks belong to it. */
  | {
      op: 'begin';
      environment: WriterEnvironment;
      /** New chunks that this worker may hold in memory by itself, bytes; beyond that it takes from the budget (`StagingBudget`). */
      stagingBytes: number;
      stagingBudget: SharedArrayBuffer;
      /** For the tags of memory (`Gmac`): the same for all that are compared. */
      tagKey: Uint8Array;
    }
  /** Allocates and touches staging memory, so that no page fault is paid while the unit is frozen. */
  | { op: 'reserve'; bytes: number }
  /** Which private anonymous pages a process has, cut into segments; `expected`: what is thought of a frozen one, so that it need not be asked for. */
  | { op: 'plan-memory'; pid: number; frozen: boolean; expected?: MemorySegments }
  /** The page map of a process of which CRIU did not see all; see `listPages`. */
  | {
      op: 'list-pages';
      pid: number;
      mappings: readonly PrivateMapping[];
      plan: { runs: Float64Array; ranges: readonly number[] } | undefined;
      listed: Float64Array;
    }
  /** Reads segments of a process, taking turns with other workers through `next`; `known`: what was read of it before. */
  | {
      op: 'read-memory';
      pid: number;
      segments: MemorySegments;
      next: SharedCounter;
      mode: CaptureMode;
      known: MemoryWindows | undefined;
      /** Pages may be gone: their segments are left out. */
      lenient: boolean;
    }
  /** Binds CRIU's image streamer socket in `directory`, and makes covers for the mappings of the processes `cover`; answered when CRIU may start. */
  | { op: 'listen'; directory: string; wakeFd: number; cover: readonly number[] }
  /** Receives the images of a dump until all are complete and CRIU waits on its page socket. `holds`: it has waited at `post-dump` before. */
  | { op: 'receive-images'; statusFd: number; holds: boolean }
  /** Closes the streamer's sockets. */
  | { op: 'hang-up' }
  /** Stores bytes as a stream of their own. */
  | { op: 'store-bytes'; bytes: Uint8Array }
  | { op: 'scan-layer'; root: string }
  /** Reads files below `root`, taking turns with other workers through `next`. */
  | { op: 'read-files'; root: string; paths: readonly string[]; next: SharedCounter; mode: CaptureMode }
  /** Writes a layer of a snapshot into an empty directory. */
  | {
      op: 'restore-layer';
      root: string;
      /** The layer that it takes the place of. */
      before: string | undefined;
      entries: readonly RestoredEntry[];
      plan: ReadPlan;
      environment: ReaderEnvironment;
    }
  /** Compresses, encrypts, appends and syncs everything; the worker's part of the snapshot is complete. */
  | { op: 'finish' }
  /** Drops everything since `begin`. */
  | { op: 'abort' };

/** One Int32 in shared memory: the next piece of work. -1 (or below) stops everyone. */
export type SharedCounter = Int32Array<SharedArrayBuffer>;

export interface ReadFile {
  /** Index into `paths`. */
  index: number;
  /** When reading began, nanoseconds since 1970: a file whose ctime is that recent may have changed unseen. */
  startedNs: string;
  ino: number;
  size: number;
  mtimeNs: string;
  ctimeNs: string;
  content: PortableStream;
}

export interface ReceivedImage {
  name: string;
  content: PortableStream;
}

/** `mm-PID.img` of a process (PID inside the unit). */
export interface ArrivedMappings {
  pid: number;
  image: Uint8Array;
}

export interface CaptureAnswers {
  begin: undefined;
  reserve: undefined;
  'plan-memory': MemoryPlan | undefined;
  'list-pages': MemorySegments | undefined;
  'read-memory': MemoryWindows;
  listen: Cover[];
  'receive-images': ReceivedImage[];
  'hang-up': undefined;
  'store-bytes': PortableStream;
  'scan-layer': ScannedEntry[];
  'read-files': ReadFile[];
  'restore-layer': undefined;
  finish: SealedPacks;
  abort: undefined;
}

/** What a worker tells before its answer. */
export type CaptureEvent =
  /** The first image of a process has arrived: the tree is frozen. `atMs` is performance.timeOrigin + performance.now(). */
  | { kind: 'frozen'; atMs: number }
  /** The page map of a process (by its PID inside the unit) is complete. */
  | { kind: 'pagemap'; pid: number; pagesId: number; segments: MemorySegments }
  /** CRIU has been shown the mappings of a process (PID on the host), some of them shortened. Comes before its images. */
  | { kind: 'covered'; pid: number; shortened: ShortenedMapping[] }
  /** The image of the mappings of a process is complete. */
  | ({ kind: 'mappings' } & ArrivedMappings)
  | { kind: 'progress'; bytes: number };

export type CaptureReply =
  /** The thread has started. */
  | { kind: 'up' }
  | { id: number; kind: 'event'; event: CaptureEvent }
  | { id: number; kind: 'value'; value: unknown }
  | { id: number; kind: 'error'; error: PortableError };
