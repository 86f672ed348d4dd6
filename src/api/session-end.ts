import type { SessionEnd } from '../node/unit-session.ts';

export type { SessionEnd };

/** Reads the payload of an exit frame. */
export function readSessionEnd(payload: Uint8Array): SessionEnd {
  return JSON.parse(Buffer.from(payload).toString('utf8')) as SessionEnd;
}

/** The exit code that a shell would give. */
export function exitCodeOfSession(end: SessionEnd): number {
  return end.exitCode ?? 128 + (end.signal ?? 0);
}
