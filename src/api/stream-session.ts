import type { Duplex, Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { StreamSession } from '../node/unit-session.ts';
import { decodeSize, encodeFrame, FrameDecoder, type FrameKind, frameKind } from '../units/attach-frames.ts';

/**
 * Connects a session to a stream of frames (see `attach-frames.ts`). When the program has ended, and all its output was sent, an exit
 * frame comes and the stream ends; when the stream is closed before, so is the session.
 */
export async function serveSession(socket: Duplex, session: StreamSession): Promise<void> {
  let over = false;
  socket.once('close', () => {
    if (!over) session.close();
  });
  socket.on('error', () => socket.destroy());
  receive(socket, session);
  try {
    const [end] = await Promise.all([
      session.end,
      send(socket, session.stdout, frameKind.stdout),
      send(socket, session.stderr, frameKind.stderr),
    ]);
    over = true;
    if (end !== undefined && !socket.destroyed) {
      socket.write(encodeFrame(frameKind.exit, Buffer.from(JSON.stringify(end))));
    }
  } finally {
    over = true;
    socket.end();
  }
}

function receive(socket: Duplex, session: StreamSession): void {
  const decoder = new FrameDecoder();
  socket.on('data', (bytes: Buffer) => {
    try {
      for (const { kind, payload } of decoder.push(bytes)) {
        if (kind === frameKind.stdin) {
          // One piece after the other: a program that does not read holds its client up, not our memory.
          socket.pause();
          void Promise.resolve(session.write(payload)).finally(() => socket.resume());
        } else if (kind === frameKind.endOfInput) void session.endInput();
        else if (kind === frameKind.resize) void session.resize(decodeSize(payload));
      }
    } catch {
      socket.destroy();
    }
  });
}

async function send(socket: Duplex, output: Readable, kind: FrameKind): Promise<void> {
  output.on('data', (bytes: Buffer) => {
    if (socket.destroyed || socket.write(encodeFrame(kind, bytes))) return;
    output.pause();
    socket.once('drain', () => output.resume());
  });
  // A terminal whose last process has ended gives an error (EIO): that is its end.
  await finished(output, { writable: false }).catch(() => {});
}
