import { Blake3Hasher } from '@napi-rs/blake-hash';
import { chunkIdBytes } from './format.ts';

/** Computes the names of chunks: BLAKE3 in keyed mode, 32 bytes, over the plain content. One for each thread. */
export class ChunkNamer {
  /** The last name; overwritten by the next. */
  readonly name: Uint8Array<ArrayBuffer> = new Uint8Array(chunkIdBytes);
  /** The first 128 bits of the last name, as the chunk table wants them. */
  readonly key: Int32Array<ArrayBuffer> = new Int32Array(this.name.buffer, 0, 4);
  readonly #hasher: Blake3Hasher;

  constructor(hashKey: Uint8Array) {
    this.#hasher = Blake3Hasher.newKeyed(Buffer.from(hashKey));
  }

  /** Sets `name` and `key` to those of `bytes` (shared memory too). */
  compute(bytes: Uint8Array): void {
    this.#hasher.reset();
    // Its types ask for a Buffer; every Uint8Array is one to it.
    this.name.set(this.#hasher.update(bytes as Buffer).digestBuffer());
  }

  /** Sets `name` and `key` to a name known from elsewhere. */
  use(name: Uint8Array): void {
    this.name.set(name);
  }
}
