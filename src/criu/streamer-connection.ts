import { CairnError, systemCode } from '../errors.ts';
import { close } from '../linux/libc.ts';
import { receiveMessage } from '../linux/socket.ts';
import { isImageName } from './image-file.ts';
import { decodeStreamerRequest } from './messages.ts';
import { decodeMessage } from './protobuf.ts';

/** Size that Cairn gives the pipes (default `fs.pipe-max-size`), and of one read or write. */
export const streamPipeBytes = 1024 * 1024;

/** Longest request: the name of an image is at most a path segment. */
const longestRequest = 1024;

/** What CRIU sent: a request for an image, or the pipe for the image that `awaitPipe` named (owned by the caller). */
export type StreamerMessage = { kind: 'request'; name: string } | { kind: 'pipe'; name: string; fd: number };

/**
 * CRIU's connection to an image streamer, parsed as a byte stream.
 *
 * CRIU sends `u32 length, img_streamer_request_entry` and then (on a restore, after the answer that the image exists) one
 * byte that carries a pipe; one recvmsg may return both, or only part of the first.
 */
export class StreamerConnection implements Disposable {
  readonly fd: number;
  readonly #received = Buffer.alloc(4096);
  readonly #descriptors: number[] = [];
  #pending = Buffer.alloc(0);
  #awaited: string | undefined;
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
      if (systemCode(error) !== 'ECONNRESET') throw error;
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

  /** The next message, if it has arrived whole. Throws `environment` `criu-protocol`. */
  next(): StreamerMessage | undefined {
    return this.#awaited === undefined ? this.#nextRequest() : this.#nextPipe(this.#awaited);
  }

  /** Says that the pipe for this image comes next. */
  awaitPipe(name: string): void {
    this.#awaited = name;
  }

  #nextRequest(): StreamerMessage | undefined {
    if (this.#pending.length < 4) return undefined;
    const length = this.#pending.readUInt32LE(0);
    if (length > longestRequest) throw protocolError(`a request of ${length} bytes`);
    if (this.#pending.length < 4 + length) return undefined;
    const name = decodeStreamerRequest(decodeMessage(this.#pending.subarray(4, 4 + length)));
    if (!isImageName(name)) throw protocolError(`the image name ${JSON.stringify(name)}`);
    this.#pending = this.#pending.subarray(4 + length);
    return { kind: 'request', name };
  }

  #nextPipe(name: string): StreamerMessage | undefined {
    if (this.#pending.length === 0) return undefined;
    const fd = this.#descriptors.shift();
    if (fd === undefined) throw protocolError('a byte without the pipe that it should carry');
    this.#pending = this.#pending.subarray(1);
    this.#awaited = undefined;
    return { kind: 'pipe', name, fd };
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
