/**
 * Standard input, output and error of a unit, seen from its monitor: real pipes (Node.js itself makes socket pairs, which
 * CRIU cannot replace on a restore), or the master of a pseudo terminal.
 */

import { closeSync, fstatSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { CairnError } from '../errors.ts';
import {
  openMaster,
  openSlave,
  openTerminal,
  setTerminalSize,
  type TerminalSize,
  terminalIndex,
  terminalKey,
} from './terminal.ts';
import { close, pipe } from '../linux/libc.ts';
import { acceptUnix, listenUnix, receiveMessage } from '../linux/socket.ts';
import type { StreamDescriptors } from './held-streams.ts';
import type { OutputStream } from './unit-log.ts';

/**
 * Which descriptors of the unit lead to its monitor, as CRIU names them. Kept in `stdio.json` and, with a checkpoint, in
 * its snapshot: on the restore they are the keys of `--inherit-fd`.
 */
export type StdioKeys =
  | { kind: 'pipes'; stdin?: string; stdout: string; stderr: string }
  /** `terminal` is the slave side: `tty[RDEV:DEV]`. */
  | { kind: 'terminal'; terminal: string };

/** The monitor's side of a unit's standard streams. */
export interface UnitStdio {
  readonly keys: StdioKeys;
  /** Descriptors that the first process of the unit gets as 0, 1 and 2; `ignore` is /dev/null. */
  readonly childSide: readonly [number | 'ignore', number | 'ignore', number | 'ignore'];
  /** Closes the unit's side here, once the unit has it: the end of its output can then be seen. */
  releaseChildSide(): void;
  /** Reads until `onEnd`; call once. */
  read(onData: (stream: OutputStream, piece: Buffer) => void, onEnd: () => void): void;
  /** Feeds standard input; false if there is none. */
  write(bytes: Buffer): boolean;
  /** Ends standard input (a terminal gets its end-of-file character). */
  endInput(): void;
  resize(size: TerminalSize): void;
  /** Stops reading after what has arrived. */
  finish(): Promise<void>;
  /** The descriptors that carry the unit's output; `undefined` if it is lost. */
  readonly output: StreamDescriptors | undefined;
}

/** Reads the keys that a monitor has left; `undefined` before the unit's first start. */
export function readStdioKeys(file: string): StdioKeys | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as StdioKeys;
  } catch {
    return undefined;
  }
}

/** Writes down the keys for whoever takes a checkpoint. */
export function writeStdioKeys(file: string, keys: StdioKeys): void {
  writeFileSync(file, JSON.stringify(keys), { mode: 0o600 });
}

/** Our ends of the pipes; an output that no process of the unit has any more cannot be opened anew. */
interface PipeEnds {
  stdin: number | undefined;
  stdout: number | undefined;
  stderr: number | undefined;
}

/** Three pipes (two without standard input). */
export class PipeStdio implements UnitStdio {
  readonly keys: StdioKeys;
  readonly #own: PipeEnds;
  #childs: PipeEnds | undefined;
  #input: Socket | undefined;
  #streams: Socket[] = [];

  constructor(withInput: boolean, adopted?: { keys: StdioKeys; ends: PipeEnds }) {
    if (adopted !== undefined) {
      this.keys = adopted.keys;
      this.#own = adopted.ends;
      return;
    }
    const stdin = withInput ? pipe() : undefined;
    const stdout = pipe();
    const stderr = pipe();
    this.#own = { stdin: stdin?.write, stdout: stdout.read, stderr: stderr.read };
    this.#childs = { stdin: stdin?.read, stdout: stdout.write, stderr: stderr.write };
    this.keys = {
      kind: 'pipes',
      ...(stdin === undefined ? {} : { stdin: pipeKey(stdin.read) }),
      stdout: pipeKey(stdout.write),
      stderr: pipeKey(stderr.write),
    };
  }

  /** Pipes that a unit has already. */
  static adopt(keys: StdioKeys, ends: PipeEnds): PipeStdio {
    return new PipeStdio(false, { keys, ends });
  }

  get output(): StreamDescriptors | undefined {
    const { stdout, stderr } = this.#own;
    return stdout === undefined || stderr === undefined ? undefined : { stdout, stderr };
  }

  get childSide(): [number | 'ignore', number | 'ignore', number | 'ignore'] {
    const { stdin = 'ignore', stdout = 'ignore', stderr = 'ignore' } = this.#childs ?? {};
    return [stdin, stdout, stderr];
  }

  releaseChildSide(): void {
    const childs = this.#childs;
    this.#childs = undefined;
    if (childs === undefined) return;
    for (const fd of [childs.stdin, childs.stdout, childs.stderr]) if (fd !== undefined) close(fd);
  }

  read(onData: (stream: OutputStream, piece: Buffer) => void, onEnd: () => void): void {
    let open = 0;
    for (const name of ['stdout', 'stderr'] as const) {
      const fd = this.#own[name];
      if (fd === undefined) continue;
      open += 1;
      const stream = new Socket({ fd, readable: true, writable: false });
      this.#streams.push(stream);
      stream.on('data', (piece) => onData(name, piece as Buffer));
      stream.on('error', () => {});
      stream.on('close', () => {
        open -= 1;
        if (open === 0) onEnd();
      });
    }
    if (this.#own.stdin !== undefined) {
      this.#input = new Socket({ fd: this.#own.stdin, readable: false, writable: true });
      this.#input.on('error', () => {});
    }
  }

  write(bytes: Buffer): boolean {
    return this.#input?.writable === true && (this.#input.write(bytes) || true);
  }

  endInput(): void {
    this.#input?.end();
  }

  resize(): void {}

  async finish(): Promise<void> {
    // All writers are gone with the unit, so the end of the file comes by itself after what is buffered.
    await Promise.all(this.#streams.map((stream) => closed(stream, 1000)));
    this.#input?.destroy();
  }
}

function pipeKey(fd: number): string {
  return `pipe:[${fstatSync(fd).ino}]`;
}

/** A pseudo terminal whose master the monitor holds. */
export class TerminalStdio implements UnitStdio {
  readonly keys: StdioKeys;
  readonly #master: number;
  /** Kept open: while no process of the unit has the terminal open, reading the master would fail. */
  readonly #slave: number;
  #streams: { input: Writable; output: Readable } | undefined;

  private constructor(master: number, slave: number, size?: TerminalSize) {
    this.#master = master;
    this.#slave = slave;
    this.keys = { kind: 'terminal', terminal: terminalKey(slave) };
    if (size !== undefined) this.resize(size);
  }

  /** A pair of its own, for a restore. */
  static open(devpts: string, size: TerminalSize): TerminalStdio {
    const { master, slave } = openTerminal(devpts);
    return new TerminalStdio(master, slave, size);
  }

  /** For a master that exists already: from an OCI runtime, or of an earlier monitor. Without a size it keeps its own. */
  static adopt(master: number, devpts: string, size?: TerminalSize): TerminalStdio {
    return new TerminalStdio(master, openSlave(devpts, terminalIndex(master)), size);
  }

  get childSide(): [number, number, number] {
    return [this.#slave, this.#slave, this.#slave];
  }

  releaseChildSide(): void {}

  read(onData: (stream: OutputStream, piece: Buffer) => void, onEnd: () => void): void {
    this.#streams = openMaster(this.#master);
    this.#streams.output.on('data', (piece) => onData('stdout', piece as Buffer));
    this.#streams.output.on('close', onEnd);
  }

  write(bytes: Buffer): boolean {
    return this.#streams?.input.write(bytes) !== undefined;
  }

  endInput(): void {
    this.write(Buffer.from([4]));
  }

  resize(size: TerminalSize): void {
    setTerminalSize(this.#master, size);
  }

  get output(): StreamDescriptors {
    return { master: this.#master };
  }

  async finish(): Promise<void> {
    // With the last slave closed the master yields what is buffered and then an error, which ends the stream.
    closeSync(this.#slave);
    if (this.#streams !== undefined) await closed(this.#streams.output, 1000);
    this.#streams?.input.destroy();
  }
}

/** What an adopted unit has when its terminal died with its monitor. */
export class LostStdio implements UnitStdio {
  readonly keys: StdioKeys;
  readonly childSide = ['ignore', 'ignore', 'ignore'] as const;
  readonly output = undefined;

  constructor(plan: { terminal: boolean }, keys?: StdioKeys) {
    const none = plan.terminal
      ? { kind: 'terminal' as const, terminal: '' }
      : { kind: 'pipes' as const, stdout: '', stderr: '' };
    this.keys = keys ?? none;
  }

  releaseChildSide(): void {}

  read(): void {}

  write(): boolean {
    return false;
  }

  endInput(): void {}

  resize(): void {}

  async finish(): Promise<void> {}
}

/** Waits until a stream is closed; closes it after `timeoutMs`. */
function closed(stream: Readable, timeoutMs: number): Promise<void> {
  if (stream.closed) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(() => stream.destroy(), timeoutMs);
    stream.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/**
 * The place where an OCI runtime delivers the master of the terminal that it has made (`--console-socket`). By the time
 * the runtime has ended, the master waits in the socket.
 */
export class ConsoleSocket {
  readonly path: string;
  readonly #listener: number;

  constructor(directory: string) {
    this.path = path.join(directory, 'console.sock');
    this.#listener = listenUnix(this.path, 1);
  }

  /** The master. Throws `terminal-missing` (environment) if none was delivered. */
  receive(): number {
    const connection = acceptUnix(this.#listener);
    if (connection === undefined) throw missing();
    try {
      // Room for the name of the terminal, which comes along as data.
      const message = receiveMessage(connection, Buffer.alloc(4096), true);
      const [master, ...others] = message?.descriptors ?? [];
      for (const fd of others) close(fd);
      if (master === undefined) throw missing();
      return master;
    } finally {
      close(connection);
    }
  }

  [Symbol.dispose](): void {
    close(this.#listener);
    unlinkSync(this.path);
  }
}

function missing(): CairnError {
  return new CairnError('environment', 'terminal-missing', 'The OCI runtime has delivered no terminal.');
}
