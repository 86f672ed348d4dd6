/** The image streamer against CRIU itself. Needs root and a CRIU (CAIRN_CRIU, or as `findCriu` finds it). */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { readTree } from '../linux/process.ts';
import { Program } from '../linux/spawn.ts';
import { dumpCommand } from './dump-command.ts';
import { explainFailure } from './explain.ts';
import { dump, streamedDump } from './fake/complete-dump.ts';
import { criuOrSkip, SelfCheckingProgram } from './fake/self-checking-program.ts';
import { readLog } from './log.ts';
import { decodeCore, decodeInventory, decodeTaskTree } from './messages.ts';
import { restoreCommand } from './restore-command.ts';
import { decodeDumpStats } from './stats.ts';
import { StreamCapture } from './stream-capture.ts';
import { StreamServe } from './stream-serve.ts';

test('R04 R06 a dump through the streamer is restored from the streamer, twice', async (t) => {
  const criu = await criuOrSkip(t);
  if (criu === undefined) return;
  const subject = new SelfCheckingProgram(t);
  await subject.ready();
  const images = await dump(t, criu, subject);
  await subject.verify();
  assert.equal(decodeInventory(images.get('inventory.img') ?? Buffer.alloc(0)).imageVersion, 2);
  const tasks = decodeTaskTree(images.get('pstree.img') ?? Buffer.alloc(0));
  assert.deepEqual(
    tasks.map(({ pid }) => pid),
    subject.tree,
  );
  const core = images.get(`core-${subject.pid}.img`) ?? Buffer.alloc(0);
  assert.deepEqual(decodeCore(core), { name: 'perl', state: 1, exitCode: 0 });

  for (const round of [1, 2]) {
    await subject.kill();
    const directory = `${subject.directory}/restore-${round}`;
    mkdirSync(directory);
    using serve = new StreamServe(directory, {
      has: (name) => images.has(name),
      read(name, offset, into) {
        const bytes = images.get(name)?.subarray(offset, offset + into.length) ?? Buffer.alloc(0);
        into.set(bytes);
        return bytes.length;
      },
    });
    const started = performance.now();
    await using run = new Program([
      criu.path,
      ...restoreCommand({ imageDirectory: directory, logFile: 'restore.log', stream: true, detached: true }),
    ]);
    let finished = false;
    while (!finished) {
      for (const event of serve.poll(20)) {
        finished ||= event.kind === 'finished';
        if (event.kind === 'end') assert.ok(event.complete, `${event.name} was read to its end`);
      }
      await setImmediate();
    }
    assert.equal((await run.ended).exitCode, 0, readLog(`${directory}/restore.log`));
    t.diagnostic(`restore ${round}: ${(performance.now() - started).toFixed(0)} ms`);
    assert.deepEqual(readTree(subject.pid), subject.tree);
    await subject.verify();
  }
});

test('R18 what cannot be saved is explained; the program runs on', async (t) => {
  const criu = await criuOrSkip(t);
  if (criu === undefined) return;
  const subject = new SelfCheckingProgram(t);
  await subject.ready();
  // The child is no session leader: a tree that begins there belongs to a session outside it.
  const child = subject.tree[1] ?? 0;
  await using run = new Program([
    criu.path,
    ...dumpCommand({ pid: child, imageDirectory: subject.directory, logFile: 'dump.log', afterwards: 'run' }),
  ]);
  const end = await run.ended;
  assert.notEqual(end.exitCode, 0);
  const log = readLog(`${subject.directory}/dump.log`);
  const error = explainFailure({ attempt: 'Dump of job x', end, log });
  assert.equal(error.code, 'session-outside', log);
  await subject.verify();
});

test('R21 closing the sockets ends a dump; the program runs on', async (t) => {
  const criu = await criuOrSkip(t);
  if (criu === undefined) return;
  const subject = new SelfCheckingProgram(t);
  await subject.ready();
  const capture = new StreamCapture(subject.directory);
  await using run = new Program([criu.path, ...dumpCommand(streamedDump(subject))]);
  let opened = false;
  while (!opened) {
    for (const event of capture.poll(20)) opened ||= event.kind === 'data' && event.name.startsWith('pages-');
    await setImmediate();
  }
  capture[Symbol.dispose]();
  assert.notEqual((await run.ended).exitCode, 0);
  const stats = `${subject.directory}/stats-dump`;
  assert.ok(!existsSync(stats) || decodeDumpStats(readFileSync(stats)) !== undefined);
  await subject.verify();
});
