import { CairnError } from '../errors.ts';
import { close } from '../linux/libc.ts';
import { receiveMessage } from '../linux/socket.ts';
import { isImageName } from './image-file.ts';
import { decodeStreamerRequest } from './messages.ts';
import { decodeMessage } from './protobuf.ts';

/** Size that Cairn gives the pipes (default `fs.pipe-max-size`), and of one read or write. */
export const streamPipeBytes = 1024 * 1024;

/** Longest request: the name of an image is at most a path segment. */
const longestRequest = 1024;

/**
 * CRIU's connection to an image streamer, parsed as a byte stream.
 *
 * CRIU sends `u32 length, img_streamer_request_entry` and then one byte that carries a pipe; one recvmsg may return both, or
 * only part of the first.
 */
export class StreamerConnection implements Disposable {
  readonly fd: number;
  readonly #received = Buffer.alloc(4096);
  readonly #descriptors: number[] = [];
  #pending = Buffer.alloc(0);
  #request: string | undefined;
  /** The peer has closed its end. */
  ended = false;

  /** Takes ownership of the accepted socket. */
  constructor(fd: number) {
    this.fd = fd;
  }

  /** Reads what has arrived, once, without waiting. */
  receive(): void {
    let received: { length: number; descriptors: number[] } | undefined;
    try {
      received = receiveMessage(this.fd, this.#received, true);
    } catch (error) {
      // A CRIU that was killed may leave a reset instead of an end.
      if ((error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error;
      received = { length: 0, descriptors: [] };
    }
    if (received === undefined) return;
    if (received.length === 0) {
      this.ended = true;
      return;
    }
    this.#descriptors.push(...received.descriptors);
    this.#pending = Buffer.concat([this.#pending, this.#received.subarray(0, received.length)]);
  }

  /** The name that is asked for, if one has arrived whole and none is put back. Throws `environment` `criu-protocol`. */
  nextRequest(): string | undefined {
    if (this.#request !== undefined) {
      const request = this.#request;
      this.#request = undefined;
      return request;
    }
    if (this.#pending.length < 4) return undefined;
    const length = this.#pending.readUInt32LE(0);
    if (length > longestRequest) throw protocolError(`a request of ${length} bytes`);
    if (this.#pending.length < 4 + length) return undefined;
    const name = decodeStreamerRequest(decodeMessage(this.#pending.subarray(4, 4 + length)));
    if (!isImageName(name)) throw protocolError(`the image name ${JSON.stringify(name)}`);
    this.#pending = this.#pending.subarray(4 + length);
    return name;
  }

  /** Keeps a request until its pipe has arrived. */
  putBack(request: string): void {
    this.#request = request;
  }

  /** The pipe that follows a request, if it has arrived; the caller owns it. */
  nextPipe(): number | undefined {
    if (this.#pending.length === 0 || this.#descriptors.length === 0) return undefined;
    this.#pending = this.#pending.subarray(1);
    return this.#descriptors.shift();
  }

  [Symbol.dispose](): void {
    for (const descriptor of this.#descriptors.splice(0)) close(descriptor);
    close(this.fd);
  }
}

function protocolError(what: string): CairnError {
  return new CairnError('environment', 'criu-protocol', `CRIU's image streamer connection brought ${what}.`, {
    remedy: 'Use the CRIU version that `cairn doctor` asks for.',
  });
}
