import type { ClientRequest, IncomingMessage } from 'node:http';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { CairnError, type ErrorClass, messageOf, systemCode } from '../errors.ts';
import type { OperationProgress } from '../jobs/events.ts';
import type {
  CheckpointBody,
  CheckpointResult,
  ExecBody,
  ExecTicket,
  Failure,
  Job,
  JobDescription,
  JobDetails,
  LogLine,
  NodeEvent,
  NodeInformation,
  OperationLine,
  PreflightResult,
  RestartBody,
  RestartResult,
  Snapshot,
  SnapshotDetails,
  VerifyResult,
  WaitResult,
} from './schemas.ts';

// An import of node:http asks for everything that it exports, also WebSocket, for which Node.js then loads all of undici: several times
// what the rest of a command takes.
const { request } = process.getBuiltinModule('node:http');

/** Hears of the progress of an operation; may break it off. */
export interface ClientOperation {
  onProgress: (progress: OperationProgress) => void;
  signal?: AbortSignal;
}

type Query = Record<string, string | number | boolean | undefined>;

interface Call {
  method: string;
  path: string;
  query?: Query;
  body?: unknown;
  signal?: AbortSignal | undefined;
}

/**
 * The API of a node, over its unix socket. Every method throws the failure of the node as a `CairnError`, `node-not-running` or
 * `not-root` when there is nobody to ask, and `node-gone` when the daemon ended in between.
 */
export class NodeClient {
  readonly #socketPath: string;

  /** `runDirectory`: where the daemon has its socket. */
  constructor(runDirectory: string) {
    this.#socketPath = join(runDirectory, 'node.sock');
  }

  async node(): Promise<NodeInformation> {
    return this.#json({ method: 'GET', path: '/node' });
  }

  async jobs(): Promise<Job[]> {
    return this.#json({ method: 'GET', path: '/jobs' });
  }

  /** Makes and starts a job; when the signal aborts before the answer, there is none. */
  async run(description: JobDescription, signal?: AbortSignal): Promise<Job> {
    return this.#json({ method: 'POST', path: '/jobs', body: description, signal });
  }

  async job(job: string): Promise<JobDetails> {
    return this.#json({ method: 'GET', path: jobPath(job) });
  }

  async removeJob(job: string, query: { force: boolean; snapshots: boolean }): Promise<void> {
    await this.#json({ method: 'DELETE', path: jobPath(job), query });
  }

  async stop(job: string, graceMs: number): Promise<Job> {
    return this.#json({ method: 'POST', path: `${jobPath(job)}/stop`, body: { graceMs } });
  }

  async suspend(job: string): Promise<Job> {
    return this.#json({ method: 'POST', path: `${jobPath(job)}/suspend` });
  }

  async resume(job: string): Promise<Job> {
    return this.#json({ method: 'POST', path: `${jobPath(job)}/resume` });
  }

  async signal(job: string, signal: number): Promise<void> {
    await this.#json({ method: 'POST', path: `${jobPath(job)}/signals`, body: { signal } });
  }

  async wait(job: string, signal?: AbortSignal): Promise<WaitResult> {
    return this.#json({ method: 'GET', path: `${jobPath(job)}/wait`, signal });
  }

  async *logs(
    job: string,
    query: { follow?: boolean; tail?: number; since?: number },
    signal?: AbortSignal,
  ): AsyncGenerator<LogLine> {
    const response = await this.#ask({ method: 'GET', path: `${jobPath(job)}/logs`, query, signal });
    for await (const line of textLines(response)) yield JSON.parse(line) as LogLine;
  }

  async preflight(job: string): Promise<PreflightResult> {
    return this.#json({ method: 'POST', path: `${jobPath(job)}/preflight` });
  }

  async checkpoint(job: string, body: CheckpointBody, operation: ClientOperation): Promise<CheckpointResult> {
    return this.#operation({ method: 'POST', path: `${jobPath(job)}/checkpoints`, body }, operation);
  }

  async restart(job: string, body: RestartBody, operation: ClientOperation): Promise<RestartResult> {
    return this.#operation({ method: 'POST', path: `${jobPath(job)}/restarts`, body }, operation);
  }

  async snapshots(job?: string): Promise<Snapshot[]> {
    return this.#json({
      method: 'GET',
      path: job === undefined ? '/snapshots' : `${jobPath(job)}/snapshots`,
    });
  }

  async snapshot(job: string, sequence: number): Promise<SnapshotDetails> {
    return this.#json({ method: 'GET', path: `${jobPath(job)}/snapshots/${sequence}` });
  }

  async pin(job: string, sequence: number, pinned: boolean): Promise<Snapshot> {
    return this.#json({ method: 'PATCH', path: `${jobPath(job)}/snapshots/${sequence}`, body: { pinned } });
  }

  async removeSnapshot(job: string, sequence: number): Promise<void> {
    await this.#json({ method: 'DELETE', path: `${jobPath(job)}/snapshots/${sequence}` });
  }

  async verify(body: { job?: string; sequence?: number }, operation: ClientOperation): Promise<VerifyResult> {
    return this.#operation({ method: 'POST', path: '/verifications', body }, operation);
  }

  /** Everything that happens from now on. */
  async *events(signal?: AbortSignal): AsyncGenerator<NodeEvent> {
    const response = await this.#ask({ method: 'GET', path: '/events', signal });
    for await (const line of textLines(response)) {
      if (line.startsWith('data: ')) yield JSON.parse(line.slice('data: '.length)) as NodeEvent;
    }
  }

  /** The stream of frames of a job's terminal, or of its input and output. */
  async attach(
    job: string,
    query: { stdin: boolean; replay: boolean; columns?: number; rows?: number },
  ): Promise<Duplex> {
    return this.#upgrade({ method: 'GET', path: `${jobPath(job)}/attach`, query });
  }

  /** Runs a command in a job: the stream of frames of its input and output. */
  async exec(job: string, body: ExecBody): Promise<Duplex> {
    const ticket = await this.#json<ExecTicket>({ method: 'POST', path: `${jobPath(job)}/execs`, body });
    return this.#upgrade({ method: 'GET', path: `/execs/${ticket.id}/stream` });
  }

  async #json<T>(call: Call): Promise<T> {
    const text = await textOf(await this.#ask(call));
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }

  async #operation<T>(call: Call, operation: ClientOperation): Promise<T> {
    const response = await this.#ask({ ...call, signal: operation.signal });
    for await (const text of textLines(response)) {
      const line = JSON.parse(text) as OperationLine<T>;
      if (line.kind === 'result') return line.result;
      if (line.kind === 'error') throw errorOf(line.error);
      operation.onProgress(line);
    }
    throw nodeGone(undefined);
  }

  /** The answer, once its head is there and says that all is well. */
  async #ask(call: Call): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const sent = this.#send(call, {});
    sent.once('response', resolve);
    sent.once('error', (error) => reject(this.#connectionError(error, call.signal)));
    const response = await promise;
    if ((response.statusCode ?? 500) < 400) return response;
    throw failureIn(await textOf(response), response.statusCode);
  }

  async #upgrade(call: Call): Promise<Duplex> {
    const { promise, resolve, reject } = Promise.withResolvers<Duplex>();
    const sent = this.#send(call, { connection: 'upgrade', upgrade: 'cairn-stream' });
    sent.once('upgrade', (_response: IncomingMessage, socket: Duplex, head: Buffer) => {
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
    });
    sent.once('response', (response) => {
      textOf(response).then((text) => reject(failureIn(text, response.statusCode)), reject);
    });
    sent.once('error', (error) => reject(this.#connectionError(error, call.signal)));
    return promise;
  }

  #send(call: Call, headers: Record<string, string>): ClientRequest {
    const body = call.body === undefined ? undefined : Buffer.from(JSON.stringify(call.body));
    const sent = request({
      socketPath: this.#socketPath,
      method: call.method,
      path: call.path + queryText(call.query),
      headers: {
        host: 'node',
        ...headers,
        ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': body.length }),
      },
      ...(call.signal === undefined ? {} : { signal: call.signal }),
    });
    sent.end(body);
    return sent;
  }

  #connectionError(error: Error, signal: AbortSignal | undefined): Error {
    if (signal?.aborted === true)
      return new CairnError('temporary', 'aborted', 'The request was broken off.', { cause: error });
    switch (systemCode(error)) {
      case 'EACCES':
      case 'EPERM':
        return notRoot(error);
      case 'ENOENT':
      case 'ECONNREFUSED':
      case 'ENOTDIR':
        return new CairnError(
          'environment',
          'node-not-running',
          `The node daemon does not answer on ${this.#socketPath}.`,
          {
            remedy: 'Start it: sudo cairn node (or, where it is installed: sudo systemctl start cairn-node).',
            cause: error,
          },
        );
      default:
        return nodeGone(error);
    }
  }
}

function notRoot(cause: Error): CairnError {
  return new CairnError('environment', 'not-root', 'Talking to the node daemon is allowed to root only.', {
    remedy: 'Run the command as root, for example with sudo.',
    cause,
  });
}

function nodeGone(cause: Error | undefined): CairnError {
  const why = cause === undefined ? '' : `: ${messageOf(cause)}`;
  return new CairnError('temporary', 'node-gone', `The node daemon ended before it had answered${why}.`, {
    remedy: 'Jobs run on without it. Start it again, and see "cairn jobs -a" for what became of the request.',
    ...(cause === undefined ? {} : { cause }),
  });
}

function failureIn(text: string, status: number | undefined): CairnError {
  let failure: Partial<Failure> = {};
  try {
    failure = JSON.parse(text) as Partial<Failure>;
  } catch {
    // Not the answer of a node: told below.
  }
  if (typeof failure.code === 'string' && typeof failure.message === 'string')
    return errorOf(failure as Failure);
  return new CairnError(
    'permanent',
    'answer-invalid',
    `The node answered with ${status} and something unknown.`,
    {
      lines: text.split('\n').slice(0, 5),
    },
  );
}

function errorOf(failure: Failure): CairnError {
  const { class: errorClass, code, message, lines, remedy } = failure;
  return new CairnError(errorClass satisfies ErrorClass, code, message, {
    lines,
    ...(remedy === undefined ? {} : { remedy }),
  });
}

function jobPath(job: string): string {
  return `/jobs/${encodeURIComponent(job)}`;
}

function queryText(query: Query | undefined): string {
  const pairs = Object.entries(query ?? {}).filter(([, value]) => value !== undefined);
  if (pairs.length === 0) return '';
  return `?${new URLSearchParams(pairs.map(([key, value]) => [key, String(value)]))}`;
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  response.setEncoding('utf8');
  for await (const chunk of response) text += chunk;
  return text;
}

async function* textLines(response: IncomingMessage): AsyncGenerator<string> {
  response.setEncoding('utf8');
  let rest = '';
  try {
    for await (const chunk of response) {
      rest += chunk;
      const lines = rest.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (line !== '') yield line;
    }
  } catch (error) {
    throw nodeGone(error instanceof Error ? error : undefined);
  }
}
