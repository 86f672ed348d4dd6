/**
 * CRIU's page server, the side that gives pages: `criu lazy-pages --page-server` asks it for the memory of restored
 * processes (criu/page-xfer.c). Only what a lazy restore sends is spoken: GET and the two forms of CLOSE.
 */

import { CairnError, systemCode } from '../errors.ts';
import { POLLIN, POLLOUT, PollSet, read, setNonBlocking, write } from '../linux/libc.ts';
import { setSocketBuffers } from '../linux/socket.ts';

const GET = 7;
const ADD_F = 6;
const CLOSE = 0x1023;
const FORCE_CLOSE = 0x1024;
const present = 4;

/** Bytes of a request or answer header: the number of pages became 64 bits wide in 4.2. There is no handshake. */
export function pageHeaderBytes(criuVersion: string): 24 | 32 {
  const [major = 0, minor = 0] = criuVersion.split('.').map(Number);
  return major > 4 || (major === 4 && minor >= 2) ? 32 : 24;
}

export interface PageRequest {
  /** PID as the images have it. */
  pid: number;
  address: number;
  pages: number;
}

/** Decodes the request at the beginning of `bytes` (criu/page-xfer.c, struct page_server_iov). */
export function decodePageHeader(
  bytes: Buffer,
  headerBytes: 24 | 32,
): { command: number; request: PageRequest } {
  const at = headerBytes - 16;
  return {
    command: bytes.readUInt32LE(0),
    request: {
      pid: Number(bytes.readBigUInt64LE(at + 8)),
      address: Number(bytes.readBigUInt64LE(at)),
      pages: headerBytes === 32 ? Number(bytes.readBigUInt64LE(8)) : bytes.readUInt32LE(4),
    },
  };
}

/** Writes the header of an answer at the beginning of `bytes`. */
export function encodePageAnswer(bytes: Buffer, request: PageRequest, headerBytes: 24 | 32): void {
  const at = headerBytes - 16;
  bytes.fill(0, 0, headerBytes);
  bytes.writeUInt32LE(ADD_F | (present << 16), 0);
  if (headerBytes === 32) bytes.writeBigUInt64LE(BigInt(request.pages), 8);
  else bytes.writeUInt32LE(request.pages, 4);
  bytes.writeBigUInt64LE(BigInt(request.address), at);
  bytes.writeBigUInt64LE(BigInt(request.pid), at + 8);
}

/**
 * Where pages come from: fills `into` with pages from `address` on and returns how many (at least 1, perhaps fewer than asked
 * for; CRIU asks for the rest again). Called synchronously. A throw ends the restore.
 */
export type PageSource = (
  pid: number,
  address: number,
  pages: number,
  into: Uint8Array<SharedArrayBuffer>,
) => number;

export type PageServerEvent =
  | { kind: 'pages'; request: PageRequest }
  | { kind: 'ready'; fd: number }
  /** `complete`: CRIU said that it has everything; otherwise it died or gave up. */
  | { kind: 'finished'; complete: boolean };

export interface PageServerOptions {
  /** From `pageHeaderBytes(version)`. */
  headerBytes: 24 | 32;
  pageSize: number;
  /** Largest answer in bytes; default 4 MiB, which is also the most that CRIU asks for at once. */
  answerBytes?: number;
}

/** Answers one connected `criu lazy-pages`; synchronous, for a thread of its own. */
export class PageServer {
  readonly #fd: number;
  readonly #source: PageSource;
  readonly #headerBytes: 24 | 32;
  readonly #pageSize: number;
  readonly #answerPages: number;
  readonly #poll = new PollSet();
  readonly #watched = new Set<number>();
  readonly #output: Uint8Array<SharedArrayBuffer>;
  readonly #input = Buffer.alloc(64 * 32);
  #received = 0;
  #start = 0;
  #end = 0;
  /** CRIU has ordered the end; its acknowledgement is on the way. */
  #closing = false;
  #finished = false;

  /** `fd` is a connected stream socket (unix or TCP); the caller keeps owning it and closes it afterwards. */
  constructor(fd: number, source: PageSource, options: PageServerOptions) {
    const { headerBytes, pageSize, answerBytes = 4 * 1024 * 1024 } = options;
    this.#fd = fd;
    this.#source = source;
    this.#headerBytes = headerBytes;
    this.#pageSize = pageSize;
    this.#answerPages = Math.max(1, Math.floor(answerBytes / pageSize));
    this.#output = new Uint8Array(new SharedArrayBuffer(headerBytes + this.#answerPages * pageSize));
    setNonBlocking(fd, true);
    setSocketBuffers(fd, answerBytes);
    this.#poll.set(fd, POLLIN);
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
   * Waits until there is something to do, at most `timeoutMs` (-1: no limit), does it, and yields what happened; yields nothing
   * after the time or a signal.
   *
   * Throws what the source throws, and `environment` `criu-protocol` for commands that no lazy restore sends.
   */
  *poll(timeoutMs: number): Generator<PageServerEvent, void, void> {
    if (this.#finished) return;
    for (const { fd, events } of this.#poll.wait(timeoutMs)) {
      if (fd !== this.#fd) {
        yield { kind: 'ready', fd };
        continue;
      }
      try {
        if ((events & ~POLLOUT) !== 0) this.#receive();
        yield* this.#work();
      } catch (error) {
        const code = systemCode(error);
        if (code !== 'EPIPE' && code !== 'ECONNRESET') throw error;
        this.#finished = true;
      }
      if (this.#finished) {
        this.#poll.delete(this.#fd);
        yield { kind: 'finished', complete: this.#closing };
        return;
      }
    }
  }

  #receive(): void {
    // A read without room would look like the end.
    if (this.#received === this.#input.length) return;
    const length = read(this.#fd, this.#input.subarray(this.#received));
    if (length === undefined) return;
    if (length === 0) this.#finished = true;
    this.#received += length;
  }

  /** Sends what is pending and answers requests until the socket is full or no request is left. */
  *#work(): Generator<PageServerEvent, void, void> {
    while (!this.#finished) {
      if (this.#start < this.#end) {
        const written = write(this.#fd, this.#output.subarray(this.#start, this.#end));
        this.#start += written ?? 0;
        if (written === undefined) {
          this.#expect(POLLOUT);
          return;
        }
        continue;
      }
      if (this.#closing) {
        this.#finished = true;
        return;
      }
      if (this.#received < this.#headerBytes) {
        this.#expect(POLLIN);
        return;
      }
      yield* this.#answer();
    }
  }

  /** While an answer waits for room no requests are read, so that the buffer for them has a bound. */
  #expect(events: number): void {
    this.#poll.set(this.#fd, events);
  }

  *#answer(): Generator<PageServerEvent, void, void> {
    const { command, request } = decodePageHeader(this.#input, this.#headerBytes);
    this.#input.copyWithin(0, this.#headerBytes, this.#received);
    this.#received -= this.#headerBytes;
    if (command === CLOSE || command === FORCE_CLOSE) {
      this.#closing = true;
      this.#output.fill(0, 0, 4);
      this.#start = 0;
      this.#end = 4;
      return;
    }
    const { pid, address, pages } = request;
    if ((command & 0xffff) !== GET || pages < 1 || address % this.#pageSize !== 0) {
      throw new CairnError(
        'environment',
        'criu-protocol',
        `CRIU sent its page server the command 0x${command.toString(16)} for ${pages} pages at 0x${address.toString(16)}.`,
        { remedy: 'Use the CRIU version that `cairn doctor` asks for.' },
      );
    }
    const asked = Math.min(pages, this.#answerPages);
    const room = this.#output.subarray(this.#headerBytes, this.#headerBytes + asked * this.#pageSize);
    const given = this.#source(pid, address, asked, room);
    if (given < 1 || given > asked) throw new RangeError(`page source gave ${given} of ${asked} pages`);
    const header = Buffer.from(this.#output.buffer, 0, this.#headerBytes);
    encodePageAnswer(header, { pid, address, pages: given }, this.#headerBytes);
    this.#start = 0;
    this.#end = this.#headerBytes + given * this.#pageSize;
    yield { kind: 'pages', request: { pid, address, pages: given } };
  }
}
