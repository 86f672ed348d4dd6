import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type DumpOptions, dumpCommand } from '../criu/dump-command.ts';
import { explainFailure } from '../criu/explain.ts';
import { readLog } from '../criu/log.ts';
import type { CairnError } from '../errors.ts';
import { close, eventfd, pipe, signalEventfd } from '../linux/libc.ts';
import { identityOf, isAlive, type ProcessIdentity } from '../linux/process.ts';
import { socketPair } from '../linux/socket.ts';
import { Program, type ProgramEnd } from '../linux/spawn.ts';

/** How long CRIU may take to let a unit go after it was told to, before it is ended (then the kernel lets it go). */
const releaseTimeoutMs = 15_000;
/** The same when the dump is given up: somebody waits for the unit to run, and CRIU may be what hangs. */
const abortTimeoutMs = 3000;

const logFile = 'dump.log';

/** Descriptors of the child process: 3 is the page socket, 4 the status pipe. */
const pageSocketFd = 3;
const statusFd = 4;

/**
 * One `criu dump` that stops half-way: it writes all images but the lazy pages, says so on the status descriptor, and waits, the
 * unit frozen, for somebody who asks it for pages on its page socket. Nobody does: when that socket is closed, CRIU lets
 * the unit go and ends. It is also closed if this daemon dies, whatever the cause: then the unit simply runs on.
 */
export class DumpProcess implements AsyncDisposable {
  readonly directory: string;
  /** Readable: one byte when everything is written, end of file when CRIU is gone. */
  readonly statusFd: number;
  /** An eventfd for whoever serves the images: signalled when the dump is given up. */
  readonly wakeFd: number;
  readonly #pageSocket: number;
  readonly #program: Program;
  #released = false;

  private constructor(
    directory: string,
    program: Program,
    fds: { status: number; wake: number; pages: number },
  ) {
    this.directory = directory;
    this.#program = program;
    this.statusFd = fds.status;
    this.wakeFd = fds.wake;
    this.#pageSocket = fds.pages;
  }

  /**
   * Starts CRIU. `listen` must bind the image streamer in the directory first; it gets the eventfd that interrupts it.
   * Remnants of an earlier dump in `directory` are removed.
   */
  static async start(
    criu: string,
    directory: string,
    options: Omit<DumpOptions, 'imageDirectory' | 'logFile' | 'lazySocket' | 'statusDescriptor'>,
    listen: (directory: string, wakeFd: number) => Promise<unknown>,
  ): Promise<DumpProcess> {
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const wake = eventfd();
    const [ours, theirs] = socketPair();
    const status = pipe();
    try {
      await listen(directory, wake);
      const argv = dumpCommand({
        ...options,
        imageDirectory: directory,
        logFile,
        lazySocket: pageSocketFd,
        statusDescriptor: statusFd,
      });
      const program = new Program([criu, ...argv], {
        descriptors: [theirs, status.write],
        ignoreSigpipe: true,
      });
      writeFileSync(path.join(directory, 'criu.json'), JSON.stringify(identityOf(program.pid ?? 0) ?? null), {
        mode: 0o600,
      });
      return new DumpProcess(directory, program, { status: status.read, wake, pages: ours });
    } catch (error) {
      for (const fd of [wake, ours, status.read]) close(fd);
      rmSync(directory, { recursive: true, force: true });
      throw error;
    } finally {
      close(theirs);
      close(status.write);
    }
  }

  /**
   * Lets the unit go and waits until CRIU has ended.
   *
   * Throws what CRIU's log says if it failed; the unit runs on in that case too.
   */
  async release(): Promise<void> {
    this.#closePages();
    const end = await this.#ended(releaseTimeoutMs);
    if (end.exitCode !== 0) throw this.#explain(end);
  }

  /** Gives up: the unit runs on. Waits until CRIU is gone; ends it if it does not go by itself. */
  async abort(): Promise<void> {
    this.#closePages();
    signalEventfd(this.wakeFd);
    await this.#ended(abortTimeoutMs).catch(() => {});
  }

  /** Rejects when CRIU has ended, with the reason from its log: it should not before it is released. */
  async failure(): Promise<never> {
    throw this.#explain(await this.#program.ended);
  }

  #explain(end: ProgramEnd): CairnError {
    return explainFailure({
      attempt: 'Saving the job',
      end,
      log: readLog(path.join(this.directory, logFile)),
    });
  }

  async #ended(timeoutMs: number): Promise<ProgramEnd> {
    const timer = setTimeout(() => this.#program.kill('SIGKILL'), timeoutMs);
    try {
      return await this.#program.ended;
    } finally {
      clearTimeout(timer);
    }
  }

  #closePages(): void {
    if (this.#released) return;
    this.#released = true;
    close(this.#pageSocket);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort();
    close(this.statusFd);
    close(this.wakeFd);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** A CRIU that a dead daemon has left behind in `directory`; `undefined` if there is none. */
export function leftoverDump(directory: string): ProcessIdentity | undefined {
  try {
    const identity = JSON.parse(
      readFileSync(path.join(directory, 'criu.json'), 'utf8'),
    ) as ProcessIdentity | null;
    return identity !== null && isAlive(identity) ? identity : undefined;
  } catch {
    return undefined;
  }
}

/** Removes what a dump has left in `directory`; returns whether there was anything. */
export function clearLeftoverDump(directory: string): boolean {
  const existed = existsSync(directory);
  rmSync(directory, { recursive: true, force: true });
  return existed;
}
