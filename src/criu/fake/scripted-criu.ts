import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Order, Step } from './fake-criu.ts';

/** One run of the fake CRIU, waiting for orders. */
export class CriuRun {
  readonly pid: number;
  /** `dump`, `restore` … */
  readonly command: string;
  readonly argv: readonly string[];
  readonly #socket: Socket;
  readonly #answers: AsyncIterator<string>;

  constructor(socket: Socket, answers: AsyncIterator<string>, hello: string) {
    const { pid, command, argv } = JSON.parse(hello) as { pid: number; command: string; argv: string[] };
    this.pid = pid;
    this.command = command;
    this.argv = argv;
    this.#socket = socket;
    this.#answers = answers;
  }

  /** Orders one step and waits until it is done. */
  async do(step: Step, order: Order = {}): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ step, ...order })}\n`);
    const answer = await this.#answers.next();
    if (answer.done) throw new Error(`the fake CRIU ended at ${step}`);
    const { value, error } = JSON.parse(answer.value) as { value?: unknown; error?: string };
    if (error !== undefined) throw new Error(`${step}: ${error}`);
    return value;
  }

  /** Sends an image of a dump as a whole. */
  async sendImage(name: string, data: Uint8Array): Promise<void> {
    await this.do('open', { name });
    for (let at = 0; at < data.length; at += 32_768) {
      await this.do('write', { name, data: Buffer.from(data.subarray(at, at + 32_768)).toString('base64') });
    }
    await this.do('end', { name });
  }

  /** Asks for an image of a restore; `undefined` if there is none. Reads `limit` bytes of it, or all. */
  async fetchImage(name: string, limit?: number): Promise<Buffer | undefined> {
    const data = await this.do('fetch', limit === undefined ? { name } : { name, limit });
    return typeof data === 'string' ? Buffer.from(data, 'base64') : undefined;
  }

  /** Ends the run: with an exit code, or by a signal. Resolves when the process is gone. */
  async end(how: { code: number } | { signal: NodeJS.Signals }): Promise<void> {
    const step = 'code' in how ? this.do('exit', how) : this.do('crash', how);
    await step.catch(() => {});
  }
}

/**
 * A directory with a program `criu` (for CAIRN_CRIU) whose runs a test drives: `const run = await fake.nextRun()`. Races are
 * staged, not slept for. Disposing ends all runs.
 */
export class ScriptedCriu implements AsyncDisposable {
  readonly directory: string;
  /** Path of the program. */
  readonly path: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #runs: CriuRun[] = [];
  readonly #waiting: ((run: CriuRun) => void)[] = [];

  static async create(): Promise<ScriptedCriu> {
    const fake = new ScriptedCriu();
    const socket = join(fake.directory, 'control.sock');
    await new Promise<void>((resolve) => fake.#server.listen(socket, resolve));
    const program = fileURLToPath(new URL('fake-criu.ts', import.meta.url));
    const script = `#!/bin/sh\nCAIRN_FAKE_CRIU='${socket}' exec '${process.execPath}' '${program}' "$@"\n`;
    writeFileSync(fake.path, script);
    chmodSync(fake.path, 0o755);
    return fake;
  }

  private constructor() {
    this.directory = mkdtempSync('/tmp/cairn-fake-');
    this.path = join(this.directory, 'criu');
    this.#server = createServer((socket) => void this.#greet(socket));
  }

  async #greet(socket: Socket): Promise<void> {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
    const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
    const hello = await lines.next();
    if (hello.done) return;
    const run = new CriuRun(socket, lines, hello.value);
    const waiting = this.#waiting.shift();
    if (waiting) waiting(run);
    else this.#runs.push(run);
  }

  /** The next run that has started, in order. Rejects after `timeoutMs`. */
  nextRun(timeoutMs: number = 10_000): Promise<CriuRun> {
    const run = this.#runs.shift();
    if (run) return Promise.resolve(run);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`the fake CRIU was not started within ${timeoutMs} ms`));
      }, timeoutMs);
      this.#waiting.push((started) => {
        clearTimeout(timer);
        resolve(started);
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    rmSync(this.directory, { recursive: true, force: true });
  }
}
