import { CriuSocket } from './criu-socket.ts';
import { systemCode } from '../errors.ts';
import { close, POLLIN, POLLOUT, PollSet, setNonBlocking, setPipeSize, write } from '../linux/libc.ts';
import { sendMessage } from '../linux/socket.ts';
import { encodeRecord } from './image-file.ts';
import { streamerReply } from './messages.ts';
import { StreamerConnection, streamPipeBytes } from './streamer-connection.ts';

/** Name of the socket in the image directory to which `criu restore --stream` connects. */
export const serveSocketName = 'streamer-serve.sock';

/** Where the images come from. Called synchronously. */
export interface ImageSource {
  has(name: string): boolean;
  /**
   * Fills `into` with the bytes of an image from `offset` on; returns how many, 0 at the end of the image. Each image is
   * asked for from its beginning to its end. A throw ends the restore.
   */
  read(name: string, offset: number, into: Uint8Array<SharedArrayBuffer>): number;
}

export type ServeEvent =
  | { kind: 'connected' }
  /** CRIU asked for an image that the source does not have (it asks for many that are optional). */
  | { kind: 'missing'; name: string }
  | { kind: 'open'; name: string }
  /** All `bytes` of an image are handed over; `complete` is false if CRIU stopped reading before its end. */
  | { kind: 'end'; name: string; bytes: number; complete: boolean }
  | { kind: 'ready'; fd: number }
  /** CRIU has closed its connection and has all it asked for. */
  | { kind: 'finished' };

interface Stream {
  name: string;
  fd: number;
  buffer: Uint8Array<SharedArrayBuffer>;
  /** Part of the buffer that waits for room in the pipe. */
  start: number;
  end: number;
  /** Bytes taken from the source. */
  offset: number;
  sent: number;
}

/**
 * The image streamer of a restore (`criu restore --stream`): hands CRIU the images that it asks for, without a file on the
 * way. Synchronous, for a thread of its own; several images are served at a time, and a slow one holds up no other. A CRIU that
 * ends before it connects is not noticed here: whoever started it interrupts with a watched eventfd.
 */
export class StreamServe implements Disposable {
  readonly #socket: CriuSocket;
  readonly #source: ImageSource;
  readonly #poll = new PollSet();
  readonly #streams = new Map<number, Stream>();
  readonly #watched = new Set<number>();
  readonly #idleBuffers: Uint8Array<SharedArrayBuffer>[] = [];
  #connection: StreamerConnection | undefined;
  #finished = false;

  /** Binds the socket in `directory`; from now on CRIU can be started. Throws system errors. */
  constructor(directory: string, source: ImageSource) {
    this.#source = source;
    this.#socket = new CriuSocket(directory, serveSocketName, this.#poll);
  }

  /** Reports when `fd` can be read (an eventfd that interrupts). The caller keeps owning it. */
  watch(fd: number): void {
    this.#watched.add(fd);
    this.#poll.set(fd, POLLIN);
  }

  unwatch(fd: number): void {
    if (this.#watched.delete(fd)) this.#poll.delete(fd);
  }

  /**
   * Waits until there is something to do, at most `timeoutMs` (-1: no limit), does it, and yields what happened; yields
   * nothing after the time or a signal.
   *
   * Throws what the source throws, and `environment` `criu-protocol`; then only disposing is left to do.
   */
  *poll(timeoutMs: number): Generator<ServeEvent, void, void> {
    if (this.#finished) return;
    for (const { fd } of this.#poll.wait(timeoutMs)) {
      if (this.#watched.has(fd)) yield { kind: 'ready', fd };
      else if (fd === this.#socket.fd) yield* this.#accept();
      else if (fd === this.#connection?.fd) yield* this.#receive(this.#connection);
      else {
        const stream = this.#streams.get(fd);
        if (stream !== undefined) yield* this.#advance(stream);
      }
    }
    if (this.#connection?.ended && this.#streams.size === 0 && !this.#finished) {
      this.#finished = true;
      yield { kind: 'finished' };
    }
  }

  *#accept(): Generator<ServeEvent, void, void> {
    const fd = this.#socket.accept();
    if (fd === undefined) return;
    this.#connection = new StreamerConnection(fd);
    this.#poll.set(fd, POLLIN);
    yield { kind: 'connected' };
  }

  *#receive(connection: StreamerConnection): Generator<ServeEvent, void, void> {
    connection.receive();
    for (let message = connection.next(); message !== undefined; message = connection.next()) {
      const { name } = message;
      if (message.kind === 'pipe') {
        yield* this.#open(name, message.fd);
        continue;
      }
      const exists = this.#source.has(name);
      if (exists) connection.awaitPipe(name);
      try {
        sendMessage(connection.fd, Buffer.concat(encodeRecord(streamerReply(exists))));
      } catch (error) {
        // CRIU gave up while it waited; its end of the connection is read next.
        if (systemCode(error) !== 'EPIPE') throw error;
      }
      if (!exists) yield { kind: 'missing', name };
    }
    if (connection.ended) this.#poll.delete(connection.fd);
  }

  *#open(name: string, fd: number): Generator<ServeEvent, void, void> {
    // Our end has its own flags: CRIU's end of the pipe goes on blocking.
    setNonBlocking(fd, true);
    setPipeSize(fd, streamPipeBytes);
    const buffer = this.#idleBuffers.pop() ?? new Uint8Array(new SharedArrayBuffer(streamPipeBytes));
    const stream = { name, fd, buffer, start: 0, end: 0, offset: 0, sent: 0 };
    this.#streams.set(fd, stream);
    this.#poll.set(fd, POLLOUT);
    yield { kind: 'open', name };
    yield* this.#advance(stream);
  }

  /** Writes until the pipe is full, or others have waited long enough. */
  *#advance(stream: Stream): Generator<ServeEvent, void, void> {
    for (let rounds = 0; rounds < 8; rounds++) {
      if (stream.start === stream.end) {
        const length = this.#source.read(stream.name, stream.offset, stream.buffer);
        stream.start = 0;
        stream.end = length;
        stream.offset += length;
        if (length === 0) {
          this.#closeStream(stream);
          yield { kind: 'end', name: stream.name, bytes: stream.sent, complete: true };
          return;
        }
      }
      let written: number | undefined;
      try {
        written = write(stream.fd, stream.buffer.subarray(stream.start, stream.end));
      } catch (error) {
        if (systemCode(error) !== 'EPIPE') throw error;
        this.#closeStream(stream);
        yield { kind: 'end', name: stream.name, bytes: stream.sent, complete: false };
        return;
      }
      if (written === undefined) return;
      stream.start += written;
      stream.sent += written;
      if (stream.start < stream.end) return;
    }
  }

  #closeStream(stream: Stream): void {
    this.#poll.delete(stream.fd);
    this.#streams.delete(stream.fd);
    close(stream.fd);
    this.#idleBuffers.push(stream.buffer);
  }

  /** Closes all sockets and pipes: a CRIU that is still restoring fails. */
  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
    for (const stream of [...this.#streams.values()]) this.#closeStream(stream);
    if (this.#connection !== undefined) {
      this.#poll.delete(this.#connection.fd);
      this.#connection[Symbol.dispose]();
      this.#connection = undefined;
    }
    this.#finished = true;
  }
}
