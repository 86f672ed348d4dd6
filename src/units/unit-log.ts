/**
 * Writes the output of a unit in the text format of the Kubernetes container runtime interface: a line of the file is
 * `TIME STREAM TAG TEXT`, for example `2026-11-27T10:00:00.123456789Z stdout F hello`. Tag F ends a line of output, P says
 * that it goes on in the next one of the same stream (kubernetes/design-proposals, "CRI: log management").
 */

import { closeSync, fstatSync, ftruncateSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';
import { fullDiskError } from '../errors.ts';

export type OutputStream = 'stdout' | 'stderr';

/** Longer lines are written in parts. */
const longestPart = 16 * 1024;

/** A part of a line that waits longer than this is written as it is, so that a prompt is seen. */
const partialDelayMs = 250;

/** The name of the current log file in the directory of the logs; older ones have `.1`, `.2` … added. */
export const logName = 'unit.log';

/** The log of one unit, rotated by size. */
export class UnitLog {
  readonly #directory: string;
  readonly #maxBytes: number;
  readonly #files: number;
  #fd: number;
  #size: number;
  /** Lines for which there was no space. */
  #lost = 0;
  readonly #pending = new Map<OutputStream, Buffer>();
  #timer: NodeJS.Timeout | undefined;

  constructor(directory: string, limits: { maxBytes: number; files: number }) {
    this.#directory = directory;
    this.#maxBytes = limits.maxBytes;
    this.#files = limits.files;
    this.#fd = openSync(path.join(directory, logName), 'a', 0o600);
    this.#size = fstatSync(this.#fd).size;
  }

  /** Takes a piece of output as it was read. */
  write(stream: OutputStream, piece: Buffer): void {
    const before = this.#pending.get(stream);
    let rest = before === undefined ? piece : Buffer.concat([before, piece]);
    const time = timestamp();
    const lines: Buffer[] = [];
    for (;;) {
      const end = rest.indexOf(10);
      if (end >= 0 && end <= longestPart) {
        lines.push(Buffer.concat([Buffer.from(`${time} ${stream} F `), rest.subarray(0, end + 1)]));
        rest = rest.subarray(end + 1);
      } else if (rest.length > longestPart) {
        lines.push(
          Buffer.concat([Buffer.from(`${time} ${stream} P `), rest.subarray(0, longestPart), newline]),
        );
        rest = rest.subarray(longestPart);
      } else break;
    }
    // A copy: the piece may be a window of a buffer that is read into again.
    if (rest.length > 0) this.#pending.set(stream, Buffer.from(rest));
    else this.#pending.delete(stream);
    this.#append(lines);
    if (this.#pending.size > 0) this.#timer ??= setTimeout(() => this.flush(), partialDelayMs);
  }

  /** Writes parts of lines that have been waiting. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const [stream, rest] of this.#pending) {
      this.#append([Buffer.concat([Buffer.from(`${timestamp()} ${stream} P `), rest, newline])]);
    }
    this.#pending.clear();
  }

  /** Writes whole lines, in one call as far as they fit into the current file. */
  #append(lines: readonly Buffer[]): void {
    let fitting: Buffer[] = [];
    let bytes = 0;
    for (const line of lines) {
      if (this.#size + bytes > 0 && this.#size + bytes + line.length > this.#maxBytes) {
        this.#put(fitting);
        fitting = [];
        bytes = 0;
        this.#rotate();
      }
      fitting.push(line);
      bytes += line.length;
    }
    this.#put(fitting);
  }

  /** On a full disk the output is lost and counted: the unit, and who looks after it, must go on. */
  #put(lines: readonly Buffer[]): void {
    let bytes = Buffer.concat(lines);
    if (bytes.length === 0) return;
    if (this.#lost > 0)
      bytes = Buffer.concat([
        Buffer.from(
          `${timestamp()} stderr F cairn: the disk was full: ${this.#lost} lines of output are lost\n`,
        ),
        bytes,
      ]);
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at);
    } catch (error) {
      if (fullDiskError(error) === undefined) throw error;
      this.#lost += lines.length;
      // The part of a line that found room.
      ftruncateSync(this.#fd, this.#size);
      return;
    }
    this.#size += bytes.length;
    this.#lost = 0;
  }

  #rotate(): void {
    const base = path.join(this.#directory, logName);
    const numbered = (n: number) => (n === 0 ? base : `${base}.${n}`);
    rmSync(numbered(this.#files - 1), { force: true });
    for (let n = this.#files - 2; n >= 0; n--) {
      try {
        renameSync(numbered(n), numbered(n + 1));
      } catch {
        // There are not that many files yet.
      }
    }
    let fd: number;
    try {
      fd = openSync(base, 'a', 0o600);
    } catch (error) {
      if (fullDiskError(error) === undefined) throw error;
      // No room for another file: back under its name, and on in it.
      renameSync(numbered(1), base);
      return;
    }
    closeSync(this.#fd);
    this.#fd = fd;
    this.#size = 0;
  }

  [Symbol.dispose](): void {
    this.flush();
    closeSync(this.#fd);
  }
}

const newline = Buffer.from('\n');

/** The time as RFC 3339 with nine digits; the clock gives about microseconds. */
export function timestamp(now: number = performance.timeOrigin + performance.now()): string {
  const milliseconds = Math.floor(now);
  const nanoseconds = Math.floor((now - milliseconds) * 1e6);
  return `${new Date(milliseconds).toISOString().slice(0, -1)}${String(nanoseconds).padStart(6, '0')}Z`;
}
