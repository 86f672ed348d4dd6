/**
 * Thread of a monitor that hands CRIU the images of a restore, or its memory on demand. It waits for `RestoreWorkerData` and
 * tells `RestoreWorkerMessage`s.
 */

import { parentPort } from 'node:worker_threads';
import { LazyServer } from '../criu/lazy-server.ts';
import { StreamServe } from '../criu/stream-serve.ts';
import { CairnError, messageOf } from '../errors.ts';
import { LazyPages } from './lazy-images.ts';
import { type EntryRange, SnapshotImages, type SnapshotSource, verifyEntries } from './restore-images.ts';

export interface RestoreWorkerData {
  /** Where the streamer's socket, or the files of a lazy restore, are made. */
  directory: string;
  source: SnapshotSource;
  /** An eventfd that ends it. */
  wakeFd: number;
  /** What to check before anything is served. */
  verify: EntryRange;
  /** Memory is brought while the job runs already. */
  lazy: boolean;
}

export type RestoreWorkerMessage =
  /** It is up and waits for its data. */
  | { kind: 'up' }
  /** CRIU may be started. `lazyBytes`: what comes later. */
  | { kind: 'listening'; lazyBytes: number }
  /** Everything has been handed over. */
  | { kind: 'finished'; bytes: number }
  | {
      kind: 'failed';
      error: { class: string; code: string; message: string; remedy?: string; lines: string[] };
    };

const port = parentPort;
if (port === null) throw new Error('restore-worker runs in a worker thread');
const tell = (message: RestoreWorkerMessage) => port.postMessage(message);

function serveImages(images: SnapshotImages, { directory, wakeFd }: RestoreWorkerData): void {
  using server = new StreamServe(directory, images);
  server.watch(wakeFd);
  tell({ kind: 'listening', lazyBytes: 0 });
  let bytes = 0;
  for (;;) {
    for (const event of server.poll(-1)) {
      if (event.kind === 'ready') return;
      if (event.kind === 'end') bytes += event.bytes;
      if (event.kind === 'finished') return tell({ kind: 'finished', bytes });
    }
  }
}

function servePages(images: SnapshotImages, { directory, source, wakeFd }: RestoreWorkerData): void {
  const sizes = new Map(source.images.map(({ name, size }) => [name, size]));
  const pages = LazyPages.write(images, sizes, directory);
  // Not disposed when it fails: whoever touches what is missing has to wait until he is ended, and must not read zeros.
  const server = new LazyServer(directory, pages);
  server.watch(wakeFd);
  tell({ kind: 'listening', lazyBytes: pages.lazyBytes });
  let bytes = 0;
  for (;;) {
    for (const event of server.poll(-1)) {
      if (event.kind === 'ready') return;
      if (event.kind === 'pages') bytes += event.bytes;
      if (event.kind !== 'finished') continue;
      if (event.complete) {
        server[Symbol.dispose]();
        return tell({ kind: 'finished', bytes });
      }
      throw new CairnError('temporary', 'lazy-interrupted', 'CRIU ended before it had restored everything');
    }
  }
}

port.once('message', (data: RestoreWorkerData) => {
  try {
    verifyEntries(data.source, data.verify);
    using images = new SnapshotImages(data.source);
    if (data.lazy) servePages(images, data);
    else serveImages(images, data);
  } catch (error) {
    tell({ kind: 'failed', error: portable(error) });
  }
});
tell({ kind: 'up' });

function portable(error: unknown): Extract<RestoreWorkerMessage, { kind: 'failed' }>['error'] {
  const known = error instanceof CairnError;
  return {
    class: known ? error.class : 'permanent',
    code: known ? error.code : 'restore-serve-failed',
    message: messageOf(error),
    ...(known && error.remedy !== undefined ? { remedy: error.remedy } : {}),
    lines: known ? [...error.lines] : [error instanceof Error ? (error.stack ?? '') : ''],
  };
}
