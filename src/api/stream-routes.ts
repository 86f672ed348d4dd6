import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import Type from 'typebox';
import { CairnError } from '../errors.ts';
import { failureOf } from '../jobs/job.ts';
import { statusOf } from './error-status.ts';
import { withoutUnit } from './job-routes.ts';
import { ExecBody, ExecTicket, Failure, JobParams } from './schemas.ts';
import type { ServedNode, ServedUnit } from './served-node.ts';
import { serveSession } from './stream-session.ts';
import type { StreamSession } from '../node/unit-session.ts';

/** What a client writes into the header `Upgrade` to get a stream of frames. */
export const streamProtocol = 'cairn-stream';

/** How long the stream of an exec can be opened after it was asked for, in milliseconds. */
const ticketMs = 10_000;

const failed = { default: { description: 'What failed, why, and what to do.', ...Failure } };
const switching = { 101: { description: `The connection becomes a stream of frames (${streamProtocol}).` } };

/** The commands that were asked for and whose streams have not been opened yet. */
export class ExecTickets implements Disposable {
  readonly #waiting = new Map<string, { job: string; body: ExecBody; timer: NodeJS.Timeout }>();

  /** Keeps what is to be run until `take`, or for ten seconds. */
  issue(job: string, body: ExecBody): string {
    const id = randomBytes(12).toString('hex');
    const timer = setTimeout(() => this.#waiting.delete(id), ticketMs);
    timer.unref();
    this.#waiting.set(id, { job, body, timer });
    return id;
  }

  /** What was asked for under this id; only once. Error: `exec-unknown`. */
  take(id: string): { job: string; body: ExecBody } {
    const found = this.#waiting.get(id);
    if (found === undefined) {
      throw new CairnError('argument', 'exec-unknown', `There is no command with the id ${id} to be run.`, {
        remedy: 'POST /jobs/JOB/execs gives an id, which is good once and for ten seconds.',
      });
    }
    clearTimeout(found.timer);
    this.#waiting.delete(id);
    return found;
  }

  [Symbol.dispose](): void {
    for (const { timer } of this.#waiting.values()) clearTimeout(timer);
    this.#waiting.clear();
  }
}

/** The routes that lead to streams of frames. */
export const streamRoutes: FastifyPluginAsyncTypebox<{ node: ServedNode; tickets: ExecTickets }> = async (
  app,
  { node, tickets },
) => {
  app.route({
    method: 'POST',
    url: '/jobs/:job/execs',
    schema: {
      summary: 'Prepare to run a command in a job; its stream is opened with the id that comes back',
      tags: ['jobs'],
      params: JobParams,
      body: ExecBody,
      response: { 201: ExecTicket, ...failed },
    },
    handler: async (request, reply) => {
      const { job } = node.jobs.get(request.params.job);
      await runningUnit(node, job.id);
      return reply.code(201).send({ id: tickets.issue(job.id, request.body) });
    },
  });

  const upgradeOnly = async (): Promise<never> => {
    throw new CairnError('argument', 'upgrade-required', `This address only serves streams.`, {
      remedy: `Send "Connection: upgrade" and "Upgrade: ${streamProtocol}".`,
    });
  };
  app.route({
    method: 'GET',
    url: '/execs/:id/stream',
    schema: {
      summary: `Run the command, and be its input and output (Upgrade: ${streamProtocol})`,
      tags: ['jobs'],
      params: Type.Object({ id: Type.String() }),
      response: { ...switching, ...failed },
    },
    handler: upgradeOnly,
  });
  app.route({
    method: 'GET',
    url: '/jobs/:job/attach',
    schema: {
      summary: `Be the terminal of a job, or its input and output (Upgrade: ${streamProtocol})`,
      tags: ['jobs'],
      params: JobParams,
      querystring: Type.Object({
        stdin: Type.Optional(Type.Boolean({ description: 'Feed standard input.' })),
        replay: Type.Optional(Type.Boolean({ description: 'Begin with what was written last.' })),
        columns: Type.Optional(Type.Integer({ minimum: 1 })),
        rows: Type.Optional(Type.Integer({ minimum: 1 })),
      }),
      response: { ...switching, ...failed },
    },
    handler: upgradeOnly,
  });

  app.server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    openStream(node, tickets, request).then(
      (session) => connect(socket, head, session),
      (error: unknown) => refuse(socket, error),
    );
  });
};

async function openStream(
  node: ServedNode,
  tickets: ExecTickets,
  request: IncomingMessage,
): Promise<StreamSession> {
  const url = new URL(request.url ?? '/', 'http://node');
  if (request.headers.upgrade !== streamProtocol) {
    throw new CairnError(
      'argument',
      'upgrade-unknown',
      `The protocol "${request.headers.upgrade}" is not known.`,
      {
        remedy: `Send "Upgrade: ${streamProtocol}".`,
      },
    );
  }
  const exec = /^\/execs\/([0-9a-f]+)\/stream$/.exec(url.pathname);
  if (exec?.[1] !== undefined) {
    const { job, body } = tickets.take(exec[1]);
    const { columns, rows, terminal = false, stdin = false, ...rest } = body;
    const size = columns === undefined || rows === undefined ? {} : { size: { columns, rows } };
    return (await runningUnit(node, job)).exec({ ...rest, terminal, stdin, ...size });
  }
  const attach = /^\/jobs\/([^/]+)\/attach$/.exec(url.pathname);
  if (attach?.[1] !== undefined) {
    const { job } = node.jobs.get(decodeURIComponent(attach[1]));
    const unit = await runningUnit(node, job.id);
    return unit.attach(attachRequest(url.searchParams));
  }
  throw new CairnError('argument', 'route-unknown', `There is no stream at ${url.pathname}.`, {
    remedy: 'GET /openapi.json lists what there is.',
  });
}

function attachRequest(query: URLSearchParams): Parameters<ServedUnit['attach']>[0] {
  const columns = Number(query.get('columns'));
  const rows = Number(query.get('rows'));
  const fits = (n: number): boolean => Number.isInteger(n) && n > 0 && n < 65536;
  return {
    stdin: query.get('stdin') === 'true',
    replay: query.get('replay') === 'true',
    ...(fits(columns) && fits(rows) ? { size: { columns, rows } } : {}),
  };
}

async function runningUnit(node: ServedNode, job: string): Promise<ServedUnit> {
  const controller = node.jobs.get(job);
  const unit = await controller.unit();
  const { kind } = controller.state;
  if (unit !== undefined && (kind === 'running' || kind === 'checkpointing' || kind === 'suspended'))
    return unit;
  throw withoutUnit(controller.job.name, kind);
}

function connect(socket: Duplex, head: Buffer, session: StreamSession): void {
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ${streamProtocol}\r\n\r\n`,
  );
  if (head.length > 0) socket.unshift(head);
  serveSession(socket, session).catch(() => socket.destroy());
}

function refuse(socket: Duplex, error: unknown): void {
  const failure = failureOf(error);
  const body = JSON.stringify(failure);
  socket.end(
    `HTTP/1.1 ${statusOf(failure)} Refused\r\nConnection: close\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
