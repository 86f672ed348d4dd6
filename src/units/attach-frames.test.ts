import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeSize, encodeFrame, encodeSize, FrameDecoder, type FrameKind } from './attach-frames.ts';
import { parseRequest } from './monitor-protocol.ts';

test('frames come out as they went in, however the stream is cut', () => {
  const frame = fc.record({
    kind: fc.integer({ min: 0, max: 5 }),
    payload: fc.uint8Array({ maxLength: 50 }),
  });
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 20 }), fc.integer({ min: 1, max: 40 }), (frames, step) => {
      const bytes = Buffer.concat(frames.map((f) => encodeFrame(f.kind as FrameKind, f.payload)));
      const decoder = new FrameDecoder();
      const found = [];
      for (let at = 0; at < bytes.length; at += step)
        found.push(...decoder.push(bytes.subarray(at, at + step)));
      assert.deepEqual(
        found.map((f) => [f.kind, [...f.payload]]),
        frames.map((f) => [f.kind, [...f.payload]]),
      );
    }),
  );
  assert.deepEqual(decodeSize(encodeSize({ columns: 300, rows: 2 })), { columns: 300, rows: 2 });
});

test('what is no frame and no request is refused', () => {
  assert.throws(() => new FrameDecoder().push(Buffer.from([9, 0, 0, 0, 0])));
  assert.throws(() => new FrameDecoder().push(Buffer.from([1, 255, 0, 0, 0])));
  for (const bad of [
    '',
    '{}',
    '[]',
    'null',
    '{"op":"kill"}',
    '{"op":"signal","signal":0}',
    '{"op":"signal","signal":"9"}',
  ]) {
    assert.throws(() => parseRequest(bad), Error, bad);
  }
  assert.deepEqual(parseRequest('{"op":"attach","stdin":1,"size":{"columns":-1,"rows":2}}'), {
    op: 'attach',
    stdin: false,
    replay: false,
  });
});
