/** How the program at the other side of a session ended: payload of an exit frame, as JSON. */
export interface SessionEnd {
  exitCode?: number;
  /** Number of the signal. */
  signal?: number;
}

/** Reads the payload of an exit frame. */
export function readSessionEnd(payload: Uint8Array): SessionEnd {
  return JSON.parse(Buffer.from(payload).toString('utf8')) as SessionEnd;
}

/** The exit code that a shell would give. */
export function exitCodeOfSession(end: SessionEnd): number {
  return end.exitCode ?? 128 + (end.signal ?? 0);
}
