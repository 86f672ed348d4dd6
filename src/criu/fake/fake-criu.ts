/**
 * A stand-in for CRIU that does what a test tells it, step by step, over the socket in CAIRN_FAKE_CRIU: a line of JSON
 * `{step, …}` for each step, answered by `{value}` or `{error}`. Not part of the product.
 */

import { appendFileSync, read as readAsync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { close, pipe, readFully, writeFully } from '../../linux/libc.ts';
import { connectUnix, receiveMessage, sendMessage } from '../../linux/socket.ts';
import { encodeRecord } from '../image-file.ts';
import { Message } from '../protobuf.ts';

const [command = '', ...rest] = process.argv.slice(2);
const options = new Map<string, string>();
for (const [i, argument] of rest.entries()) {
  const [name = '', value] = argument.split('=', 2);
  options.set(name, value ?? rest[i + 1] ?? '');
}
const directory = options.get('--images-dir') ?? '.';
const work = options.get('--work-dir') ?? directory;
const number = (name: string) => Number(options.get(name) ?? -1);

if (command === '--version') {
  console.log('Version: 4.2.1');
  process.exit(0);
}
if (command === 'check') process.exit(0);

let streamer: number | undefined;

function streamerFd(): number {
  const name = command === 'dump' ? 'streamer-capture.sock' : 'streamer-serve.sock';
  streamer ??= connectUnix(join(directory, name));
  return streamer;
}

function request(name: string): void {
  writeFully(streamerFd(), Buffer.concat(encodeRecord(new Message().set(1, name))));
}

const held = new Map<string, number>();

/** What a step may be given; bytes as base64. */
export interface Order {
  line?: string;
  name?: string;
  data?: string;
  limit?: number;
  code?: number;
  signal?: string;
}

/** The steps that a test can order. */
const steps = {
  log: ({ line = '' }: Order) =>
    appendFileSync(join(work, options.get('--log-file') ?? 'criu.log'), `${line}\n`),
  print: ({ line = '' }: Order) => console.error(line),
  file: ({ name = '', data = '' }: Order) => writeFileSync(join(work, name), Buffer.from(data, 'base64')),
  /** Raw bytes on the streamer's connection. */
  raw: ({ data = '' }: Order) => writeFully(streamerFd(), Buffer.from(data, 'base64')),
  /** Opens an image of a dump and keeps it open. */
  open: ({ name = '' }: Order) => {
    const { read, write } = pipe();
    request(name);
    sendMessage(streamerFd(), Buffer.alloc(1), [read]);
    close(read);
    held.set(name, write);
  },
  write: ({ name = '', data = '' }: Order) => writeFully(held.get(name) ?? -1, Buffer.from(data, 'base64')),
  end: ({ name = '' }: Order) => {
    close(held.get(name) ?? -1);
    held.delete(name);
  },
  /** Asks for an image of a restore; reads `limit` bytes of it, or all. */
  fetch: ({ name = '', limit = Number.MAX_SAFE_INTEGER }: Order) => {
    request(name);
    const reply = Buffer.alloc(64);
    const length = receiveMessage(streamerFd(), reply)?.length ?? 0;
    if (reply[length - 1] !== 1) return undefined;
    const { read, write } = pipe();
    sendMessage(streamerFd(), Buffer.alloc(1), [write]);
    close(write);
    const chunks: Buffer[] = [];
    for (let left = limit; left > 0; ) {
      const chunk = Buffer.alloc(Math.min(left, 65_536));
      const got = readFully(read, chunk);
      chunks.push(chunk.subarray(0, got));
      left -= got;
      if (got < chunk.length) break;
    }
    close(read);
    return Buffer.concat(chunks).toString('base64');
  },
  hangUp: () => {
    close(streamerFd());
    streamer = undefined;
  },
  /** The byte on the status descriptor. */
  status: () => {
    writeFully(number('--status-fd'), Buffer.alloc(1));
    close(number('--status-fd'));
  },
  /** Waits until the other end of the page socket is closed. */
  awaitPageSocket: () =>
    new Promise<void>((resolve) => {
      readAsync(number('--ps-socket'), Buffer.alloc(32), 0, 32, null, () => resolve());
    }),
  exit: ({ code = 0 }: Order) => process.exit(code),
  crash: ({ signal = 'SIGSEGV' }: Order) => {
    process.kill(process.pid, signal as NodeJS.Signals);
    // The signal arrives before anything else is done.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5000);
  },
};

export type Step = keyof typeof steps;

const control = connect(process.env.CAIRN_FAKE_CRIU ?? '');
control.write(`${JSON.stringify({ pid: process.pid, command, argv: rest })}\n`);
control.on('error', () => process.exit(99));
// A test that ends leaves nothing behind.
control.on('close', () => process.exit(99));
for await (const line of createInterface({ input: control })) {
  const order = JSON.parse(line) as Order & { step: Step };
  let answer: object;
  try {
    answer = { value: await steps[order.step](order) };
  } catch (error) {
    answer = { error: String(error) };
  }
  control.write(`${JSON.stringify(answer)}\n`);
}
