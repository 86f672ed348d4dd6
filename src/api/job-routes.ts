import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import type { FastifyReply } from 'fastify';
import Type from 'typebox';
import { CairnError } from '../errors.ts';
import { exitCodeOf } from '../jobs/job.ts';
import { LineStream, linesType, streamOperation } from './operation-stream.ts';
import {
  CheckpointBody,
  CheckpointResult,
  Failure,
  Job,
  JobDescription,
  JobDetails,
  JobParams,
  LogLine,
  OperationLine,
  PreflightResult,
  RestartBody,
  RestartResult,
  WaitResult,
} from './schemas.ts';
import type { ServedNode } from './served-node.ts';
import { snapshotViews } from './snapshot-routes.ts';

const failed = { default: { description: 'What failed, why, and what to do.', ...Failure } };

/** An answer of many lines, each of which has this form. */
export function lines(description: string, schema: Type.TSchema) {
  return { description, content: { [linesType]: { schema } } };
}

/** The routes of jobs. */
export const jobRoutes: FastifyPluginAsyncTypebox<{ node: ServedNode }> = async (app, { node }) => {
  const { jobs } = node;

  app.route({
    method: 'GET',
    url: '/jobs',
    schema: {
      summary: 'All jobs, the oldest first',
      tags: ['jobs'],
      response: { 200: Type.Array(Job), ...failed },
    },
    handler: async () => jobs.list(),
  });

  app.route({
    method: 'POST',
    url: '/jobs',
    schema: {
      summary: 'Make a job and start it',
      tags: ['jobs'],
      body: JobDescription,
      response: { 201: Job, ...failed },
    },
    // The jobs room has the better messages.
    validatorCompiler: () => () => true,
    handler: async (request, reply) => {
      const signal = untilGone(reply);
      return reply.code(201).send(await jobs.run(request.body, { signal }));
    },
  });

  app.route({
    method: 'GET',
    url: '/jobs/:job',
    schema: {
      summary: 'Everything about a job',
      tags: ['jobs'],
      params: JobParams,
      response: { 200: JobDetails, ...failed },
    },
    handler: async (request): Promise<JobDetails> => {
      const controller = jobs.get(request.params.job);
      const { job } = controller;
      const snapshots = await snapshotViews(node, job.id);
      const unit = await controller.unit();
      if (unit === undefined) return { job, snapshots };
      const [status, processes] = await Promise.all([unit.status(), unit.processes()]);
      return {
        job,
        snapshots,
        unit: {
          id: unit.id,
          state: status.state,
          processes,
          ...(status.pid === undefined ? {} : { pid: status.pid }),
          ...(status.startTime === undefined ? {} : { startTime: status.startTime }),
          ...(unit.address === undefined ? {} : { address: unit.address }),
        },
      };
    },
  });

  app.route({
    method: 'DELETE',
    url: '/jobs/:job',
    schema: {
      summary: 'Remove a job',
      tags: ['jobs'],
      params: JobParams,
      querystring: Type.Object({
        force: Type.Optional(Type.Boolean({ description: 'End its processes first.' })),
        snapshots: Type.Optional(Type.Boolean({ description: 'Remove its snapshots too.' })),
      }),
      response: { 204: Type.Null(), ...failed },
    },
    handler: async (request, reply) => {
      const { force = false, snapshots = false } = request.query;
      await jobs.get(request.params.job).remove({ force, snapshots });
      return reply.code(204).send(null);
    },
  });

  app.route({
    method: 'POST',
    url: '/jobs/:job/stop',
    schema: {
      summary: 'End the processes of a job: SIGTERM, and SIGKILL after a grace period',
      tags: ['jobs'],
      params: JobParams,
      body: Type.Object(
        { graceMs: Type.Integer({ minimum: 0, maximum: 86_400_000 }) },
        { additionalProperties: false },
      ),
      response: { 200: Job, ...failed },
    },
    handler: async (request) => {
      const controller = jobs.get(request.params.job);
      await controller.stop({ graceMs: request.body.graceMs });
      return controller.job;
    },
  });

  for (const verb of ['suspend', 'resume'] as const) {
    app.route({
      method: 'POST',
      url: `/jobs/:job/${verb}`,
      schema: {
        summary: verb === 'suspend' ? 'Freeze the processes of a job' : 'Let a suspended job run on',
        tags: ['jobs'],
        params: JobParams,
        response: { 200: Job, ...failed },
      },
      handler: async (request) => {
        const controller = jobs.get(request.params.job);
        await controller[verb]();
        return controller.job;
      },
    });
  }

  app.route({
    method: 'POST',
    url: '/jobs/:job/signals',
    schema: {
      summary: 'Send a signal to the first process of a job',
      tags: ['jobs'],
      params: JobParams,
      body: Type.Object(
        { signal: Type.Integer({ minimum: 1, maximum: 64 }) },
        { additionalProperties: false },
      ),
      response: { 204: Type.Null(), ...failed },
    },
    handler: async (request, reply) => {
      const controller = jobs.get(request.params.job);
      const unit = await controller.unit();
      if (unit === undefined) throw withoutUnit(controller.job.name, controller.state.kind);
      await unit.sendSignal(request.body.signal);
      return reply.code(204).send(null);
    },
  });

  app.route({
    method: 'GET',
    url: '/jobs/:job/wait',
    schema: {
      summary: 'Wait until nothing will happen to a job any more by itself',
      tags: ['jobs'],
      params: JobParams,
      response: { 200: WaitResult, ...failed },
    },
    handler: async (request, reply): Promise<WaitResult> => {
      const job = await jobs.waitUntilFinal(request.params.job, untilGone(reply));
      return { job, exitCode: exitCodeOf(job.state) };
    },
  });

  app.route({
    method: 'GET',
    url: '/jobs/:job/logs',
    schema: {
      summary: 'The output of a job',
      tags: ['jobs'],
      params: JobParams,
      querystring: Type.Object({
        follow: Type.Optional(
          Type.Boolean({ description: 'Go on with what comes, until the job has ended for good.' }),
        ),
        tail: Type.Optional(Type.Integer({ minimum: 0 })),
        since: Type.Optional(Type.Integer({ minimum: 0, description: 'Milliseconds since 1970.' })),
      }),
      response: { 200: lines('One line of output in each line.', LogLine), ...failed },
    },
    handler: async (request, reply) => {
      const { job } = jobs.get(request.params.job);
      await streamLogs(node, job.id, request.query, new LineStream(request, reply));
    },
  });

  app.route({
    method: 'POST',
    url: '/jobs/:job/preflight',
    schema: {
      summary: 'Say what a checkpoint would meet, how large and how long it would be',
      tags: ['checkpoints'],
      params: JobParams,
      response: { 200: PreflightResult, ...failed },
    },
    handler: async (request): Promise<PreflightResult> => {
      const { obstacles, warnings, estimate } = await jobs.get(request.params.job).preflight();
      return { possible: obstacles.length === 0, obstacles, warnings, estimate };
    },
  });

  app.route({
    method: 'POST',
    url: '/jobs/:job/checkpoints',
    schema: {
      summary: 'Take a checkpoint',
      tags: ['checkpoints'],
      params: JobParams,
      body: CheckpointBody,
      response: {
        200: lines('Progress, then one result or error.', OperationLine(CheckpointResult)),
        ...failed,
      },
    },
    handler: async (request, reply) => {
      const controller = jobs.get(request.params.job);
      const { then = 'continue', ...wish } = request.body;
      await streamOperation(request, reply, async (context): Promise<CheckpointResult> => {
        const { sequence, timings, bytes } = await controller.checkpoint({ then, ...wish }, context);
        const { id, name } = controller.job;
        return { job: id, name, sequence, then, timings: { ...timings }, bytes: { ...bytes } };
      });
    },
  });

  app.route({
    method: 'POST',
    url: '/jobs/:job/restarts',
    schema: {
      summary: 'Bring a job back from a snapshot, or start a second copy of it',
      tags: ['checkpoints'],
      params: JobParams,
      body: RestartBody,
      response: {
        200: lines('Progress, then one result or error.', OperationLine(RestartResult)),
        ...failed,
      },
    },
    handler: async (request, reply) => {
      const { clone = false, lazy = false, name, sequence } = request.body;
      await streamOperation(request, reply, async (context): Promise<RestartResult> => {
        const options = { ...context, lazy, ...(sequence === undefined ? {} : { sequence }) };
        const outcome = clone
          ? await jobs.clone(request.params.job, { ...options, ...(name === undefined ? {} : { name }) })
          : await jobs.restart(request.params.job, options);
        return {
          job: outcome.job,
          sequence: outcome.sequence,
          timings: outcome.timings,
          skipped: outcome.skipped,
        };
      });
    },
  });
};

/** Aborts when the client goes away before it has its answer. */
function untilGone(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.on('close', () => gone.abort());
  return gone.signal;
}

/** Error of everything that needs the unit of a job which has none. */
export function withoutUnit(name: string, state: string): CairnError {
  return new CairnError('argument', 'job-not-running', `The job ${name} is ${state}: it has no processes.`, {
    remedy: `Bring it back with "cairn restart ${name}" first.`,
  });
}

interface LogQuery {
  follow?: boolean;
  tail?: number;
  since?: number;
}

/**
 * Sends the log of a job. When followed, it goes on over the end of the processes as long as a restart may still come: the unit, and
 * with it the log, is the same before and after.
 */
async function streamLogs(node: ServedNode, job: string, query: LogQuery, stream: LineStream): Promise<void> {
  const unit = await node.jobs.get(job).unit();
  let finished = query.follow !== true;
  const stopWaiting = new AbortController();
  const waiting = query.follow
    ? node.jobs.waitUntilFinal(job, AbortSignal.any([stream.signal, stopWaiting.signal])).then(
        () => (finished = true),
        () => (finished = true),
      )
    : undefined;
  try {
    const options = { ...query, signal: stream.signal, ended: async () => finished };
    for await (const line of unit?.logs(options) ?? []) {
      stream.write(line);
      await stream.drained();
    }
  } finally {
    stopWaiting.abort();
    await waiting;
    stream.end();
  }
}
