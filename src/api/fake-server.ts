import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { EventBus } from '../jobs/event-bus.ts';
import { FakeNode, type FakeUnit } from '../jobs/fake-node.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { NodeClient } from './client.ts';
import { listenOnSocket } from './listen.ts';
import type { ServedNode } from './served-node.ts';
import { createServer } from './server.ts';

/** A job for tests. */
export const sleeper = { name: 'sleeper', command: ['sleep', '1000'] };

export interface Rig extends AsyncDisposable {
  fake: FakeNode;
  jobs: Jobs<FakeUnit>;
  events: EventBus;
  app: FastifyInstance;
}

/** A server over a node that exists only in memory. */
export async function rig(): Promise<Rig> {
  const fake = new FakeNode();
  const events = new EventBus();
  const { jobs } = fake.daemon(Number.POSITIVE_INFINITY, events);
  const app = await createServer(servedNode(fake, jobs, events), { version: '0.0.0' });
  return {
    fake,
    jobs,
    events,
    app,
    async [Symbol.asyncDispose]() {
      await app.close();
      await jobs.close();
      await fake[Symbol.asyncDispose]();
    },
  };
}

function servedNode(fake: FakeNode, jobs: Jobs<FakeUnit>, events: EventBus): ServedNode {
  const find = (jobId: string, sequence: number) =>
    fake.headers.find((header) => header.jobId === jobId && header.sequence === sequence);
  return {
    jobs,
    events,
    snapshots: {
      snapshots: async (jobId) =>
        fake.headers.filter((header) => jobId === undefined || header.jobId === jobId),
      nextSequence: async () => 1,
      removeSnapshot: async (jobId, sequence) => {
        const found = find(jobId, sequence);
        if (found !== undefined) fake.headers.splice(fake.headers.indexOf(found), 1);
      },
      removeJob: async () => {},
      sweep: async () => {},
      readManifest: async (jobId, sequence) => ({
        job: { id: jobId, name: 'sleeper' },
        sequence,
        createdAt: '2026-11-27T10:00:00Z',
        jobDescription: sleeper,
        units: [
          {
            unit: 'u-0123456789ab',
            unitDescription: {},
            restore: {},
            images: [{ name: 'core-1.img', content: { size: 10, chunks: new Uint8Array(10) } }],
            layers: [{ name: 'root', entries: [] }],
          },
        ],
        timings: { totalMs: 7 },
        host: { kernel: '6.18' },
      }),
      verify: async (_jobId, _sequence, { onProgress }) => {
        onProgress?.(1, 2);
        return { damage: [] };
      },
      setPinned: async (jobId, sequence, pinned) => {
        const found = find(jobId, sequence);
        if (found !== undefined) found.pinned = pinned;
      },
    },
    information: async () => ({
      version: '0.0.0',
      pid: 1,
      startedAt: '2026-11-27T10:00:00Z',
      stateDirectory: '/s',
      runDirectory: '/r',
      jobs: jobs.list().length,
      snapshots: fake.headers.length,
      storedBytes: 0,
      host: {},
    }),
  };
}

export interface Served extends Rig {
  client: NodeClient;
  directory: string;
  socket: string;
}

/** The same, listening on a socket. */
export async function served(): Promise<Served> {
  const node = await rig();
  const directory = await mkdtemp(join(tmpdir(), 'cairn-api-'));
  const socket = join(directory, 'node.sock');
  await listenOnSocket(node.app, socket);
  return {
    ...node,
    client: new NodeClient(directory),
    directory,
    socket,
    async [Symbol.asyncDispose]() {
      await node[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
