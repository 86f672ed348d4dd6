/** Serves `monitor.sock`: state, signals and attached terminals of one unit. */

import { chmodSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { decodeSize, encodeFrame, FrameDecoder, frameKind } from './attach-frames.ts';
import { type MonitorAnswer, type MonitorRequest, parseRequest } from './monitor-protocol.ts';
import type { TerminalSize } from './terminal.ts';
import type { OutputStream } from './unit-log.ts';
import type { UnitEnd } from './unit-status.ts';

/** What the server may do with the unit. */
export interface ServedUnit {
  readonly pid: number;
  readonly terminal: boolean;
  end(): UnitEnd | undefined;
  signal(signal: number): void;
  write(bytes: Buffer): void;
  endInput(): void;
  resize(size: TerminalSize): void;
}

/** A client that does not take its output is dropped when so much waits for it. */
const longestQueueBytes = 8 * 2 ** 20;
const replayBytes = 64 * 1024;
const longestRequestBytes = 64 * 1024;

/** The socket of one monitor. */
export class MonitorServer {
  readonly #path: string;
  readonly #unit: ServedUnit;
  readonly #server: Server;
  readonly #connections = new Set<Socket>();
  readonly #attached = new Set<Socket>();
  readonly #waiting = new Set<Socket>();
  #recent: { stream: OutputStream; piece: Buffer }[] = [];
  #recentBytes = 0;

  constructor(path: string, unit: ServedUnit) {
    this.#path = path;
    this.#unit = unit;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  async listen(): Promise<void> {
    rmSync(this.#path, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#path, resolve);
    });
    chmodSync(this.#path, 0o600);
  }

  /** Passes output on to everyone who is attached. */
  output(stream: OutputStream, piece: Buffer): void {
    this.#remember(stream, piece);
    if (this.#attached.size === 0) return;
    const frame = encodeFrame(frameKind[stream], piece);
    for (const socket of this.#attached) {
      if (socket.writableLength > longestQueueBytes) socket.destroy();
      else socket.write(frame);
    }
  }

  #remember(stream: OutputStream, piece: Buffer): void {
    this.#recent.push({ stream, piece: Buffer.from(piece) });
    this.#recentBytes += piece.length;
    while (this.#recentBytes > replayBytes && this.#recent.length > 1) {
      this.#recentBytes -= this.#recent.shift()?.piece.length ?? 0;
    }
  }

  #serve(socket: Socket): void {
    this.#connections.add(socket);
    let text = Buffer.alloc(0);
    let decoder: FrameDecoder | undefined;
    let feeds = false;
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#connections.delete(socket);
      this.#attached.delete(socket);
      this.#waiting.delete(socket);
    });
    const onBytes = (bytes: Buffer) => {
      if (decoder !== undefined) return this.#takeFrames(decoder, bytes, feeds);
      text = Buffer.concat([text, bytes]);
      const end = text.indexOf(10);
      if (end < 0) {
        if (text.length > longestRequestBytes) socket.destroy();
        return;
      }
      const rest = text.subarray(end + 1);
      const request = parseRequest(text.toString('utf8', 0, end));
      text = Buffer.alloc(0);
      this.#answer(socket, request);
      if (request.op === 'attach') {
        decoder = new FrameDecoder();
        feeds = request.stdin;
      }
      if (rest.length > 0) onBytes(rest);
    };
    socket.on('data', (bytes) => {
      try {
        onBytes(bytes as Buffer);
      } catch (error) {
        const answer: MonitorAnswer = { ok: false, message: String(error) };
        socket.end(`${JSON.stringify(answer)}\n`);
      }
    });
  }

  #takeFrames(decoder: FrameDecoder, bytes: Buffer, feeds: boolean): void {
    for (const { kind, payload } of decoder.push(bytes)) {
      if (kind === frameKind.resize) this.#unit.resize(decodeSize(payload));
      else if (kind === frameKind.stdin && feeds) this.#unit.write(payload);
      else if (kind === frameKind.endOfInput && feeds) this.#unit.endInput();
    }
  }

  #answer(socket: Socket, request: MonitorRequest): void {
    switch (request.op) {
      case 'status':
        this.#say(socket);
        return;
      case 'wait':
        if (this.#unit.end() === undefined) this.#waiting.add(socket);
        else this.#say(socket);
        return;
      case 'signal':
        this.#unit.signal(request.signal);
        this.#say(socket);
        return;
      case 'attach':
        if (request.size !== undefined) this.#unit.resize(request.size);
        this.#say(socket);
        if (request.replay) {
          for (const { stream, piece } of this.#recent) socket.write(encodeFrame(frameKind[stream], piece));
        }
        this.#attached.add(socket);
        if (this.#unit.end() !== undefined) this.#tellEnd(socket);
    }
  }

  #say(socket: Socket): void {
    const end = this.#unit.end();
    const answer: MonitorAnswer = {
      ok: true,
      pid: this.#unit.pid,
      clients: this.#attached.size,
      terminal: this.#unit.terminal,
      ...(end === undefined ? {} : { end }),
    };
    socket.write(`${JSON.stringify(answer)}\n`);
  }

  #tellEnd(socket: Socket): void {
    socket.end(encodeFrame(frameKind.exit, Buffer.from(JSON.stringify(this.#unit.end() ?? {}))));
  }

  /** Tells everyone that the unit has ended, then closes; what is queued is still delivered, for a second at most. */
  async close(): Promise<void> {
    for (const socket of this.#waiting) this.#say(socket);
    for (const socket of this.#attached) this.#tellEnd(socket);
    rmSync(this.#path, { force: true });
    const allClosed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#connections) socket.end();
    const timer = setTimeout(() => {
      for (const socket of this.#connections) socket.destroy();
    }, 1000);
    await allClosed;
    clearTimeout(timer);
  }
}
