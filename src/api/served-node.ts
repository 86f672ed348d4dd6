import type { EventBus } from '../jobs/event-bus.ts';
import type { Jobs } from '../jobs/jobs.ts';
import type { JobSnapshots, JobUnit, JobUnitStatus } from '../jobs/ports.ts';
import type { SnapshotManifest } from '../store/manifest.ts';
import type { LogLine, NodeInformation } from './schemas.ts';
import type { StreamSession } from './stream-session.ts';

/** What the API needs of a unit, besides what the jobs room needs. */
export interface ServedUnit extends JobUnit {
  /** IPv4 address on the bridge of the node. */
  readonly address?: string | undefined;
  status(): Promise<JobUnitStatus & { startTime?: number }>;
  processes(): Promise<number[]>;
  sendSignal(signal: number): Promise<void>;
  logs(options: LogRequest): AsyncIterable<LogLine>;
  attach(options: AttachRequest): Promise<StreamSession>;
  exec(request: ExecRequest): Promise<StreamSession>;
}

export interface LogRequest {
  follow?: boolean;
  /** Only the last so many lines. */
  tail?: number;
  /** Only lines since then, in milliseconds since 1970. */
  since?: number;
  signal?: AbortSignal;
  /** While following: nothing more will come once this says so. */
  ended?: () => Promise<boolean>;
}

export interface AttachRequest {
  /** Feeds standard input. */
  stdin: boolean;
  /** Begins with what was written last. */
  replay: boolean;
  size?: { columns: number; rows: number };
}

/** A command to run in a unit beside its first process. */
export interface ExecRequest {
  command: string[];
  environment?: Record<string, string>;
  /** Name or number, as in a job description. */
  user?: string;
  workingDirectory?: string;
  terminal: boolean;
  stdin: boolean;
  size?: { columns: number; rows: number };
}

/** What the API needs of the store, besides what the jobs room needs. */
export interface ServedSnapshots extends JobSnapshots {
  readManifest(jobId: string, sequence: number): Promise<SnapshotManifest>;
  /** Checks every byte of a snapshot. Returns what is damaged, by name; nothing if it is valid. */
  verify(
    jobId: string,
    sequence: number,
    options: { onProgress?: (done: number, total: number) => void; signal?: AbortSignal },
  ): Promise<string[]>;
  setPinned(jobId: string, sequence: number, pinned: boolean): Promise<void>;
}

/** The node as the API sees it. */
export interface ServedNode {
  readonly jobs: Jobs<ServedUnit>;
  readonly snapshots: ServedSnapshots;
  readonly events: EventBus;
  information(): Promise<NodeInformation>;
}
