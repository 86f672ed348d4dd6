import assert from 'node:assert/strict';
import { test } from 'node:test';
import { close, eventfd, read, readFully, signalEventfd, writeFully } from '../linux/libc.ts';
import { socketPair } from '../linux/socket.ts';
import {
  decodePageHeader,
  encodePageAnswer,
  PageServer,
  type PageServerEvent,
  pageHeaderBytes,
  type PageSource,
} from './page-server.ts';

function requestBytes(
  headerBytes: 24 | 32,
  command: number,
  pid: number,
  address: number,
  pages: number,
): Buffer {
  const bytes = Buffer.alloc(headerBytes);
  encodePageAnswer(bytes, { pid, address, pages }, headerBytes);
  bytes.writeUInt32LE(command, 0);
  return bytes;
}

/** Each page holds its own address. */
const source: PageSource = (pid, address, pages, into) => {
  const words = new DataView(into.buffer, into.byteOffset, into.byteLength);
  for (let i = 0; i < pages; i++) {
    words.setBigUint64(i * 4096, BigInt(address + i * 4096), true);
    words.setUint32(i * 4096 + 8, pid, true);
  }
  return pages;
};

function serveAll(server: PageServer, count: number): PageServerEvent[] {
  const events: PageServerEvent[] = [];
  for (const deadline = Date.now() + 5000; events.length < count && Date.now() < deadline; ) {
    events.push(...server.poll(10));
  }
  return events;
}

for (const headerBytes of [24, 32] as const) {
  test(`pages are served and the end is acknowledged (${headerBytes}-byte headers)`, () => {
    const [ours, criu] = socketPair();
    const server = new PageServer(ours, source, { headerBytes, pageSize: 4096, answerBytes: 8 * 4096 });
    // Two requests at once, the second one in two pieces.
    const second = requestBytes(headerBytes, 7, 9, 0x7f0000000000, 20);
    writeFully(criu, Buffer.concat([requestBytes(headerBytes, 7, 9, 0x5000, 2), second.subarray(0, 10)]));
    assert.equal(serveAll(server, 1)[0]?.kind, 'pages');
    const header = Buffer.alloc(headerBytes);
    const pages = Buffer.alloc(8 * 4096);
    readFully(criu, header);
    assert.deepEqual(decodePageHeader(header, headerBytes), {
      command: 6 | (4 << 16),
      request: { pid: 9, address: 0x5000, pages: 2 },
    });
    readFully(criu, pages.subarray(0, 2 * 4096));
    assert.equal(pages.readBigUInt64LE(4096), 0x6000n);
    assert.equal(pages.readUInt32LE(4096 + 8), 9);

    writeFully(criu, second.subarray(10));
    serveAll(server, 1);
    readFully(criu, header);
    // Fewer than asked for: the answer has a bound, CRIU asks for the rest again.
    assert.equal(decodePageHeader(header, headerBytes).request.pages, 8);
    readFully(criu, pages);
    assert.equal(pages.readBigUInt64LE(7 * 4096), 0x7f0000007000n);

    writeFully(criu, requestBytes(headerBytes, 0x1024, 0, 0, 0));
    assert.deepEqual(serveAll(server, 1), [{ kind: 'finished', complete: true }]);
    assert.equal(readFully(criu, header.subarray(0, 4)), 4);
    assert.equal(header.readUInt32LE(0), 0);
    close(criu);
    close(ours);
  });
}

test('R23 a CRIU that dies is noticed; an eventfd interrupts', () => {
  const [ours, criu] = socketPair();
  const wake = eventfd();
  const server = new PageServer(ours, source, { headerBytes: 32, pageSize: 4096 });
  server.watch(wake);
  signalEventfd(wake);
  assert.deepEqual([...server.poll(1000)], [{ kind: 'ready', fd: wake }]);
  server.unwatch(wake);
  close(criu);
  assert.deepEqual(serveAll(server, 1), [{ kind: 'finished', complete: false }]);
  close(ours);
  close(wake);
});

test('an answer that finds no room waits without blocking', () => {
  const [ours, criu] = socketPair();
  const server = new PageServer(ours, source, { headerBytes: 32, pageSize: 4096 });
  const pages = 1024;
  writeFully(criu, requestBytes(32, 7, 1, 0x100000, pages));
  const events: PageServerEvent[] = [];
  let received = 0;
  const chunk = Buffer.alloc(1 << 20);
  for (const deadline = Date.now() + 5000; received < 32 + pages * 4096 && Date.now() < deadline; ) {
    events.push(...server.poll(10));
    received += read(criu, chunk) ?? 0;
  }
  assert.equal(received, 32 + pages * 4096);
  assert.equal(events.length, 1);
  close(criu);
  close(ours);
});

test('commands that no lazy restore sends are refused; so is a source that fails', () => {
  for (const [request, expected] of [
    [requestBytes(32, 4, 1, 0, 0), { code: 'criu-protocol' }],
    [requestBytes(32, 7, 1, 0x1001, 1), { code: 'criu-protocol' }],
    [requestBytes(32, 7, 1, 0x1000, 1), { message: 'no such page' }],
  ] as const) {
    const [ours, criu] = socketPair();
    const server = new PageServer(
      ours,
      () => {
        throw new Error('no such page');
      },
      { headerBytes: 32, pageSize: 4096 },
    );
    writeFully(criu, request);
    assert.throws(() => serveAll(server, 1), expected);
    close(criu);
    close(ours);
  }
});

test('the header changed its size in CRIU 4.2', () => {
  assert.deepEqual(
    ['3.17.1', '4.1.1', '4.2', '4.2.1', '4.10', '5.0'].map(pageHeaderBytes),
    [24, 24, 32, 32, 32, 32],
  );
});
