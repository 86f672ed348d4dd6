import { unlinkSync } from 'node:fs';
import path from 'node:path';
import { close, POLLIN, type PollSet } from '../linux/libc.ts';
import { acceptUnix, listenUnix } from '../linux/socket.ts';

/** A socket to which one CRIU connects, once: then, and when it is disposed, it is gone. */
export class CriuSocket implements Disposable {
  readonly #path: string;
  readonly #poll: PollSet;
  #fd: number | undefined;

  /** Binds it; `poll` reports when CRIU has come. From now on CRIU can be started. Throws system errors. */
  constructor(directory: string, name: string, poll: PollSet) {
    this.#path = path.join(directory, name);
    this.#poll = poll;
    this.#fd = listenUnix(this.#path);
    poll.set(this.#fd, POLLIN);
  }

  /** Its descriptor as long as nobody has come. */
  get fd(): number | undefined {
    return this.#fd;
  }

  /** The connection, which belongs to the caller; `undefined` if there is none yet. Nobody else has business here afterwards. */
  accept(): number | undefined {
    const connection = this.#fd === undefined ? undefined : acceptUnix(this.#fd);
    if (connection !== undefined) this[Symbol.dispose]();
    return connection;
  }

  [Symbol.dispose](): void {
    if (this.#fd === undefined) return;
    this.#poll.delete(this.#fd);
    close(this.#fd);
    this.#fd = undefined;
    try {
      unlinkSync(this.#path);
    } catch {
      // The directory may be gone already.
    }
  }
}
