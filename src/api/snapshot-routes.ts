import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import Type from 'typebox';
import { CairnError } from '../errors.ts';
import type { Damage } from '../store/damage.ts';
import type { SnapshotHeader, SnapshotManifest, UnitImage } from '../store/manifest.ts';
import { linesType, streamOperation } from './operation-stream.ts';
import {
  Failure,
  JobParams,
  OperationLine,
  Snapshot,
  SnapshotDetails,
  SnapshotParams,
  VerifyResult,
} from './schemas.ts';
import type { ServedNode } from './served-node.ts';

const failed = { default: { description: 'What failed, why, and what to do.', ...Failure } };

/** The routes of snapshots. */
export const snapshotRoutes: FastifyPluginAsyncTypebox<{ node: ServedNode }> = async (app, { node }) => {
  const { jobs, snapshots: store } = node;

  app.route({
    method: 'GET',
    url: '/snapshots',
    schema: {
      summary: 'All snapshots, by job, the oldest first; also those of jobs that were removed',
      tags: ['snapshots'],
      response: { 200: Type.Array(Snapshot), ...failed },
    },
    handler: async () => snapshotViews(node),
  });

  app.route({
    method: 'GET',
    url: '/jobs/:job/snapshots',
    schema: {
      summary: 'The snapshots of a job, the oldest first',
      tags: ['snapshots'],
      params: JobParams,
      response: { 200: Type.Array(Snapshot), ...failed },
    },
    handler: async (request) => snapshotViews(node, (await jobs.identify(request.params.job)).id),
  });

  app.route({
    method: 'GET',
    url: '/jobs/:job/snapshots/:sequence',
    schema: {
      summary: 'Everything about a snapshot',
      tags: ['snapshots'],
      params: SnapshotParams,
      response: { 200: SnapshotDetails, ...failed },
    },
    handler: async (request): Promise<SnapshotDetails> => {
      const { snapshot } = await findSnapshot(node, request.params);
      const manifest = await store.readManifest(snapshot.job, snapshot.sequence);
      return describeManifest(snapshot, manifest);
    },
  });

  app.route({
    method: 'PATCH',
    url: '/jobs/:job/snapshots/:sequence',
    schema: {
      summary: 'Pin a snapshot, so that retention leaves it alone, or let it go',
      tags: ['snapshots'],
      params: SnapshotParams,
      body: Type.Object({ pinned: Type.Boolean() }, { additionalProperties: false }),
      response: { 200: Snapshot, ...failed },
    },
    handler: async (request): Promise<Snapshot> => {
      const { snapshot } = await findSnapshot(node, request.params);
      const { pinned } = request.body;
      await store.setPinned(snapshot.job, snapshot.sequence, pinned);
      return { ...snapshot, pinned };
    },
  });

  app.route({
    method: 'DELETE',
    url: '/jobs/:job/snapshots/:sequence',
    schema: {
      summary: 'Remove a snapshot',
      tags: ['snapshots'],
      params: SnapshotParams,
      response: { 204: Type.Null(), ...failed },
    },
    handler: async (request, reply) => {
      const { snapshot } = await findSnapshot(node, request.params);
      await store.removeSnapshot(snapshot.job, snapshot.sequence);
      jobs.sweepSoon();
      return reply.code(204).send(null);
    },
  });

  app.route({
    method: 'POST',
    url: '/verifications',
    schema: {
      summary: 'Check every byte of a snapshot, of all snapshots of a job, or of all there are',
      tags: ['snapshots'],
      body: Type.Object(
        { job: Type.Optional(Type.String()), sequence: Type.Optional(Type.Integer({ minimum: 1 })) },
        { additionalProperties: false },
      ),
      response: {
        200: {
          description: 'Progress, then one result or error.',
          content: { [linesType]: { schema: OperationLine(VerifyResult) } },
        },
        ...failed,
      },
    },
    handler: async (request, reply) => {
      const wanted = await wantedSnapshots(node, request.body);
      await streamOperation(request, reply, async ({ onProgress, signal }): Promise<VerifyResult> => {
        const result: VerifyResult = { snapshots: [] };
        for (const { job, name, sequence, damage } of wanted) {
          signal.throwIfAborted();
          const progress = (doneBytes: number, totalBytes: number): void =>
            onProgress({ kind: 'progress', phase: 'verify', doneBytes, totalBytes });
          const report =
            damage === undefined
              ? await store.verify(job, sequence, { onProgress: progress, signal })
              : undefined;
          const found = report?.damage.map(describeDamage) ?? [damage ?? ''];
          result.snapshots.push({ job, name, sequence, valid: found.length === 0, damage: found });
        }
        return result;
      });
    },
  });
};

/** The snapshots of one job or of all, by job, the oldest first. */
export async function snapshotViews(node: ServedNode, jobId?: string): Promise<Snapshot[]> {
  const headers = await node.snapshots.snapshots(jobId);
  const sorted = headers.toSorted((a, b) => a.jobId.localeCompare(b.jobId) || a.sequence - b.sequence);
  return sorted.map((header, place) => {
    const current =
      header.damaged === undefined &&
      !sorted.slice(place + 1).some((other) => other.jobId === header.jobId && other.damaged === undefined);
    return snapshotView(node, header, current);
  });
}

function snapshotView(node: ServedNode, header: SnapshotHeader, current: boolean): Snapshot {
  const job = node.jobs.list().find(({ id }) => id === header.jobId);
  const { sequence, damaged } = header;
  if (damaged !== undefined) {
    // Of a damaged manifest only the name of its file can be trusted.
    const nothing = { createdAt: '', pinned: false, logicalBytes: 0, storedBytes: 0 };
    return {
      job: header.jobId,
      name: job?.name ?? '',
      sequence,
      state: 'damaged',
      current,
      damage: damaged,
      ...nothing,
    };
  }
  return {
    job: header.jobId,
    name: job?.name ?? header.jobName,
    sequence,
    createdAt: header.createdAt,
    state: header.state,
    current,
    pinned: header.pinned,
    logicalBytes: header.logicalBytes,
    storedBytes: header.storedBytes,
    ...(header.note === undefined ? {} : { note: header.note }),
  };
}

async function findSnapshot(
  node: ServedNode,
  params: { job: string; sequence: number },
): Promise<{ snapshot: Snapshot }> {
  const { id, name } = await node.jobs.identify(params.job);
  const all = await snapshotViews(node, id);
  const snapshot = all.find(({ sequence }) => sequence === params.sequence);
  if (snapshot !== undefined) return { snapshot };
  const known = all.map(({ sequence }) => sequence).join(', ');
  throw new CairnError(
    'argument',
    'snapshot-unknown',
    `The job ${name} has no snapshot ${params.sequence}.`,
    {
      remedy: known === '' ? 'It has none at all.' : `It has ${known}; see "cairn snapshots ${name}".`,
    },
  );
}

async function wantedSnapshots(
  node: ServedNode,
  wanted: { job?: string; sequence?: number },
): Promise<Snapshot[]> {
  if (wanted.job === undefined) return snapshotViews(node);
  if (wanted.sequence === undefined) return snapshotViews(node, (await node.jobs.identify(wanted.job)).id);
  return [(await findSnapshot(node, { job: wanted.job, sequence: wanted.sequence })).snapshot];
}

function describeManifest(snapshot: Snapshot, manifest: SnapshotManifest): SnapshotDetails {
  return {
    snapshot,
    description: manifest.jobDescription,
    timings: manifest.timings,
    host: manifest.host,
    units: manifest.units.map((unit) => ({
      unit: unit.unit,
      images: unit.images.map(({ name, content }) => ({ name, bytes: content.size })),
      layers: unit.layers.map(describeLayer),
    })),
  };
}

function describeLayer(layer: UnitImage['layers'][number]): { name: string; entries: number; bytes: number } {
  const bytes = layer.entries.reduce((sum, entry) => sum + (entry.content?.size ?? 0), 0);
  return { name: layer.name, entries: layer.entries.length, bytes };
}

function describeDamage({ code, file, offset, streams, message }: Damage): string {
  const where = offset === undefined ? file : `${file} at ${offset}`;
  const needed =
    streams === undefined
      ? ''
      : ` (needed by ${streams.slice(0, 5).join(', ')}${streams.length > 5 ? ' …' : ''})`;
  return `${code}: ${where}: ${message}${needed}`;
}
