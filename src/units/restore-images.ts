/** Images of a snapshot as CRIU's streamer asks for them: read from the packs, decrypted and checked on the way. */

import type { ImageSource } from '../criu/stream-serve.ts';
import { ChunkReader } from '../store/chunk-reader.ts';
import type { ImageSource as RestoreSource } from './restore-file.ts';

export type SnapshotSource = Pick<
  Extract<RestoreSource, { kind: 'snapshot' }>,
  'images' | 'plan' | 'environment'
>;

type Content = { inline: Uint8Array } | { list: number };

/** Serves the images of a task; for one thread. */
export class SnapshotImages implements ImageSource, Disposable {
  readonly #reader: ChunkReader;
  readonly #images: ReadonlyMap<string, Content>;

  constructor(task: SnapshotSource) {
    this.#reader = new ChunkReader(task.environment, task.plan);
    this.#images = new Map(
      task.images.map(({ name, content }) => [
        name,
        'list' in content
          ? { list: content.list }
          : { inline: new Uint8Array(Buffer.from(content.inlineBase64, 'base64')) },
      ]),
    );
  }

  has(name: string): boolean {
    return this.#images.has(name);
  }

  read(name: string, offset: number, into: Uint8Array): number {
    const content = this.#images.get(name);
    if (content === undefined) return 0;
    if ('list' in content) return this.#reader.readRange(content.list, offset, into);
    const part = content.inline.subarray(offset, offset + into.length);
    into.set(part);
    return part.length;
  }

  [Symbol.dispose](): void {
    this.#reader[Symbol.dispose]();
  }
}

/** Which part of the entries of a read plan; a range. */
export interface EntryRange {
  from: number;
  to: number;
}

/** Plans with less than this are checked by one thread. */
const splitFromBytes = 32 * 1024 * 1024;

/** Shares the work of `verifyEntries` between this thread and the one that will serve the images. */
export function shareVerification({ plan, images }: SnapshotSource): { here: EntryRange; there: EntryRange } {
  const count = plan.entryLength.length;
  const bytes = images.reduce((sum, { size }) => sum + size, 0);
  const middle = bytes < splitFromBytes ? 0 : Math.floor(count / 2);
  return { here: { from: 0, to: middle }, there: { from: middle, to: count } };
}

/**
 * Reads, decrypts and compares chunks with their names, so that a damaged snapshot is refused before CRIU has seen any of it.
 * Throws `chunk-damaged` or `pack-damaged` (permanent).
 */
export function verifyEntries(source: SnapshotSource, { from, to }: EntryRange): void {
  using reader = new ChunkReader(source.environment, source.plan);
  for (let entry = from; entry < to; entry++) if (!reader.isZero(entry)) reader.view(entry);
}
