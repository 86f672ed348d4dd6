/** Starting a monitor, and talking to one. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import path from 'node:path';
import { type Duplex, PassThrough, type Readable } from 'node:stream';
import { CairnError, type ErrorClass, exitCodes, messageOf, systemCode } from '../errors.ts';
import { identityOf } from '../linux/process.ts';
import { decodeFrameEnd, encodeFrame, encodeSize, FrameDecoder, frameKind } from './attach-frames.ts';
import type { MonitorOrder, MonitorPlan, MonitorReport, MonitorTask } from './monitor-plan.ts';
import type { MonitorAnswer, MonitorRequest } from './monitor-protocol.ts';
import type { TerminalSize } from './terminal.ts';
import type { UnitEnd } from './unit-status.ts';
import { settleUserfaultfd } from './userfaultfd-permission.ts';

/** Small heaps: a monitor moves bytes and keeps none. */
const nodeFlags = [
  '--max-old-space-size=64',
  '--max-semi-space-size=1',
  '--disable-warning=ExperimentalWarning',
];

const startTimeoutMs = 60_000;
/** From the end of a monitor's report to its own. */
const exitTimeoutMs = 2000;
const replenishAfterMs = 500;
/** Where Node.js keeps what it has compiled; in nobody's reach but root's. */
const compileCache = '/var/cache/cairn/compiled';

/** A monitor that waits for its order. */
type WaitingMonitor = ReturnType<typeof spawn>;

/** Starts monitors. With `keepReady` one is always started ahead, because that is most of the time that a restart takes. */
export class MonitorLauncher implements Disposable {
  readonly #node: string;
  #keep = false;
  #ready: WaitingMonitor | undefined;

  constructor(node: string = process.execPath) {
    this.#node = node;
  }

  /** From now on a monitor is kept waiting; disposing ends it. It also ends by itself when this process does. */
  keepReady(): void {
    this.#keep = true;
    this.#replenish();
  }

  /**
   * Has a monitor, a process that outlives this one, carry out a task, and waits until its unit runs. Returns the PID of the
   * unit's first process. Throws what the monitor reports, or `monitor-failed` (environment) if it ends without a word.
   */
  async launch(plan: MonitorPlan, task: MonitorTask, timeoutMs: number = startTimeoutMs): Promise<number> {
    mkdirSync(plan.paths.run, { recursive: true, mode: 0o700 });
    mkdirSync(plan.paths.logs, { recursive: true, mode: 0o700 });
    const log = path.join(plan.paths.logs, 'monitor.log');
    const child = this.#take();
    // Before the order: if this process dies now, the next one must know for whom it has to wait.
    const monitor = child.pid === undefined ? undefined : identityOf(child.pid);
    writeFileSync(plan.paths.plan, JSON.stringify({ ...plan, monitor }), { mode: 0o600 });
    const order: MonitorOrder = { task, plan: plan.paths.plan, log };
    (child.stdio[3] as Duplex).write(`${JSON.stringify(order)}\n`);
    const line = await reportOf(child, timeoutMs);
    child.unref();
    this.#replenishLater();
    if (line === undefined) throw await withoutReport(child, plan.id, log);
    const report = JSON.parse(line) as MonitorReport;
    if (report.started) return report.pid;
    const { error } = report;
    if (!Object.hasOwn(exitCodes, error.class))
      throw new Error(`${error.message}\n${error.lines.join('\n')}`);
    throw new CairnError(error.class as ErrorClass, error.code, error.message, {
      lines: error.lines,
      ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    });
  }

  #take(): WaitingMonitor {
    const ready = this.#ready;
    this.#ready = undefined;
    return ready?.exitCode === null && ready.signalCode === null ? ready : this.#spawn([]);
  }

  #spawn(mode: readonly string[]): WaitingMonitor {
    const program = path.join(import.meta.dirname, 'monitor.ts');
    const child = spawn(this.#node, [...nodeFlags, program, ...mode], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      detached: true,
      cwd: '/',
      env: { ...process.env, NODE_COMPILE_CACHE: compileCache },
    });
    // One that is killed before it has read its order resets the connection. That it has ended its closing tells.
    (child.stdio[3] as Duplex | null)?.on('error', () => {});
    return child;
  }

  #replenish(): void {
    if (!this.#keep || this.#ready !== undefined) return;
    const ready = this.#spawn(['ready']);
    ready.unref();
    (ready.stdio[3] as Socket).unref();
    ready.once('error', () => {});
    this.#ready = ready;
  }

  /** Not at once: the unit that was just started needs the processor more. */
  #replenishLater(): void {
    if (this.#keep) setTimeout(() => this.#replenish(), replenishAfterMs).unref();
  }

  [Symbol.dispose](): void {
    this.#keep = false;
    // It reads the end of file and leaves.
    (this.#ready?.stdio[3] as Socket | undefined)?.destroy();
    this.#ready = undefined;
  }
}

/** The first line on descriptor 3; `undefined` if there is none. */
async function reportOf(child: ReturnType<typeof spawn>, timeoutMs: number): Promise<string | undefined> {
  const stream = child.stdio[3] as Readable;
  let text = '';
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(timeout(timeoutMs)), timeoutMs);
      stream.on('data', (bytes) => {
        text += String(bytes);
        if (text.includes('\n')) resolve();
      });
      stream.once('close', resolve);
      child.once('error', reject);
      stream.once('close', () => clearTimeout(timer));
    });
  } catch (error) {
    // It cannot be known what it was waiting for; its own error path ends what it began.
    if (child.pid !== undefined) child.kill('SIGKILL');
    throw error;
  } finally {
    stream.destroy();
  }
  const end = text.indexOf('\n');
  return end < 0 ? undefined : text.slice(0, end);
}

/** Whoever kills a monitor must try again; one that ends by itself lacks something. */
async function withoutReport(child: WaitingMonitor, unit: string, log: string): Promise<CairnError> {
  if (child.exitCode === null && child.signalCode === null)
    await once(child, 'exit', { signal: AbortSignal.timeout(exitTimeoutMs) }).catch(() => {});
  // What it held in this moment it cannot give back any more.
  settleUserfaultfd();
  const { signalCode } = child;
  if (signalCode !== null)
    return new CairnError(
      'temporary',
      'monitor-killed',
      `The monitor of ${unit} was ended by ${signalCode}.`,
      {
        remedy: 'Try again.',
      },
    );
  return new CairnError(
    'environment',
    'monitor-failed',
    `The monitor of ${unit} has ended without a report.`,
    {
      remedy: `See ${log}.`,
    },
  );
}

function timeout(timeoutMs: number): CairnError {
  return new CairnError('temporary', 'monitor-timeout', `The unit did not start within ${timeoutMs} ms.`);
}

/** Connects to a monitor; `undefined` if none listens. */
export function connectMonitor(socketPath: string): Promise<Socket | undefined> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath);
    socket.once('connect', () => resolve(socket));
    socket.on('error', (error) => {
      if (['ENOENT', 'ECONNREFUSED'].includes(systemCode(error) ?? '')) resolve(undefined);
      else reject(error);
    });
  });
}

/** Asks the monitor one thing; `undefined` if there is no monitor (any more). */
export async function askMonitor(
  socketPath: string,
  request: MonitorRequest,
  options: { signal?: AbortSignal; timeoutMs?: number } = {},
): Promise<Extract<MonitorAnswer, { ok: true }> | undefined> {
  const socket = await connectMonitor(socketPath);
  if (socket === undefined) return undefined;
  const limits = [
    options.signal,
    options.timeoutMs === undefined ? undefined : AbortSignal.timeout(options.timeoutMs),
  ];
  const signal = AbortSignal.any(limits.filter((limit) => limit !== undefined));
  try {
    socket.write(`${JSON.stringify(request)}\n`);
    const line = await readLine(socket, signal);
    if (line === undefined) return undefined;
    const answer = JSON.parse(line.text) as MonitorAnswer;
    if (!answer.ok) throw new Error(`the monitor refused '${request.op}': ${answer.message}`);
    return answer;
  } finally {
    socket.destroy();
  }
}

/** Reads up to the first newline; what came after it is returned too. */
function readLine(socket: Socket, signal: AbortSignal): Promise<{ text: string; rest: Buffer } | undefined> {
  return new Promise((resolve, reject) => {
    let bytes = Buffer.alloc(0);
    const finish = (act: () => void) => {
      socket.off('data', onData);
      socket.off('close', onClose);
      signal.removeEventListener('abort', onAbort);
      act();
    };
    const onData = (piece: Buffer) => {
      bytes = Buffer.concat([bytes, piece]);
      const end = bytes.indexOf(10);
      if (end < 0) return;
      socket.pause();
      finish(() => resolve({ text: bytes.toString('utf8', 0, end), rest: bytes.subarray(end + 1) }));
    };
    const onClose = () => finish(() => resolve(undefined));
    const onAbort = () => finish(() => reject(signal.reason));
    socket.on('data', onData);
    socket.on('close', onClose);
    socket.on('error', () => {});
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
  });
}

/** How a connection to a unit's terminal or pipes ended: the unit did, or only the connection. */
export type AttachEnd = { kind: 'exited'; end: UnitEnd } | { kind: 'detached' };

/** A connection to the standard streams of a unit. */
export class Attachment {
  readonly #socket: Socket;
  readonly terminal: boolean;
  readonly stdout: PassThrough = new PassThrough();
  readonly stderr: PassThrough = new PassThrough();
  /** Settles when the unit has ended or the connection is closed, by whichever side. */
  readonly done: Promise<AttachEnd>;

  constructor(socket: Socket, terminal: boolean, rest: Buffer) {
    this.#socket = socket;
    this.terminal = terminal;
    const decoder = new FrameDecoder();
    let end: AttachEnd = { kind: 'detached' };
    const take = (bytes: Buffer) => {
      for (const { kind, payload } of decoder.push(bytes)) {
        if (kind === frameKind.exit) end = { kind: 'exited', end: decodeFrameEnd(payload) };
        const stream =
          kind === frameKind.stdout ? this.stdout : kind === frameKind.stderr ? this.stderr : undefined;
        // A reader that does not keep up slows the connection, and in the end is dropped by the monitor.
        if (stream?.write(payload) === false) {
          socket.pause();
          stream.once('drain', () => socket.resume());
        }
      }
    };
    socket.on('data', (bytes) => {
      try {
        take(bytes as Buffer);
      } catch (error) {
        socket.destroy(error instanceof Error ? error : new Error(messageOf(error)));
      }
    });
    this.done = new Promise((resolve) => {
      socket.once('close', () => {
        this.stdout.end();
        this.stderr.end();
        resolve(end);
      });
    });
    if (rest.length > 0) take(rest);
    socket.resume();
  }

  /** Feeds standard input; resolves when it has left this process. */
  write(bytes: Uint8Array): Promise<void> {
    return this.#send(encodeFrame(frameKind.stdin, bytes));
  }

  /** Ends standard input; a terminal gets its end-of-file character. */
  endInput(): Promise<void> {
    return this.#send(encodeFrame(frameKind.endOfInput));
  }

  resize(size: TerminalSize): Promise<void> {
    return this.#send(encodeFrame(frameKind.resize, encodeSize(size)));
  }

  #send(frame: Buffer): Promise<void> {
    return new Promise((resolve) => {
      this.#socket.write(frame, () => resolve());
    });
  }

  /** Closes the connection; the unit goes on. */
  detach(): void {
    this.#socket.destroy();
  }

  [Symbol.dispose](): void {
    this.detach();
  }
}

/** Attaches to a unit; `undefined` if it has no monitor (any more). */
export async function attachToMonitor(
  socketPath: string,
  request: Omit<Extract<MonitorRequest, { op: 'attach' }>, 'op'>,
  signal: AbortSignal = AbortSignal.timeout(10_000),
): Promise<Attachment | undefined> {
  const socket = await connectMonitor(socketPath);
  if (socket === undefined) return undefined;
  socket.write(`${JSON.stringify({ op: 'attach', ...request })}\n`);
  try {
    const line = await readLine(socket, signal);
    if (line === undefined) return undefined;
    const answer = JSON.parse(line.text) as MonitorAnswer;
    if (!answer.ok) throw new Error(`the monitor refused to attach: ${answer.message}`);
    return new Attachment(socket, answer.terminal, line.rest);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}
