import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { insideNamespace } from './namespace.ts';
import { Program } from './spawn.ts';

test('an action runs inside another namespace, and the thread returns', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('needs root');
  await using program = new Program([
    'unshare',
    '--uts',
    'sh',
    '-c',
    'hostname cairn-elsewhere; echo; sleep 60',
  ]);
  for (const deadline = Date.now() + 5000; program.lines.length === 0 && Date.now() < deadline; )
    await setTimeout(2);
  const here = hostname();
  const path = `/proc/${program.pid}/ns/uts`;
  assert.equal(insideNamespace(path, 'uts', hostname), 'cairn-elsewhere');
  assert.equal(hostname(), here);
  assert.throws(
    () =>
      insideNamespace(path, 'uts', () => {
        throw new Error('inside');
      }),
    /inside/,
  );
  assert.equal(hostname(), here);
  assert.throws(() => insideNamespace('/nonexistent', 'uts', hostname), { code: 'ENOENT' });
});

test('system calls work in worker threads, errno included', async () => {
  const url = new URL('libc.ts', import.meta.url).href;
  const source = `
    import { parentPort } from 'node:worker_threads';
    const { pipe, read, write, close } = await import(${JSON.stringify(url)});
    const { read: from, write: to } = pipe();
    write(to, Uint8Array.of(1, 2, 3));
    const length = read(from, new Uint8Array(new SharedArrayBuffer(8)));
    close(from); close(to);
    let code; try { close(-1); } catch (error) { code = error.code; }
    parentPort.postMessage([length, code]);`;
  const results = await Promise.all(
    [1, 2, 3].map(
      () =>
        new Promise((resolve, reject) => {
          const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
          worker.once('message', resolve);
          worker.once('error', reject);
        }),
    ),
  );
  assert.deepEqual(results, [
    [3, 'EBADF'],
    [3, 'EBADF'],
    [3, 'EBADF'],
  ]);
});
