import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { type TestContext, test } from 'node:test';
import { close, eventfd, pipe, signalEventfd } from '../linux/libc.ts';
import { readDescriptors } from '../linux/process-descriptors.ts';
import { Program } from '../linux/spawn.ts';
import { dumpCommand } from './dump-command.ts';
import { type CriuRun, ScriptedCriu } from './fake/scripted-criu.ts';
import { restoreCommand } from './restore-command.ts';
import { type CaptureEvent, StreamCapture } from './stream-capture.ts';
import { type ServeEvent, StreamServe } from './stream-serve.ts';

function scratch(t: TestContext): string {
  const directory = mkdtempSync('/tmp/cairn-criu-');
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Descriptors of this process, for the leak check; Node.js's own (epoll, eventfd) stay the same. */
function openDescriptors(): string[] {
  return (readDescriptors('self') ?? [])
    .map(({ target }) => target)
    .filter((target) => /^(socket|pipe)/.test(target))
    .sort();
}

type Event = CaptureEvent | ServeEvent;

/** An event whose bytes are not reused. */
function kept<E extends Event>(event: E): E {
  return event.kind === 'data' ? { ...event, bytes: event.bytes.slice() } : event;
}

/** Polls until a condition holds; fails after ten seconds. */
async function until<E extends Event>(
  poll: (timeoutMs: number) => Iterable<E>,
  done: (event: E) => boolean,
): Promise<E[]> {
  const events: E[] = [];
  for (const deadline = Date.now() + 10_000; Date.now() < deadline; ) {
    for (const event of poll(1)) {
      events.push(kept(event));
      if (done(event)) return events;
    }
    await setImmediate();
  }
  throw new Error(`timed out after ${events.map((event) => event.kind).join(' ')}`);
}

const isEnd = (event: Event) => event.kind === 'finished';

async function startDump(t: TestContext, descriptors: number[] = [], statusDescriptor?: number) {
  const directory = scratch(t);
  const fake = await ScriptedCriu.create();
  t.after(() => fake[Symbol.asyncDispose]());
  const capture = new StreamCapture(directory);
  t.after(() => capture[Symbol.dispose]());
  const command = dumpCommand({
    pid: 1,
    imageDirectory: directory,
    logFile: 'dump.log',
    afterwards: 'run',
    stream: true,
    ...(statusDescriptor === undefined ? {} : { statusDescriptor }),
  });
  const program = new Program([fake.path, ...command], { descriptors });
  t.after(() => program[Symbol.asyncDispose]());
  return { directory, fake, capture, program, run: await fake.nextRun() };
}

function contentOf(events: readonly Event[], name: string): Buffer {
  const parts = events.flatMap((event) =>
    event.kind === 'data' && event.name === name ? [event.bytes] : [],
  );
  return Buffer.concat(parts);
}

test('images of a dump arrive whole, several open at a time', async (t) => {
  const { directory, capture, run, program } = await startDump(t);
  const big = Buffer.alloc(3_000_000, 'abcdefg');
  const steps = (async () => {
    await run.do('open', { name: 'pages-1.img' });
    await run.do('open', { name: 'pages-2.img' });
    await run.do('write', { name: 'pages-1.img', data: Buffer.from('one').toString('base64') });
    await run.do('write', { name: 'pages-2.img', data: Buffer.from('two').toString('base64') });
    await run.sendImage('pagemap-5.img', big);
    await run.do('write', { name: 'pages-1.img', data: Buffer.from(' more').toString('base64') });
    await run.do('end', { name: 'pages-1.img' });
    await run.do('end', { name: 'pages-2.img' });
    await run.sendImage('empty.img', Buffer.alloc(0));
    await run.end({ code: 0 });
  })();
  const events = await until((ms) => capture.poll(ms), isEnd);
  await steps;
  assert.equal((await program.ended).exitCode, 0);
  assert.equal(events[0]?.kind, 'connected');
  assert.equal(contentOf(events, 'pages-1.img').toString(), 'one more');
  assert.equal(contentOf(events, 'pages-2.img').toString(), 'two');
  assert.ok(contentOf(events, 'pagemap-5.img').equals(big));
  const opened = events.flatMap((event) => (event.kind === 'open' ? [event.name] : []));
  const ended = events.flatMap((event) => (event.kind === 'end' ? [event.name] : []));
  assert.deepEqual(opened.sort(), ended.sort());
  assert.equal(opened.length, 4);
  assert.equal(capture.openStreams, 0);
  assert.deepEqual([...capture.poll(0)], [], 'nothing after the end');
  assert.ok(!existsSync(`${directory}/streamer-capture.sock`));
});

test('a request in pieces is put together', async (t) => {
  const { capture, run } = await startDump(t);
  const request = Buffer.from([8, 0, 0, 0, 0x0a, 6, ...Buffer.from('fs.img')]);
  for (const byte of request) await run.do('raw', { data: Buffer.of(byte).toString('base64') });
  for (let i = 0; i < 3; i++)
    assert.deepEqual(
      [...capture.poll(5)].filter(({ kind }) => kind !== 'connected'),
      [],
    );
  await run.do('hangUp');
  const events = await until((ms) => capture.poll(ms), isEnd);
  assert.equal(events.length, 1);
});

test('the status descriptor and an eventfd are reported; drain takes what was already sent', async (t) => {
  const status = pipe();
  const wake = eventfd();
  t.after(() => [status.read, wake].forEach(close));
  const { capture, run } = await startDump(t, [status.write], 3);
  close(status.write);
  capture.watch(status.read);
  capture.watch(wake);
  signalEventfd(wake);
  assert.ok([...capture.poll(1000)].some((event) => event.kind === 'ready' && event.fd === wake));
  capture.unwatch(wake);
  const steps = (async () => {
    await run.do('open', { name: 'late.img' });
    await run.do('status');
  })();
  const events = await until(
    (ms) => capture.poll(ms),
    (event) => event.kind === 'ready',
  );
  await steps;
  capture.unwatch(status.read);
  // An image that stays open makes drain fail after its time, and names it.
  assert.throws(() => events.push(...capture.drain(30)), { code: 'criu-timeout', message: /late\.img/ });
  await run.do('write', { name: 'late.img', data: Buffer.from('x').toString('base64') });
  await run.do('end', { name: 'late.img' });
  for (const event of capture.drain(5000)) events.push(kept(event));
  assert.equal(contentOf(events, 'late.img').toString(), 'x');
  assert.equal(capture.openStreams, 0);
});

test('R19 a crash of CRIU ends every image; disposing leaves no descriptor open', async (t) => {
  const before = openDescriptors();
  const { capture, fake, run, program } = await startDump(t);
  await run.do('open', { name: 'pages-1.img' });
  await run.do('write', { name: 'pages-1.img', data: 'AAAA' });
  await run.end({ signal: 'SIGKILL' });
  const events = await until((ms) => capture.poll(ms), isEnd);
  assert.ok(events.some((event) => event.kind === 'end' && event.name === 'pages-1.img'));
  assert.equal((await program.ended).signal, 'SIGKILL');
  capture[Symbol.dispose]();
  await fake[Symbol.asyncDispose]();
  assert.deepEqual(openDescriptors().length, before.length);
});

test('X06 a name with a slash, and an endless request, are refused', async (t) => {
  for (const raw of [
    Buffer.from([7, 0, 0, 0, 0x0a, 5, ...Buffer.from('../ab')]),
    Buffer.from([255, 255, 255, 127, 1, 2, 3]),
    Buffer.from([2, 0, 0, 0, 0x0a, 9]),
  ]) {
    const { capture, run } = await startDump(t);
    await run.do('raw', { data: raw.toString('base64') });
    await assert.rejects(
      until((ms) => capture.poll(ms), isEnd),
      (error: Error & { code?: string }) => ['criu-protocol', 'image-damaged'].includes(error.code ?? ''),
    );
  }
});

async function startRestore(
  t: TestContext,
  images: Map<string, Buffer>,
): Promise<{ serve: StreamServe; run: CriuRun }> {
  const directory = scratch(t);
  const fake = await ScriptedCriu.create();
  t.after(() => fake[Symbol.asyncDispose]());
  const serve = new StreamServe(directory, {
    has: (name) => images.has(name),
    read(name, offset, into) {
      if (name === 'bad.img') throw new Error('chunk is damaged');
      const bytes = images.get(name)?.subarray(offset, offset + into.length) ?? Buffer.alloc(0);
      into.set(bytes);
      return bytes.length;
    },
  });
  t.after(() => serve[Symbol.dispose]());
  const command = restoreCommand({ imageDirectory: directory, logFile: 'restore.log', stream: true });
  const program = new Program([fake.path, ...command]);
  t.after(() => program[Symbol.asyncDispose]());
  return { serve, run: await fake.nextRun() };
}

test('images of a restore are served, missing ones are told, an early stop is no error', async (t) => {
  const big = Buffer.alloc(5_000_000, 'hijklmno');
  const images = new Map([
    ['inventory.img', Buffer.from('small')],
    ['pages-1.img', big],
    ['empty.img', Buffer.alloc(0)],
  ]);
  const { serve, run } = await startRestore(t, images);
  const got: (Buffer | undefined)[] = [];
  const steps = (async () => {
    for (const name of ['inventory.img', 'none.img', 'pages-1.img', 'empty.img'])
      got.push(await run.fetchImage(name));
    got.push(await run.fetchImage('pages-1.img', 70_000));
    await run.end({ code: 0 });
  })();
  const events = await until((ms) => serve.poll(ms), isEnd);
  await steps;
  assert.equal(got[0]?.toString(), 'small');
  assert.equal(got[1], undefined);
  assert.ok(got[2]?.equals(big));
  assert.equal(got[3]?.length, 0);
  assert.ok(got[4]?.equals(big.subarray(0, 70_000)));
  const ends = events.flatMap((event) => (event.kind === 'end' ? [[event.name, event.complete]] : []));
  assert.deepEqual(ends, [
    ['inventory.img', true],
    ['pages-1.img', true],
    ['empty.img', true],
    ['pages-1.img', false],
  ]);
  assert.ok(events.some((event) => event.kind === 'missing' && event.name === 'none.img'));
});

test('X06 a source that fails ends the restore with its own error', async (t) => {
  const { serve, run } = await startRestore(t, new Map([['bad.img', Buffer.from('x')]]));
  const step = run.fetchImage('bad.img').catch(() => undefined);
  await assert.rejects(
    until((ms) => serve.poll(ms), isEnd),
    /chunk is damaged/,
  );
  serve[Symbol.dispose]();
  assert.equal((await step)?.length ?? 0, 0);
});
