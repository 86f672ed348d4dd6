/** The helpers of a restore that does not wait for memory: our page server, and `criu lazy-pages` that asks it. */

import path from 'node:path';
import { explainFailure } from '../criu/explain.ts';
import { lazyPagesCommand } from '../criu/lazy-pages-command.ts';
import { readLog } from '../criu/log.ts';
import { close, pipe } from '../linux/libc.ts';
import { socketPair } from '../linux/socket.ts';
import { Program } from '../linux/spawn.ts';
import { HeldUserfaultfds } from './held-userfaultfds.ts';
import type { SnapshotSource } from './restore-images.ts';
import { RestoreServing } from './restore-serving.ts';

const logFile = 'lazy-pages.log';
const readyTimeoutMs = 30_000;

/** Serves the memory of a unit while it runs already. Disposing ends it, whether all has arrived or not. */
export class LazyMemory implements AsyncDisposable {
  readonly serving: RestoreServing;
  readonly #directory: string;
  readonly #program: Program;
  readonly #socket: number;
  readonly #userfaultfds: HeldUserfaultfds | undefined;

  private constructor(directory: string, serving: RestoreServing, program: Program, socket: number) {
    this.#directory = directory;
    this.serving = serving;
    this.#program = program;
    this.#socket = socket;
    this.#userfaultfds = program.pid === undefined ? undefined : new HeldUserfaultfds(program.pid);
    program.ended.then(() => this.#userfaultfds?.stay()).catch(() => {});
  }

  /** From now on no process of the unit sees memory that has not arrived, even if `criu lazy-pages` dies; see `HeldUserfaultfds`. */
  hold(): void {
    this.#userfaultfds?.follow();
  }

  /** The unit is whole, or has ended: nobody has to wait for memory any more. */
  letGo(): void {
    this.#userfaultfds?.release();
  }

  /** Writes the small images into `directory` and waits until `criu lazy-pages` listens there. */
  static async start(
    criu: { path: string; version: string },
    directory: string,
    source: SnapshotSource,
  ): Promise<LazyMemory> {
    const [ours, theirs] = socketPair();
    const serving = new RestoreServing({
      directory,
      source,
      // Every page is checked when it is asked for; reading all of them first is what is to be avoided.
      verify: { from: 0, to: 0 },
      lazy: { pageSocket: ours, criuVersion: criu.version },
    });
    await serving.listening;
    const status = pipe();
    const argv = lazyPagesCommand({
      imageDirectory: directory,
      workDirectory: directory,
      logFile,
      pageServerSocket: 3,
      statusDescriptor: 4,
    });
    const program = new Program([criu.path, ...argv], {
      descriptors: [theirs, status.write],
      endsWithParent: true,
    });
    close(theirs);
    close(status.write);
    const memory = new LazyMemory(directory, serving, program, ours);
    try {
      await readable(status.read, program.exited);
    } catch {
      const end = await program.waitFor(1000);
      await memory[Symbol.asyncDispose]();
      throw explainFailure({
        attempt: 'Bringing memory later',
        end,
        log: readLog(path.join(directory, logFile)),
      });
    }
    return memory;
  }

  /** Waits until all memory is there. Rejects with the reason if it will never be. */
  async whole(): Promise<void> {
    const end = await Promise.race([this.#program.ended, this.serving.failed]);
    if (end.exitCode !== 0)
      throw (
        this.serving.error ??
        explainFailure({
          attempt: 'Bringing memory later',
          end,
          log: readLog(path.join(this.#directory, logFile)),
        })
      );
    await this.serving.finished;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program[Symbol.asyncDispose]();
    await this.serving[Symbol.asyncDispose]();
    close(this.#socket);
  }
}

/**
 * Waits for the byte that CRIU writes when it listens; takes the descriptor over. Throws when CRIU has `exited`: a child that it left behind may
 * hold the other end open.
 */
async function readable(fd: number, exited: Promise<unknown>): Promise<void> {
  const { Socket } = await import('node:net');
  const stream = new Socket({ fd, readable: true, writable: false });
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('timeout')), readyTimeoutMs);
      stream.once('data', () => resolve());
      stream.once('error', reject);
      void exited.then(() => stream.destroy());
      stream.once('close', () => {
        clearTimeout(timer);
        reject(new Error('closed'));
      });
    });
  } finally {
    stream.destroy();
  }
}
