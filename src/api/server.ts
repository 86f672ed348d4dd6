import swagger from '@fastify/swagger';
import { type TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import { CairnError } from '../errors.ts';
import { failureOf } from '../jobs/job.ts';
import { statusOf } from './error-status.ts';
import { jobRoutes } from './job-routes.ts';
import { nodeRoutes } from './node-routes.ts';
import { compileValidator } from './request-validation.ts';
import type { ServedNode } from './served-node.ts';
import { snapshotRoutes } from './snapshot-routes.ts';
import { ExecTickets, streamRoutes } from './stream-routes.ts';

/** Bodies are descriptions of jobs at most. */
const longestBodyBytes = 1024 * 1024;

/** The HTTP server of a node, not listening yet. Closing it ends all connections. */
export async function createServer(
  node: ServedNode,
  options: { version: string; logger?: FastifyBaseLogger },
): Promise<FastifyInstance> {
  const app = fastify({
    ...(options.logger === undefined ? {} : { loggerInstance: options.logger }),
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: longestBodyBytes,
    forceCloseConnections: true,
    exposeHeadRoutes: false,
  }).withTypeProvider<TypeBoxTypeProvider>();
  app.setValidatorCompiler(compileValidator);
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Cairn node',
        version: options.version,
        description:
          'HTTP over a unix socket. Failures have the form `Failure`; long operations answer line by line with progress, and at last with a result or an error.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [{ url: 'http://node', description: 'The unix socket RUN/node.sock' }],
      tags: [
        { name: 'node', description: 'The node itself' },
        { name: 'jobs', description: 'Running programs' },
        { name: 'checkpoints', description: 'Saving jobs and bringing them back' },
        { name: 'snapshots', description: 'What has been saved' },
      ],
    },
  });
  const tickets = new ExecTickets();
  app.addHook('onClose', async () => tickets[Symbol.dispose]());

  app.setErrorHandler(async (thrown: unknown, request, reply) => {
    const failure = failureOf(httpError(thrown));
    if (failure.code === 'internal') request.log.error({ err: thrown }, 'a request failed unexpectedly');
    return reply.code(statusOf(failure)).send(failure);
  });
  app.setNotFoundHandler(async (request, reply) => {
    const failure = failureOf(
      new CairnError('argument', 'route-unknown', `There is no ${request.method} ${request.url}.`, {
        remedy: 'GET /openapi.json lists what there is.',
      }),
    );
    return reply.code(statusOf(failure)).send(failure);
  });

  await app.register(nodeRoutes, { node });
  await app.register(jobRoutes, { node });
  await app.register(snapshotRoutes, { node });
  await app.register(streamRoutes, { node, tickets });
  await app.ready();
  return app;
}

/** What fastify itself throws (a body that is not JSON, or too long) is the caller's mistake. */
function httpError(thrown: unknown): unknown {
  if (thrown instanceof CairnError || !(thrown instanceof Error)) return thrown;
  if ('statusCode' in thrown && typeof thrown.statusCode === 'number' && thrown.statusCode < 500) {
    return new CairnError('argument', 'request-invalid', `The request is not valid: ${thrown.message}.`, {
      cause: thrown,
    });
  }
  return thrown;
}
