/**
 * What flows over a connection to the monitor after `attach`: frames of one byte kind, four bytes length (big endian) and
 * the payload. From the client: input, end of input, new window size. From the monitor: output, and how the unit ended.
 */

import type { UnitEnd } from './unit-status.ts';

/** Kinds of frames. */
export const frameKind = { stdin: 0, stdout: 1, stderr: 2, resize: 3, endOfInput: 4, exit: 5 } as const;

export type FrameKind = (typeof frameKind)[keyof typeof frameKind];

/** Longer frames are refused: nothing sends them. */
const longestFrame = 4 * 2 ** 20;

/** A frame as bytes. */
export function encodeFrame(kind: FrameKind, payload: Uint8Array = new Uint8Array()): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(kind, 0);
  head.writeUInt32BE(payload.length, 1);
  return Buffer.concat([head, payload]);
}

/** Payload of a resize frame. */
export function encodeSize(size: { columns: number; rows: number }): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt16BE(size.columns, 0);
  bytes.writeUInt16BE(size.rows, 2);
  return bytes;
}

/** Reads the payload of a resize frame. */
export function decodeSize(payload: Buffer): { columns: number; rows: number } {
  return { columns: payload.readUInt16BE(0), rows: payload.readUInt16BE(2) };
}

/** Cuts a stream of bytes into frames. */
export class FrameDecoder {
  #rest: Buffer = Buffer.alloc(0);

  /** The frames that are complete now. Throws on a kind or length that cannot be. */
  push(bytes: Buffer): { kind: FrameKind; payload: Buffer }[] {
    let data = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const frames: { kind: FrameKind; payload: Buffer }[] = [];
    while (data.length >= 5) {
      const kind = data.readUInt8(0);
      const length = data.readUInt32BE(1);
      if (kind > frameKind.exit || length > longestFrame)
        throw new Error('not a frame of an attached terminal');
      if (data.length < 5 + length) break;
      frames.push({ kind: kind as FrameKind, payload: data.subarray(5, 5 + length) });
      data = data.subarray(5 + length);
    }
    this.#rest = Buffer.from(data);
    return frames;
  }
}

/** Reads the payload of an exit frame. */
export function decodeFrameEnd(payload: Buffer): UnitEnd {
  return JSON.parse(payload.toString('utf8')) as UnitEnd;
}
