/** For tests: a store in a temporary directory, and snapshots made of a few byte strings. */

import { mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ChunkListBuilder } from './chunk-list.ts';
import { ChunkWriter } from './chunk-writer.ts';
import { maxChunkBytes } from './format.ts';
import type { SnapshotHeader, SnapshotManifest, StoredStream } from './manifest.ts';
import type { SnapshotWriter } from './snapshot-writer.ts';
import { Store, type StoreOptions } from './store.ts';

export const testJob = 'job-1';

export interface ScratchDirectory extends Disposable {
  readonly path: string;
  readonly options: StoreOptions;
}

/** A temporary directory that goes away when disposed; in memory if possible, where syncing costs nothing. */
export function scratchDirectory(parent: string = memoryOrTemporary()): ScratchDirectory {
  const path = mkdtempSync(join(parent, 'cairn-store-test-'));
  return {
    path,
    options: { directory: join(path, 'store'), keys: join(path, 'keys') },
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  };
}

function memoryOrTemporary(): string {
  try {
    const { bavail, bsize } = statfsSync('/dev/shm');
    if (bavail * bsize > 256 * 1024 * 1024) return '/dev/shm';
  } catch {
    // No such file system here.
  }
  return tmpdir();
}

/** Stores streams with a writer of this thread. */
export function storeStreams(writer: SnapshotWriter, streams: Record<string, Uint8Array>): SnapshotManifest {
  using chunkWriter = new ChunkWriter(writer.writerEnvironment(), { stagingLimitBytes: 4 * 1024 * 1024 });
  const stored: Record<string, StoredStream> = {};
  for (const [name, bytes] of Object.entries(streams)) {
    const list = new ChunkListBuilder();
    for (let at = 0; at < bytes.length; at += maxChunkBytes)
      chunkWriter.stage(bytes.subarray(at, at + maxChunkBytes), list);
    stored[name] = { size: bytes.length, chunks: list.build() };
  }
  writer.collect(chunkWriter.seal());
  return manifestOf(writer.sequence, stored, writer.jobId);
}

export function manifestOf(
  sequence: number,
  streams: Record<string, StoredStream>,
  job: string = testJob,
): SnapshotManifest {
  return {
    job: { id: job, name: 'a job' },
    sequence,
    createdAt: '2026-11-27T12:00:00.000Z',
    jobDescription: { command: ['true'] },
    units: [
      {
        unit: 'unit',
        unitDescription: {},
        restore: { rootPid: 1 },
        images: Object.entries(streams).map(([name, content]) => ({ name, content })),
        layers: [],
      },
    ],
    timings: { frozenMs: 1.5 },
    host: { kernel: 'test' },
  };
}

/** Takes a whole snapshot of these streams. */
export async function takeSnapshot(
  store: Store,
  streams: Record<string, Uint8Array>,
  job: string = testJob,
): Promise<SnapshotHeader> {
  await using writer = store.begin(job, await store.nextSequence(job));
  return await writer.publish(storeStreams(writer, streams));
}

/** The streams of a snapshot, read back. */
export async function readSnapshot(
  store: Store,
  sequence: number,
  job: string = testJob,
): Promise<Record<string, Uint8Array>> {
  const manifest = await store.readManifest(job, sequence);
  return Object.fromEntries(
    (manifest.units[0]?.images ?? []).map(({ name, content }) => [
      name,
      new Uint8Array(store.readStream(content)),
    ]),
  );
}
