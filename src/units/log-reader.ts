/** Reads the log of a unit back, also while it is being written and rotated. */

import { type FileHandle, open, readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemCode } from '../errors.ts';
import { logName, type OutputStream } from './unit-log.ts';

/** One line of output, or a part of one. */
export interface LogLine {
  /** RFC 3339 with nanoseconds. */
  time: string;
  stream: OutputStream;
  /** Without the newline. */
  text: string;
  /** The line goes on in the next one of the same stream. */
  partial: boolean;
}

export interface LogOptions {
  /** Goes on with what is written later, until `signal` says stop or `ended` says that nothing more will come. */
  follow?: boolean;
  /** Only the last so many lines of what there is. */
  tail?: number;
  /** Only lines at or after this time (milliseconds since 1970). */
  since?: number;
  signal?: AbortSignal;
  /** Asked while following whenever nothing new is there. */
  ended?: () => Promise<boolean>;
}

/** How often a followed log is looked at. */
const followMs = 100;

/** Parses a line of a log file; `undefined` if it is none (see `unit-log.ts`). */
export function parseLogLine(line: string): LogLine | undefined {
  const match = /^(\S+) (stdout|stderr) ([FP]) /.exec(line);
  if (match === null) return undefined;
  const [head, time = '', stream, tag] = match;
  return { time, stream: stream as OutputStream, text: line.slice(head.length), partial: tag === 'P' };
}

/** The lines of a unit's log, oldest first. */
export async function* readLog(directory: string, options: LogOptions = {}): AsyncGenerator<LogLine> {
  const from = options.since === undefined ? undefined : new Date(options.since).toISOString().slice(0, -1);
  const wanted = (line: LogLine) => from === undefined || line.time >= from;
  await using log = new RotatingFile(directory);
  if (options.tail === undefined) {
    for await (const line of log.linesThere()) if (wanted(line)) yield line;
  } else {
    const last: LogLine[] = [];
    for await (const line of log.linesThere()) {
      if (!wanted(line)) continue;
      last.push(line);
      if (last.length > options.tail) last.shift();
    }
    yield* last;
  }
  while (options.follow === true && options.signal?.aborted !== true) {
    // Asked before reading: what was written before the end is then read for certain.
    const ended = (await options.ended?.()) === true;
    let any = false;
    for await (const line of log.linesThere()) {
      any = true;
      if (wanted(line)) yield line;
    }
    if (ended && !any) return;
    if (!any) await sleep(followMs, undefined, { signal: options.signal }).catch(() => undefined);
  }
}

/** A log file and its predecessors as one stream of lines; remembers how far it was read. */
class RotatingFile {
  readonly #directory: string;
  #handle: FileHandle | undefined;
  #inode = 0;
  #rest = Buffer.alloc(0);
  #started = false;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Everything that has not been read yet. */
  async *linesThere(): AsyncGenerator<LogLine> {
    if (!this.#started) {
      this.#started = true;
      await this.#openOldest();
    }
    while (this.#handle !== undefined) {
      yield* this.#readOpen();
      if (!(await this.#openNext())) return;
    }
    await this.#openOldest();
    if (this.#handle !== undefined) yield* this.#readOpen();
  }

  async *#readOpen(): AsyncGenerator<LogLine> {
    const piece = Buffer.alloc(256 * 1024);
    for (;;) {
      const { bytesRead } = (await this.#handle?.read(piece, 0, piece.length)) ?? { bytesRead: 0 };
      if (bytesRead === 0) return;
      let data = Buffer.concat([this.#rest, piece.subarray(0, bytesRead)]);
      for (let end = data.indexOf(10); end >= 0; end = data.indexOf(10)) {
        const line = parseLogLine(data.toString('utf8', 0, end));
        if (line !== undefined) yield line;
        data = data.subarray(end + 1);
      }
      this.#rest = Buffer.from(data);
    }
  }

  /** Numbers of the files that exist, the oldest (highest) first; 0 is the current one. */
  async #numbers(): Promise<number[]> {
    const names = await readdir(this.#directory).catch(() => []);
    const numbers = names.map((name) =>
      name === logName ? 0 : Number(/^unit\.log\.(\d+)$/.exec(name)?.[1] ?? -1),
    );
    return numbers.filter((n) => n >= 0).sort((a, b) => b - a);
  }

  async #openOldest(): Promise<void> {
    const [oldest] = await this.#numbers();
    if (oldest !== undefined) await this.#open(oldest);
  }

  /** Goes to the file that follows the open one, if that has been rotated away. */
  async #openNext(): Promise<boolean> {
    const numbers = await this.#numbers();
    for (const n of numbers) {
      const there = await stat(this.#path(n)).catch(() => undefined);
      if (there?.ino !== this.#inode) continue;
      return n > 0 && (await this.#open(n - 1));
    }
    // Rotated out of existence while it was open: go on with the oldest there is.
    const [oldest] = numbers;
    return oldest !== undefined && (await this.#open(oldest));
  }

  #path(n: number): string {
    return path.join(this.#directory, n === 0 ? logName : `${logName}.${n}`);
  }

  async #open(n: number): Promise<boolean> {
    let next: FileHandle;
    try {
      next = await open(this.#path(n), 'r');
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return false;
      throw error;
    }
    await this.#handle?.close();
    this.#handle = next;
    this.#inode = (await next.stat()).ino;
    this.#rest = Buffer.alloc(0);
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle?.close();
  }
}
