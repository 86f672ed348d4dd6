import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { readUnitResources } from './unit-resources.ts';

/** One descriptor of each kind, and their numbers on standard output. */
const script = `
import ctypes, os, sys
counter, semaphore = os.eventfd(1), os.eventfd(1, os.EFD_SEMAPHORE)
plain, packets = os.pipe2(0), os.pipe2(os.O_DIRECT)
queue = ctypes.CDLL(None, use_errno=True).mq_open(b"/cairn-%d" % os.getpid(), os.O_RDWR | os.O_CREAT, 0o600, None)
if queue >= 0: ctypes.CDLL(None).mq_unlink(b"/cairn-%d" % os.getpid())
memory = os.memfd_create("cairn")
print(counter, semaphore, plain[1], packets[0], packets[1], queue, memory, flush=True)
sys.stdin.read()
`;

test('R18 what only fdinfo and the file system tell about descriptors is read', async (t) => {
  const child = spawn('python3', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.on('error', () => {});
  t.after(async () => {
    if (child.exitCode === null && child.kill('SIGKILL')) await once(child, 'exit');
  });
  if (child.pid === undefined) return t.skip('no python3 here');
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  const [counter, semaphore, plain, reading, packets, queue, memory] = line.trim().split(' ').map(Number);
  const { processes } = await readUnitResources(child.pid, [child.pid]);
  const found = (fd: number | undefined) =>
    processes[0]?.descriptors.find((descriptor) => descriptor.fd === fd);
  assert.equal(found(counter)?.variant, undefined);
  assert.equal(found(semaphore)?.variant, 'eventfd-semaphore');
  assert.equal(found(plain)?.variant, undefined);
  assert.equal(found(reading)?.variant, undefined, 'only the end that is written to has the mode');
  assert.equal(found(packets)?.variant, 'packet-pipe');
  assert.equal(found(memory)?.fileSystem, undefined);
  if (queue !== undefined && queue >= 0) assert.equal(found(queue)?.fileSystem, 'mqueue');
  else t.diagnostic('no POSIX message queue could be made here');
});
