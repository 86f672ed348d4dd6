import type { ChunkList } from './chunk-list.ts';

/** Content at rest: chunks, or the bytes themselves if they are few (at most 4 KiB). */
export interface StoredStream {
  /** Bytes. */
  size: number;
  chunks: ChunkList | Uint8Array;
}

/** One file, directory or other node of a layer. */
export interface LayerEntry {
  /** Relative, without leading slash; one latin1 character for each byte of the name. */
  path: string;
  type:
    | 'file'
    | 'directory'
    | 'symlink'
    | 'fifo'
    | 'socket'
    | 'char'
    | 'block'
    | 'whiteout'
    /** Another name of the file at `target`. */
    | 'hardlink';
  /** Permission bits, 0o7777. */
  mode: number;
  uid: number;
  gid: number;
  /** Nanoseconds since 1970, decimal: too many digits for a number. */
  mtimeNs: string;
  /** Device number of `char` and `block`, as stat(2) gives it. */
  rdev?: number;
  /** Target of a symbolic link (latin1), or path of the entry that a hard link names too. */
  target?: string;
  xattrs?: { name: string; valueBase64: string }[];
  /** Of regular files. */
  content?: StoredStream;
  /** For the comparison with the next checkpoint, never restored. */
  ino: number;
  ctimeNs: string;
  /** Bytes, as stat(2) gives it. */
  size: number;
}

/** A tree of files that belongs to a unit: its writable layer or its /dev/shm. */
export interface LayerImage {
  name: 'root' | 'shm';
  entries: LayerEntry[];
}

/** One job unit at one moment. */
export interface UnitImage {
  unit: string;
  /** What the unit was started from; opaque here. */
  unitDescription: unknown;
  /** What a restore needs to know besides; opaque here. */
  restore: Record<string, unknown>;
  /** CRIU's image files and memory, by name. */
  images: { name: string; content: StoredStream }[];
  layers: LayerImage[];
}

/** One job at one moment: what a restart reads first. */
export interface SnapshotManifest {
  job: { id: string; name: string };
  /** 1, 2, … within the job; never used twice. */
  sequence: number;
  /** ISO 8601, UTC. */
  createdAt: string;
  /** The job as it was described; opaque here. */
  jobDescription: unknown;
  units: UnitImage[];
  /** Milliseconds by phase. */
  timings: Record<string, number>;
  /** Kernel, CPU, CRIU and so on of the host it was taken on. */
  host: Record<string, string>;
  note?: string;
  /** Retention leaves it alone. */
  pinned?: boolean;
}

/** What the clear part of a manifest tells without decryption; signed like the rest. */
export interface SnapshotHeader {
  jobId: string;
  jobName: string;
  sequence: number;
  createdAt: string;
  state: 'local';
  pinned: boolean;
  note?: string;
  /** Sum of all streams, bytes, zeros included. */
  logicalBytes: number;
  /** Bytes that this snapshot added to the packs. */
  storedBytes: number;
  /** Of the manifest file. */
  manifestBytes: number;
  /** Why the manifest cannot be used, if it cannot: then only `jobId` and `sequence` (from the file's name) mean anything. */
  damaged?: string;
}

/** Calls `visit` for every stream of a snapshot with a name for messages: `unit/image` or `unit:layer/path`. */
export function visitStreams(
  manifest: SnapshotManifest,
  visit: (name: string, stream: StoredStream) => void,
): void {
  for (const unit of manifest.units) {
    for (const image of unit.images) visit(`${unit.unit}/${image.name}`, image.content);
    for (const layer of unit.layers)
      for (const entry of layer.entries)
        if (entry.content !== undefined) visit(`${unit.unit}:${layer.name}/${entry.path}`, entry.content);
  }
}
