import type { ServerResponse } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { OperationProgress } from '../jobs/events.ts';
import { failureOf } from '../jobs/job.ts';
import type { OperationLine } from './schemas.ts';

/** Type of the answers of long operations: one JSON object in each line. */
export const linesType = 'application/x-ndjson';

/** What a long operation is given to tell about itself and to hear that nobody listens any more. */
export interface OperationContext {
  onProgress: (progress: OperationProgress) => void;
  /** Aborts when the client goes away. */
  signal: AbortSignal;
}

/**
 * Answers with the progress of an operation, line by line, and at last with its result or error. When the client goes away the
 * operation is broken off.
 */
export async function streamOperation<T>(
  request: FastifyRequest,
  reply: FastifyReply,
  operation: (context: OperationContext) => Promise<T>,
): Promise<void> {
  const lines = new LineStream(request, reply);
  try {
    const result = await operation({ onProgress: (progress) => lines.write(progress), signal: lines.signal });
    lines.write({ kind: 'result', result } satisfies OperationLine<T>);
  } catch (error) {
    const failure = failureOf(error);
    if (failure.code === 'internal') request.log.error({ err: error }, 'operation failed unexpectedly');
    lines.write({ kind: 'error', error: failure } satisfies OperationLine<T>);
  }
  lines.end();
}

/** An answer that is written line by line, outside of fastify. */
export class LineStream {
  readonly #raw: ServerResponse;
  readonly #gone = new AbortController();

  constructor(_request: FastifyRequest, reply: FastifyReply, type: string = linesType) {
    this.#raw = reply.raw;
    reply.hijack();
    this.#raw.on('close', () => this.#gone.abort());
    this.#raw.writeHead(200, { 'content-type': type, 'cache-control': 'no-store' });
    this.#raw.flushHeaders();
  }

  /** Aborts when the client goes away. */
  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  /** Sends one line of JSON. */
  write(value: unknown): void {
    this.writeText(`${JSON.stringify(value)}\n`);
  }

  /** Sends text as it is. */
  writeText(text: string): void {
    if (!this.#gone.signal.aborted) this.#raw.write(text);
  }

  /** Resolves when the client has taken what was sent, so that a slow one does not fill the memory. */
  async drained(): Promise<void> {
    if (this.#gone.signal.aborted || !this.#raw.writableNeedDrain) return;
    await new Promise<void>((resolve) => {
      this.#raw.once('drain', resolve);
      this.#gone.signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  end(): void {
    this.#raw.end();
  }
}
