/**
 * What is said on `monitor.sock`: the client sends one line of JSON, the monitor answers with one. After `attach` both
 * sides go on with frames (see `attach-frames.ts`).
 */

import type { TerminalSize } from './terminal.ts';
import type { UnitEnd } from './unit-status.ts';

export type MonitorRequest =
  | { op: 'status' }
  /** Answered when the unit has ended. */
  | { op: 'wait' }
  /** To the first process, or to its process group's terminal as a key press would be. */
  | { op: 'signal'; signal: number }
  | {
      op: 'attach';
      /** Feeds standard input. */
      stdin: boolean;
      /** Sends first what the unit has written lately (at most 64 KiB). */
      replay: boolean;
      size?: TerminalSize;
    };

export type MonitorAnswer =
  | { ok: true; pid: number; clients: number; terminal: boolean; end?: UnitEnd }
  | { ok: false; message: string };

/** Parses a request. Throws on anything that is none. */
export function parseRequest(line: string): MonitorRequest {
  const value = JSON.parse(line) as Record<string, unknown>;
  switch (value?.op) {
    case 'status':
    case 'wait':
      return { op: value.op };
    case 'signal': {
      const { signal } = value;
      if (typeof signal !== 'number' || !Number.isInteger(signal) || signal < 1 || signal > 64) break;
      return { op: 'signal', signal };
    }
    case 'attach':
      return {
        op: 'attach',
        stdin: value.stdin === true,
        replay: value.replay === true,
        ...(isSize(value.size) ? { size: value.size } : {}),
      };
  }
  throw new Error(`not a request to a monitor: ${line.slice(0, 100)}`);
}

function isSize(value: unknown): value is TerminalSize {
  const { columns, rows } = (value ?? {}) as Partial<TerminalSize>;
  const fits = (n: unknown) => typeof n === 'number' && Number.isInteger(n) && n > 0 && n < 65536;
  return fits(columns) && fits(rows);
}
