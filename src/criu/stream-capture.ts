import { CriuSocket } from './criu-socket.ts';
import { CairnError } from '../errors.ts';
import { close, POLLIN, PollSet, read, setPipeSize } from '../linux/libc.ts';
import { StreamerConnection, streamPipeBytes } from './streamer-connection.ts';

/** Name of the socket in the image directory to which `criu dump --stream` connects. */
export const captureSocketName = 'streamer-capture.sock';

/** What happened; `stream` numbers the images of a dump from 0. */
export type CaptureEvent =
  | { kind: 'connected' }
  | { kind: 'open'; stream: number; name: string }
  /** More of an image; `bytes` is a view of a buffer that the next event reuses. */
  | { kind: 'data'; stream: number; name: string; bytes: Uint8Array<SharedArrayBuffer> }
  | { kind: 'end'; stream: number; name: string }
  /** A watched descriptor can be read, or its other end is closed. It is reported until it is read or unwatched. */
  | { kind: 'ready'; fd: number }
  /** CRIU has closed its connection and every image; whether the dump succeeded its exit status tells. */
  | { kind: 'finished' };

interface Stream {
  number: number;
  name: string;
  fd: number;
}

/**
 * The image streamer of a dump (`criu dump --stream`): receives CRIU's images as they are written, without a file on the way.
 *
 * Synchronous, for a thread that does nothing else meanwhile. A CRIU that ends before it connects is not noticed here: whoever
 * started it interrupts with a watched eventfd. The protocol is that of CRIU's criu/img-streamer.c: for each
 * image a name and then the read end of a pipe.
 */
export class StreamCapture implements Disposable {
  readonly #socket: CriuSocket;
  readonly #poll = new PollSet();
  readonly #buffer = new Uint8Array(new SharedArrayBuffer(streamPipeBytes));
  readonly #streams = new Map<number, Stream>();
  readonly #watched = new Set<number>();
  #connection: StreamerConnection | undefined;
  #count = 0;
  #finished = false;

  /** Binds the socket in `directory`; from now on CRIU can be started. Throws system errors. */
  constructor(directory: string) {
    this.#socket = new CriuSocket(directory, captureSocketName, this.#poll);
  }

  /** Reports when `fd` can be read (a status descriptor, an eventfd that interrupts). The caller keeps owning it. */
  watch(fd: number): void {
    this.#watched.add(fd);
    this.#poll.set(fd, POLLIN);
  }

  unwatch(fd: number): void {
    if (this.#watched.delete(fd)) this.#poll.delete(fd);
  }

  /** Images that have been opened and not ended. */
  get openStreams(): number {
    return this.#streams.size;
  }

  /**
   * Waits until something happens, at most `timeoutMs` (-1: no limit), and yields it; yields nothing after the time or a
   * signal. What the caller does not take is reported again next time.
   *
   * Throws `environment` `criu-protocol` if the peer does not speak as CRIU does.
   */
  *poll(timeoutMs: number): Generator<CaptureEvent, void, void> {
    if (this.#finished) return;
    for (const { fd } of this.#poll.wait(timeoutMs)) {
      if (this.#watched.has(fd)) yield { kind: 'ready', fd };
      else if (fd === this.#socket.fd) yield* this.#accept();
      else if (fd === this.#connection?.fd) yield* this.#receive(this.#connection);
      else {
        const stream = this.#streams.get(fd);
        if (stream !== undefined) yield* this.#readStream(stream);
      }
    }
    if (this.#connection?.ended && this.#streams.size === 0 && !this.#finished) {
      this.#finished = true;
      yield { kind: 'finished' };
    }
  }

  /**
   * Yields what CRIU has already sent, until every image that it has opened has ended. For the moment when CRIU has said that
   * all is written although its connection stays open. Throws `temporary` `criu-timeout` after `timeoutMs`.
   */
  *drain(timeoutMs: number): Generator<CaptureEvent, void, void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      let quiet = true;
      const wait = this.#streams.size === 0 ? 0 : Math.max(0, deadline - performance.now());
      for (const event of this.poll(wait)) {
        if (event.kind !== 'ready') quiet = false;
        yield event;
      }
      if (this.#finished || (quiet && this.#streams.size === 0)) return;
      if (performance.now() > deadline) {
        const names = [...this.#streams.values()].map((stream) => stream.name).join(', ');
        throw new CairnError(
          'temporary',
          'criu-timeout',
          `Waited ${timeoutMs} ms for the end of CRIU's images ${names}.`,
        );
      }
    }
  }

  *#accept(): Generator<CaptureEvent, void, void> {
    const fd = this.#socket.accept();
    if (fd === undefined) return;
    this.#connection = new StreamerConnection(fd);
    this.#poll.set(fd, POLLIN);
    yield { kind: 'connected' };
  }

  *#receive(connection: StreamerConnection): Generator<CaptureEvent, void, void> {
    connection.receive();
    for (let message = connection.next(); message !== undefined; message = connection.next()) {
      if (message.kind === 'request') {
        connection.awaitPipe(message.name);
        continue;
      }
      const stream = { number: this.#count++, name: message.name, fd: message.fd };
      this.#streams.set(stream.fd, stream);
      this.#poll.set(stream.fd, POLLIN);
      setPipeSize(stream.fd, streamPipeBytes);
      yield { kind: 'open', stream: stream.number, name: stream.name };
    }
    if (connection.ended) this.#poll.delete(connection.fd);
  }

  *#readStream(stream: Stream): Generator<CaptureEvent, void, void> {
    const length = read(stream.fd, this.#buffer);
    if (length === undefined) return;
    if (length > 0) {
      const bytes = this.#buffer.subarray(0, length);
      yield { kind: 'data', stream: stream.number, name: stream.name, bytes };
      return;
    }
    this.#closeStream(stream);
    yield { kind: 'end', stream: stream.number, name: stream.name };
  }

  #closeStream(stream: Stream): void {
    this.#poll.delete(stream.fd);
    this.#streams.delete(stream.fd);
    close(stream.fd);
  }

  /** Closes all sockets and pipes: a CRIU that is still dumping fails and lets the tasks run on. */
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
