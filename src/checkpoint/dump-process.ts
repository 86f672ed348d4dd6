import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type Cover, coveredCommand } from '../criu/covered-command.ts';
import { type DumpOptions, dumpCommand } from '../criu/dump-command.ts';
import { explainFailure } from '../criu/explain.ts';
import { endLeftoverCriu } from '../criu/leftovers.ts';
import { readLog } from '../criu/log.ts';
import type { CairnError } from '../errors.ts';
import { releaseLease } from '../linux/lease.ts';
import { close, eventfd, F_DUPFD_CLOEXEC, fcntl, pipe, signalEventfd } from '../linux/libc.ts';
import { identityOf } from '../linux/process.ts';
import { socketPair } from '../linux/socket.ts';
import { Program, type ProgramEnd } from '../linux/spawn.ts';
import { DumpHook } from './dump-hook.ts';
import { tellWatchedFiles } from './watched-files.ts';

/** How long CRIU may take to let a unit go after it was told to, before it is ended (then the kernel lets it go). */
const releaseTimeoutMs = 15_000;
/** The same when the dump is given up: somebody waits for the unit to run, and CRIU may be what hangs. */
const abortTimeoutMs = 3000;

const logFile = 'dump.log';

/** Descriptors of the child process: 3 is the page socket, 4 the status pipe, 5 and 6 are those of the hook. */
const pageSocketFd = 3;
const statusFd = 4;

/**
 * One `criu dump` that stops half-way. If it has to hold, first when it has written all images but the lazy pages (see `DumpHook`), until
 * `goOn`. Then, in any case, it says so on the status descriptor and waits, the unit still frozen, for somebody who asks it for pages on its page
 * socket. Nobody does: when that socket is closed, CRIU lets the unit go and ends. If this daemon dies, whatever the cause, both are
 * closed and the unit simply runs on.
 */
export class DumpProcess implements AsyncDisposable {
  readonly directory: string;
  /** Readable: one byte when everything is written, end of file when CRIU is gone. */
  readonly statusFd: number;
  /** Whether it stops at `post-dump` until `goOn`. */
  readonly holds: boolean;
  /** An eventfd for whoever serves the images: signalled when the dump is given up. */
  readonly wakeFd: number;
  readonly #pageSocket: number;
  readonly #program: Program;
  readonly #hook: DumpHook | undefined;
  readonly #covers: readonly Cover[];
  #released = false;

  private constructor(
    directory: string,
    program: Program,
    hook: DumpHook | undefined,
    covers: readonly Cover[],
    fds: { status: number; wake: number; pages: number },
  ) {
    this.directory = directory;
    this.#program = program;
    this.#hook = hook;
    this.#covers = covers;
    this.holds = hook !== undefined;
    this.statusFd = fds.status;
    this.wakeFd = fds.wake;
    this.#pageSocket = fds.pages;
  }

  /**
   * Starts CRIU; `hold` if it has to stop at `post-dump`. `listen` must bind the image streamer in the directory first; it gets the eventfd that interrupts it, and returns covers for CRIU.
   * Remnants of an earlier dump in `directory` are removed.
   */
  static async start(
    criu: string,
    directory: string,
    options: Omit<DumpOptions, 'imageDirectory' | 'logFile' | 'lazySocket' | 'statusDescriptor'> & {
      hold: boolean;
    },
    listen: (directory: string, wakeFd: number) => Promise<Cover[]>,
  ): Promise<DumpProcess> {
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const wake = eventfd();
    const [ours, theirs] = socketPair();
    const status = pipe();
    const hook = options.hold ? new DumpHook() : undefined;
    const covers: Cover[] = [];
    try {
      // Copies: the worker may close its own, and their numbers may then be those of another dump.
      for (const cover of await listen(directory, wake))
        covers.push({ ...cover, fd: fcntl(cover.fd, F_DUPFD_CLOEXEC) });
      tellWatchedFiles(directory, options.pid);
      const argv = dumpCommand({
        ...options,
        imageDirectory: directory,
        logFile,
        lazySocket: pageSocketFd,
        statusDescriptor: statusFd,
        actionScripts: hook === undefined ? [] : [hook.actionScript],
      });
      const program = new Program(coveredCommand([criu, ...argv], covers), {
        descriptors: [theirs, status.write, ...(hook?.descriptors ?? [])],
        ignoreSigpipe: true,
      });
      writeFileSync(path.join(directory, 'criu.json'), JSON.stringify(identityOf(program.pid ?? 0) ?? null), {
        mode: 0o600,
      });
      return new DumpProcess(directory, program, hook, covers, { status: status.read, wake, pages: ours });
    } catch (error) {
      hook?.[Symbol.dispose]();
      for (const fd of [wake, ours, status.read, ...covers.map((cover) => cover.fd)]) close(fd);
      rmSync(directory, { recursive: true, force: true });
      throw error;
    } finally {
      close(theirs);
      close(status.write);
      hook?.lent();
    }
  }

  /** Resolves when all images are written, and CRIU waits for `goOn`; never if it does not hold. */
  get written(): Promise<void> {
    return this.#hook?.reached ?? new Promise(() => {});
  }

  goOn(): void {
    this.#hook?.answer('go');
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
    this.#hook?.answer('stop');
    this.#closePages();
    // CRIU must not wait for a thread that may be gone.
    for (const { fd } of this.#covers) releaseLease(fd);
    signalEventfd(this.wakeFd);
    const end = await this.#ended(abortTimeoutMs).catch(() => undefined);
    // A CRIU that was killed may have had a child at work, which does not end with it.
    if (end?.signal !== undefined) endLeftoverCriu(this.directory, ['dump']);
  }

  /** Resolves at once when CRIU is killed: what it had in its hands runs on in that moment. */
  async killed(): Promise<void> {
    if ((await this.#program.exited) === undefined) await new Promise(() => {});
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
    this.#hook?.[Symbol.dispose]();
    close(this.statusFd);
    close(this.wakeFd);
    for (const { fd } of this.#covers) close(fd);
    rmSync(this.directory, { recursive: true, force: true });
  }
}
