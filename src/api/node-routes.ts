import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { LineStream } from './operation-stream.ts';
import { Failure, NodeEvent, NodeInformation } from './schemas.ts';
import type { ServedNode } from './served-node.ts';

const failed = { default: { description: 'What failed, why, and what to do.', ...Failure } };

/** How often a comment is sent to those who listen, so that dead connections are noticed. In milliseconds. */
const heartbeatMs = 15_000;

/** The routes of the node itself. */
export const nodeRoutes: FastifyPluginAsyncTypebox<{ node: ServedNode }> = async (app, { node }) => {
  app.route({
    method: 'GET',
    url: '/node',
    schema: { summary: 'The node', tags: ['node'], response: { 200: NodeInformation, ...failed } },
    handler: async () => node.information(),
  });

  app.route({
    method: 'GET',
    url: '/events',
    schema: {
      summary: 'Everything that happens from now on, as server-sent events',
      tags: ['node'],
      response: {
        200: {
          description: 'Each event has the kind as its name and this object as its data.',
          content: { 'text/event-stream': { schema: NodeEvent } },
        },
        ...failed,
      },
    },
    handler: async (request, reply) => {
      const stream = new LineStream(request, reply, 'text/event-stream');
      const subscription = node.events.subscribe((event) =>
        stream.writeText(`event: ${event.kind}\ndata: ${JSON.stringify(event)}\n\n`),
      );
      const heartbeat = setInterval(() => stream.writeText(': still here\n\n'), heartbeatMs);
      stream.signal.addEventListener('abort', () => {
        clearInterval(heartbeat);
        subscription[Symbol.dispose]();
      });
    },
  });

  app.route({
    method: 'GET',
    url: '/openapi.json',
    schema: { hide: true },
    handler: async () => app.swagger(),
  });
};
