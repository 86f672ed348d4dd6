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
