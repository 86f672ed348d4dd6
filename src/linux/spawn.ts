import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';

/** How a program is started. */
export interface SpawnOptions {
  /** Child's environment; default: that of this process. */
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** Standard input, output and error; default: nothing, and output and error kept as the last lines. */
  stdin?: number;
  stdout?: number;
  stderr?: number;
  /** Descriptors of this process that the child gets as 3, 4, 5 … This process keeps its own. */
  descriptors?: readonly number[];
  /** When aborted, `abortSignal` is sent to the program's process group. */
  signal?: AbortSignal;
  /** Default SIGKILL. */
  abortSignal?: NodeJS.Signals;
  /** `cgroup.procs` files of the groups that the program is in before its first instruction. */
  cgroupFiles?: readonly string[];
  /** Starts in a cgroup namespace of its own whose root is the groups it is in. */
  newCgroupNamespace?: boolean;
  /** Gets SIGKILL when the thread that starts it ends, however that happens. */
  endsWithParent?: boolean;
  /** A write to a closed pipe is an error for the program instead of its end. */
  ignoreSigpipe?: boolean;
  /** Lines of output and error that are kept; default 40. */
  keepLines?: number;
  /** Called for each line of output and error. */
  onLine?: (line: string) => void;
}

/** How a program ended. */
export interface ProgramEnd {
  /** `undefined` if a signal ended it. */
  exitCode: number | undefined;
  signal: NodeJS.Signals | undefined;
  /** Its last lines of output and error. */
  lines: readonly string[];
}

/** Exit code of a program that could not be put into its cgroups; its last line says why. */
export const cgroupExitCode = 125;

/** Enters cgroups, sets the signal, and becomes the program: `sh -c SCRIPT sh COUNT FILE… PROGRAM ARGUMENT…`. */
const entryScript = (ignoreSigpipe: boolean) =>
  `${ignoreSigpipe ? "trap '' PIPE; " : ''}n=$1; shift; ` +
  `while [ "$n" -gt 0 ]; do echo $$ > "$1" || exit ${cgroupExitCode}; shift; n=$((n-1)); done; exec "$@"`;

/** The command line that is run in the end. Pure. */
export function entryCommand(argv: readonly string[], options: SpawnOptions): string[] {
  const { cgroupFiles = [], newCgroupNamespace, endsWithParent, ignoreSigpipe = false } = options;
  const command = [
    ...(newCgroupNamespace === true ? ['unshare', '--cgroup'] : []),
    ...(endsWithParent === true ? ['setpriv', '--pdeathsig', 'KILL'] : []),
    ...argv,
  ];
  if (cgroupFiles.length === 0 && !ignoreSigpipe) return command;
  return [
    '/bin/sh',
    '-c',
    entryScript(ignoreSigpipe),
    'sh',
    String(cgroupFiles.length),
    ...cgroupFiles,
    ...command,
  ];
}

/**
 * A program in its own session and process group. Disposing kills the group if it still runs, and waits.
 *
 * Throws nothing on construction but what `spawn` throws for a bad argument; that the program cannot be started is told by
 * `ended` (rejected with ENOENT, EACCES …).
 */
export class Program implements AsyncDisposable {
  readonly pid: number | undefined;
  /** Resolves once when the program has ended; rejects if it could not be started. */
  readonly ended: Promise<ProgramEnd>;
  /** Resolves at the very moment of the end, with the signal if one ended it; never rejects. */
  readonly exited: Promise<NodeJS.Signals | undefined>;
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #keepLines: number;
  readonly #onLine: ((line: string) => void) | undefined;
  #running = true;

  constructor(argv: readonly string[], options: SpawnOptions = {}) {
    this.#keepLines = options.keepLines ?? 40;
    this.#onLine = options.onLine;
    const [file = '', ...rest] = entryCommand(argv, options);
    this.#child = spawn(file, rest, {
      env: options.env ?? process.env,
      cwd: options.cwd,
      detached: true,
      stdio: [
        options.stdin ?? 'ignore',
        options.stdout ?? 'pipe',
        options.stderr ?? 'pipe',
        ...(options.descriptors ?? []),
      ],
    });
    this.pid = this.#child.pid;
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream) this.#collect(stream);
    }
    this.exited = new Promise((resolve) => {
      this.#child.once('error', () => resolve(undefined));
      this.#child.once('exit', (_code, signal) => resolve(signal ?? undefined));
    });
    const kill = () => this.kill(options.abortSignal ?? 'SIGKILL');
    this.ended = this.#wait().finally(() => options.signal?.removeEventListener('abort', kill));
    // Whoever does not wait must not bring the process down.
    this.ended.catch(() => {});
    if (options.signal?.aborted) kill();
    else options.signal?.addEventListener('abort', kill, { once: true });
  }

  get running(): boolean {
    return this.#running;
  }

  /** The last lines of output and error so far. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** Sends a signal to the program's process group; false if the program has ended. */
  kill(signal: NodeJS.Signals): boolean {
    // The PID is not reused while Node.js has not reaped the child, and it reports the end when it does.
    if (!this.#running || this.pid === undefined) return false;
    try {
      process.kill(-this.pid, signal);
      return true;
    } catch {
      return false;
    }
  }

  /** Waits for the end, at most `timeoutMs`; `undefined` if it still runs then. Rejects as `ended` does. */
  async waitFor(timeoutMs: number): Promise<ProgramEnd | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(resolve, timeoutMs, undefined);
    });
    try {
      return await Promise.race([this.ended, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #wait(): Promise<ProgramEnd> {
    const child = this.#child;
    const exit = new Promise<ProgramEnd>((resolve, reject) => {
      child.once('error', (error) => {
        this.#running = false;
        reject(error);
      });
      child.once('exit', (code, signal) => {
        this.#running = false;
        resolve({ exitCode: code ?? undefined, signal: signal ?? undefined, lines: this.#lines });
      });
    });
    const closed = new Promise<void>((resolve) => child.once('close', () => resolve()));
    const end = await exit;
    // What it left behind may hold its output open; what it said itself is here by then.
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([closed, new Promise<void>((resolve) => void (timer = setTimeout(resolve, 200)))]);
    clearTimeout(timer);
    child.stdout?.destroy();
    child.stderr?.destroy();
    return end;
  }

  #collect(stream: NodeJS.ReadableStream): void {
    let rest = '';
    stream.setEncoding('utf8');
    const take = (line: string) => {
      this.#lines.push(line);
      if (this.#lines.length > this.#keepLines) this.#lines.shift();
      this.#onLine?.(line);
    };
    stream.on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      // A line without an end must not fill the memory.
      rest = (lines.pop() ?? '').slice(-16_384);
      lines.forEach(take);
    });
    stream.on('end', () => {
      if (rest !== '') take(rest);
    });
    stream.on('error', () => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill('SIGKILL');
    await this.ended.catch(() => {});
  }
}

/** Number of a signal by its name. */
export function signalNumber(name: NodeJS.Signals): number {
  return constants.signals[name];
}
