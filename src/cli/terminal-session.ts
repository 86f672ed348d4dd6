import type { Duplex } from 'node:stream';
import { readSessionEnd, type SessionEnd } from '../api/session-end.ts';
import { encodeFrame, encodeSize, FrameDecoder, frameKind } from '../units/attach-frames.ts';
import { DetachKeys } from './detach-keys.ts';

/** How a session with a program ended: the program did, or we left it. */
export type SessionResult = { kind: 'ended'; end: SessionEnd } | { kind: 'detached' } | { kind: 'lost' };

export interface SessionOptions {
  /** The program has a terminal: pass every key on at once, and the size of ours. */
  terminal: boolean;
  /** Feed its standard input from ours. */
  stdin: boolean;
}

/** Size of our terminal, in characters; `undefined` if we have none. */
export function terminalSize(): { columns: number; rows: number } | undefined {
  const { columns, rows, isTTY } = process.stdout;
  return isTTY && columns > 0 && rows > 0 ? { columns, rows } : undefined;
}

/** Connects our terminal, or standard input and output, with a stream of frames until one side ends. */
export async function runSession(stream: Duplex, options: SessionOptions): Promise<SessionResult> {
  const { promise, resolve } = Promise.withResolvers<SessionResult>();
  let end: SessionEnd | undefined;
  const decoder = new FrameDecoder();
  stream.on('data', (bytes: Buffer) => {
    for (const { kind, payload } of decoder.push(bytes)) {
      if (kind === frameKind.exit) end = readSessionEnd(payload);
      const output = kind === frameKind.stderr ? process.stderr : process.stdout;
      if (kind === frameKind.exit || output.write(payload)) continue;
      stream.pause();
      output.once('drain', () => stream.resume());
    }
  });
  stream.on('error', () => stream.destroy());
  stream.on('close', () => resolve(end === undefined ? { kind: 'lost' } : { kind: 'ended', end }));
  stream.on('end', () => stream.destroy());

  using _input = options.stdin
    ? feed(stream, options.terminal, () => resolve({ kind: 'detached' }))
    : undefined;
  using _size = options.terminal ? passSize(stream) : undefined;
  try {
    return await promise;
  } finally {
    stream.destroy();
  }
}

function feed(stream: Duplex, terminal: boolean, onDetach: () => void): Disposable {
  const { stdin } = process;
  const raw = terminal && stdin.isTTY;
  const keys = new DetachKeys();
  const onData = (bytes: Buffer): void => {
    const { pass, detached } = raw ? keys.push(bytes) : { pass: bytes, detached: false };
    if (pass.length > 0 && !stream.write(encodeFrame(frameKind.stdin, pass))) {
      stdin.pause();
      stream.once('drain', () => stdin.resume());
    }
    if (detached) onDetach();
  };
  const onEnd = (): void => void stream.write(encodeFrame(frameKind.endOfInput));
  if (raw) stdin.setRawMode(true);
  stdin.on('data', onData);
  stdin.once('end', onEnd);
  return {
    [Symbol.dispose]() {
      stdin.off('data', onData);
      stdin.off('end', onEnd);
      if (raw) stdin.setRawMode(false);
      stdin.pause();
      stdin.unref?.();
    },
  };
}

function passSize(stream: Duplex): Disposable {
  const onResize = (): void => {
    const size = terminalSize();
    if (size !== undefined) stream.write(encodeFrame(frameKind.resize, encodeSize(size)));
  };
  process.stdout.on('resize', onResize);
  // A size that changes makes programs draw themselves anew: whoever attaches sees more than what comes next.
  const size = terminalSize();
  if (size !== undefined)
    stream.write(encodeFrame(frameKind.resize, encodeSize({ ...size, rows: size.rows + 1 })));
  onResize();
  return { [Symbol.dispose]: () => void process.stdout.off('resize', onResize) };
}
