import type { EventBus } from '../jobs/event-bus.ts';
import type { Jobs } from '../jobs/jobs.ts';
import type { JobSnapshots, JobUnit, JobUnitStatus } from '../jobs/ports.ts';
import type { Damage } from '../store/damage.ts';
import type { SnapshotManifest } from '../store/manifest.ts';
import type { LogLine, NodeInformation } from './schemas.ts';
import type { AttachRequest, ExecRequest, LogRequest, StreamSession } from '../node/unit-session.ts';

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

/** What the API needs of the store, besides what the jobs room needs. */
export interface ServedSnapshots extends JobSnapshots {
  readManifest(jobId: string, sequence: number): Promise<SnapshotManifest>;
  /** Checks every byte of a snapshot and says what is damaged; nothing if it is valid. */
  verify(
    jobId: string,
    sequence: number,
    options: { onProgress?: (doneBytes: number, totalBytes: number) => void; signal?: AbortSignal },
  ): Promise<{ damage: Damage[] }>;
  setPinned(jobId: string, sequence: number, pinned: boolean): Promise<void>;
}

/** The node as the API sees it. */
export interface ServedNode {
  readonly jobs: Jobs<ServedUnit>;
  readonly snapshots: ServedSnapshots;
  readonly events: EventBus;
  information(): Promise<NodeInformation>;
}
