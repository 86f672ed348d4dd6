import type { Readable } from 'node:stream';

/** Which part of the output of a unit is wanted. */
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

/** How somebody wants to be connected with the input and output of a unit. */
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

/** How the program at the other side of a session ended. */
export interface SessionEnd {
  exitCode?: number;
  /** Number of the signal. */
  signal?: number;
}

/** A program whose input and output somebody has: a job, or a command that runs in one. */
export interface StreamSession {
  readonly stdout: Readable;
  readonly stderr: Readable;
  write(bytes: Uint8Array): Promise<void> | void;
  endInput(): Promise<void> | void;
  resize(size: { columns: number; rows: number }): Promise<void> | void;
  /** How it ended; `undefined` if only the connection to it did. */
  readonly end: Promise<SessionEnd | undefined>;
  /** Nobody listens any more. */
  close(): void;
}
