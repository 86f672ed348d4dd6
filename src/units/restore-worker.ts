/** Thread of a monitor that hands CRIU the images of a restore. Its data: `RestoreWorkerData`; it tells `RestoreWorkerMessage`s. */

import { parentPort, workerData } from 'node:worker_threads';
import { StreamServe } from '../criu/stream-serve.ts';
import { CairnError, messageOf } from '../errors.ts';
import { SnapshotImages, type SnapshotSource } from './restore-images.ts';

export interface RestoreWorkerData {
  /** Where the streamer's socket is made. */
  directory: string;
  source: SnapshotSource;
  /** An eventfd that ends it. */
  wakeFd: number;
}

export type RestoreWorkerMessage =
  | { kind: 'listening' }
  | { kind: 'finished'; bytes: number }
  | {
      kind: 'failed';
      error: { class: string; code: string; message: string; remedy?: string; lines: string[] };
    };

const port = parentPort;
if (port === null) throw new Error('restore-worker runs in a worker thread');
const tell = (message: RestoreWorkerMessage) => port.postMessage(message);

function serve({ directory, source, wakeFd }: RestoreWorkerData): void {
  using images = new SnapshotImages(source);
  using server = new StreamServe(directory, images);
  server.watch(wakeFd);
  tell({ kind: 'listening' });
  let bytes = 0;
  for (;;) {
    for (const event of server.poll(-1)) {
      if (event.kind === 'ready') return;
      if (event.kind === 'end') bytes += event.bytes;
      if (event.kind === 'finished') return tell({ kind: 'finished', bytes });
    }
  }
}

try {
  serve(workerData as RestoreWorkerData);
} catch (error) {
  const known = error instanceof CairnError;
  tell({
    kind: 'failed',
    error: {
      class: known ? error.class : 'permanent',
      code: known ? error.code : 'restore-serve-failed',
      message: messageOf(error),
      ...(known && error.remedy !== undefined ? { remedy: error.remedy } : {}),
      lines: known ? [...error.lines] : [],
    },
  });
}
