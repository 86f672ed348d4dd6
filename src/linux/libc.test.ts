import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import {
  copyRange,
  deviceNumber,
  deviceParts,
  getAttribute,
  listAttributes,
  setAttribute,
  setTimes,
} from './file.ts';
import {
  close,
  drainEventfd,
  eventfd,
  F_GETPIPE_SZ,
  fcntl,
  O_CLOEXEC,
  O_NONBLOCK,
  PollSet,
  POLLHUP,
  POLLIN,
  pipe,
  pread,
  pwrite,
  read,
  readFully,
  setPipeSize,
  signalEventfd,
  SystemCallError,
  write,
  writeFully,
  writev,
  addressOf,
  libc,
  F_DUPFD_CLOEXEC,
} from './libc.ts';
import { pageIs, readMemory, scanPages } from './memory.ts';
import { mount } from './file.ts';
import { isSameFile, openPidfd, reapChild, signalPidfd, takeDescriptor, waitPidfd } from './pidfd.ts';
import { readCommandLine, readStat } from './process.ts';
import {
  acceptUnix,
  connectUnix,
  listenUnix,
  peerCredentials,
  receiveMessage,
  sendMessage,
  socketPair,
} from './socket.ts';

function scratch(t: { after(f: () => void): void }): string {
  const directory = mkdtempSync('/tmp/cairn-linux-');
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

test('a pipe carries bytes from shared memory and back, at offsets of a view', () => {
  const { read: from, write: to } = pipe(O_CLOEXEC | O_NONBLOCK);
  try {
    const shared = new Uint8Array(new SharedArrayBuffer(64));
    shared.set([1, 2, 3, 4, 5], 10);
    assert.equal(read(from, shared), undefined);
    assert.equal(write(to, shared.subarray(11, 14)), 3);
    assert.equal(read(from, shared.subarray(40)), 3);
    assert.deepEqual([...shared.subarray(39, 44)], [0, 2, 3, 4, 0]);
    assert.equal(writev(to, [shared.subarray(10, 12), shared.subarray(14, 15)]), 3);
    assert.equal(read(from, shared), 3);
    assert.deepEqual([...shared.subarray(0, 3)], [1, 2, 5]);
    assert.ok(setPipeSize(from, 1 << 18) >= 4096);
    assert.equal(fcntl(from, F_GETPIPE_SZ), setPipeSize(from, 1 << 18));
  } finally {
    close(from);
    close(to);
  }
});

test('errors have the code, the call and the subject', () => {
  assert.throws(
    () => mount('none', '/nonexistent/cairn', 'tmpfs'),
    (error: unknown) =>
      error instanceof SystemCallError &&
      error.code === 'ENOENT' &&
      error.syscall === 'mount' &&
      error.message === "ENOENT: no such file or directory, mount '/nonexistent/cairn'",
  );
  assert.throws(() => close(-1), { code: 'EBADF' });
});

test('poll reports what is ready, a hang-up, and returns after its time', () => {
  const { read: from, write: to } = pipe();
  const wake = eventfd();
  try {
    const set = new PollSet();
    set.set(from, POLLIN);
    set.set(wake, POLLIN);
    assert.deepEqual(set.wait(1), []);
    signalEventfd(wake);
    assert.deepEqual(set.wait(1000), [{ fd: wake, events: POLLIN }]);
    assert.equal(drainEventfd(wake), 1n);
    assert.equal(drainEventfd(wake), 0n);
    assert.deepEqual(set.wait(0), []);
    writeFully(to, Uint8Array.of(7));
    assert.deepEqual(set.wait(1000), [{ fd: from, events: POLLIN }]);
    read(from, new Uint8Array(10));
    close(to);
    assert.deepEqual(set.wait(1000), [{ fd: from, events: POLLHUP }]);
  } finally {
    close(from);
    close(wake);
  }
});

test('descriptors travel over a unix socket, also where the path is longer than an address holds', (t) => {
  const directory = scratch(t);
  const path = `${directory}/${'long-'.repeat(20)}/`;
  for (const socketPath of [`${directory}/s`, `${directory}/${'d'.repeat(120)}`]) {
    const listener = listenUnix(socketPath);
    assert.equal(acceptUnix(listener), undefined);
    const client = connectUnix(socketPath);
    const server = acceptUnix(listener);
    assert.ok(server !== undefined);
    assert.deepEqual(peerCredentials(server), {
      pid: process.pid,
      uid: process.getuid?.(),
      gid: process.getgid?.(),
    });
    const file = openSync('/etc/hostname', 'r');
    assert.equal(sendMessage(client, Buffer.from('abc'), [file, file, file]), 3);
    closeSync(file);
    const buffer = Buffer.alloc(100);
    const received = receiveMessage(server, buffer);
    assert.equal(received?.length, 3);
    assert.equal(received?.descriptors.length, 3);
    for (const fd of received?.descriptors ?? []) {
      assert.equal(statSync(`/proc/self/fd/${fd}`).ino, statSync('/etc/hostname').ino);
      close(fd);
    }
    assert.equal(receiveMessage(server, buffer, true), undefined);
    close(client);
    assert.deepEqual(receiveMessage(server, buffer), { length: 0, descriptors: [] });
    close(server);
    close(listener);
  }
  assert.throws(() => connectUnix(`${path}s`), { code: 'ENOENT' });
});

test('pidfd: signals, waits, takes a descriptor; an ended process is noticed', async () => {
  const file = openSync('/etc/hostname', 'r');
  const child = spawn('sleep', ['60'], { stdio: ['ignore', file, 'ignore'] });
  closeSync(file);
  const ended = new Promise((resolve) => child.once('exit', (_code, signal) => resolve(signal)));
  const pid = child.pid ?? 0;
  const pidfd = openPidfd(pid);
  assert.ok(pidfd !== undefined);
  assert.equal(waitPidfd(pidfd, 1), false);
  const taken = takeDescriptor(pidfd, 1);
  assert.equal(statSync(`/proc/self/fd/${taken}`).ino, statSync('/etc/hostname').ino);
  close(taken);
  assert.equal(reapChild(pid), 'running');
  assert.equal(signalPidfd(pidfd, 9), true);
  assert.equal(waitPidfd(pidfd, 5000), true);
  assert.equal(await ended, 'SIGKILL');
  assert.equal(signalPidfd(pidfd, 0), false);
  assert.equal(reapChild(pid), undefined);
  assert.equal(openPidfd(pid), undefined);
  close(pidfd);
});

test('whether two descriptors lead to the same open file is told across processes', (t) => {
  const pair = pipe();
  const copy = fcntl(pair.read, F_DUPFD_CLOEXEC);
  const other = openSync('/proc/self/stat', 'r');
  const child = spawn('sleep', ['60'], { stdio: [pair.read, 'ignore', 'ignore'] });
  t.after(() => child.kill('SIGKILL'));
  assert.ok(isSameFile(copy, child.pid ?? 0, 0));
  assert.ok(!isSameFile(other, child.pid ?? 0, 0));
  assert.ok(!isSameFile(copy, child.pid ?? 0, 77), 'it has no such descriptor');
  for (const fd of [copy, other, pair.read, pair.write]) close(fd);
});

test('memory of another process is read in pieces, and its pages are found', async (t) => {
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  t.after(() => child.kill('SIGKILL'));
  const pid = child.pid ?? 0;
  const deadline = Date.now() + 10_000;
  const wait = async (condition: () => boolean) => {
    while (!condition() && Date.now() < deadline) await setTimeout(2);
  };
  // Stopped, so that its memory holds still while it is compared.
  await wait(() => readCommandLine(pid)?.[0] === 'sleep');
  child.kill('SIGSTOP');
  await wait(() => readStat(pid)?.state === 'T');
  const stack = /^([0-9a-f]+)-([0-9a-f]+) .*\[stack\]$/m.exec(readFileSync(`/proc/${pid}/maps`, 'utf8'));
  const start = BigInt(`0x${stack?.[1]}`);
  const end = BigInt(`0x${stack?.[2]}`);
  const mem = openSync(`/proc/${pid}/mem`, 'r');
  const expected = Buffer.alloc(8192);
  pread(mem, expected, end - 8192n);
  const into = new Uint8Array(new SharedArrayBuffer(8192));
  const pieces = BigUint64Array.of(end - 4096n, 4096n, end - 8192n, 4096n);
  assert.equal(readMemory(pid, into, pieces, 2), 8192);
  assert.ok(expected.subarray(4096).equals(Buffer.from(into.slice(0, 4096))));
  assert.ok(expected.subarray(0, 4096).equals(Buffer.from(into.slice(4096))));
  assert.throws(() => readMemory(pid, into, BigUint64Array.of(4096n, 4096n), 1), { code: 'EFAULT' });
  closeSync(mem);

  const pagemap = openSync(`/proc/${pid}/pagemap`, 'r');
  try {
    const regions = new BigUint64Array(30);
    const scan = { start, end, mask: pageIs.present, report: pageIs.present };
    const { count, walkEnd } = scanPages(pagemap, scan, regions);
    assert.ok(count >= 1);
    assert.equal(walkEnd, end);
    assert.equal(regions[3 * (count - 1) + 1], end, 'the top of the stack is present');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTTY') throw error;
    t.diagnostic('no PAGEMAP_SCAN on this kernel');
  } finally {
    closeSync(pagemap);
  }
});

test('a scan of more regions than the kernel gathers at a time tells each once', (t) => {
  const pages = 2048;
  const MADV_NOHUGEPAGE = 15;
  const memory = new Uint8Array(new SharedArrayBuffer((pages + 1) * 4096));
  const start = BigInt(Math.ceil(Number(addressOf(memory)) / 4096) * 4096);
  const offset = Number(start - addressOf(memory));
  libc().madvise(Number(start), pages * 4096, MADV_NOHUGEPAGE);
  const expected: bigint[] = [];
  for (let page = 0; page < pages; page += 2) {
    memory[offset + page * 4096] = 1;
    expected.push(start + BigInt(page * 4096));
  }
  const pagemap = openSync('/proc/self/pagemap', 'r');
  try {
    const scan = { mask: pageIs.present, report: pageIs.present };
    const end = start + BigInt(pages * 4096);
    for (const room of [300, 512, 513, 5000]) {
      const regions = new BigUint64Array(3 * room);
      const found: bigint[] = [];
      for (let at = start; at < end; ) {
        const { count, walkEnd } = scanPages(pagemap, { ...scan, start: at, end }, regions);
        for (let i = 0; i < count; i++) found.push(regions[i * 3] as bigint);
        assert.ok(walkEnd > at);
        at = walkEnd;
      }
      assert.deepEqual(found, expected, `with room for ${room}`);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTTY') throw error;
    t.diagnostic('no PAGEMAP_SCAN on this kernel');
  } finally {
    closeSync(pagemap);
  }
});

test('files: positions, times in nanoseconds, attributes, ranges, device numbers', (t) => {
  const directory = scratch(t);
  const path = `${directory}/file`;
  writeFileSync(path, 'hello world');
  const fd = openSync(path, 'r+');
  assert.equal(pwrite(fd, Buffer.from('W'), 6), 1);
  const buffer = Buffer.alloc(20);
  assert.equal(pread(fd, buffer, 6), 5);
  assert.equal(buffer.toString('utf8', 0, 5), 'World');
  assert.equal(readFully(fd, buffer), 11);
  setTimes(path, -1n, 1_700_000_000_123_456_789n);
  const status = statSync(path, { bigint: true });
  assert.equal(status.mtimeNs, 1_700_000_000_123_456_789n);
  assert.equal(status.atimeNs, -1n);
  assert.equal(getAttribute(path, 'user.cairn'), undefined);
  try {
    setAttribute(path, 'user.cairn', Buffer.from('x'));
    assert.deepEqual(listAttributes(path), ['user.cairn']);
    assert.equal(getAttribute(path, 'user.cairn')?.toString(), 'x');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EOPNOTSUPP') throw error;
    t.diagnostic('no user attributes in /tmp');
  }
  const copy = openSync(`${directory}/copy`, 'w+');
  assert.equal(copyRange(copy, 2, fd, 6, 5), 5);
  assert.equal(readFileSync(`${directory}/copy`, 'utf8'), '\0\0World');
  closeSync(copy);
  closeSync(fd);
  assert.deepEqual(deviceParts(deviceNumber(259, 70000)), { major: 259, minor: 70000 });
  assert.equal(deviceNumber(1, 3), statSync('/dev/null').rdev);
});

test('socketPair gives two ends', () => {
  const [a, b] = socketPair();
  assert.equal(sendMessage(a, Buffer.from('x')), 1);
  assert.equal(receiveMessage(b, Buffer.alloc(4))?.length, 1);
  close(a);
  close(b);
});
