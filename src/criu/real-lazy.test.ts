/** A restore whose memory comes later, with CRIU itself. Needs root and a CRIU (CAIRN_CRIU, or as `findCriu` finds it). */

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { readTree } from '../linux/process.ts';
import { Program } from '../linux/spawn.ts';
import { dump, pageSize } from './fake/complete-dump.ts';
import { criuOrSkip, mebibytes, SelfCheckingProgram } from './fake/self-checking-program.ts';
import { pagemapId } from './image-file.ts';
import { LazyRanges } from './lazy-ranges.ts';
import { LazyServer } from './lazy-server.ts';
import { readLog } from './log.ts';
import { decodePagemap, encodePagemap, pageFlags, runFields, withoutLazyPages } from './pagemap.ts';
import { restoreCommand } from './restore-command.ts';

test('R23 a restore that does not wait for memory gets it on demand and in the background', async (t) => {
  const criu = await criuOrSkip(t);
  if (criu === undefined) return;
  const subject = new SelfCheckingProgram(t);
  await subject.ready();
  const images = await dump(t, criu, subject);
  await subject.kill();

  const directory = `${subject.directory}/lazy`;
  mkdirSync(directory);
  const memory = new Map<number, { runs: Float64Array<ArrayBufferLike>; pages: Buffer }>();
  const eagerPages = new Map<string, Buffer>();
  for (const [name, image] of images) {
    const id = pagemapId(name);
    if (id?.kind !== 'process') continue;
    const pagemap = decodePagemap(image, name);
    const pagesName = `pages-${pagemap.pagesId}.img`;
    const pages = images.get(pagesName) ?? Buffer.alloc(0);
    memory.set(id.id, { runs: pagemap.runs, pages });
    const runs = withoutLazyPages(pagemap.runs);
    const eager: Buffer[] = [];
    for (let i = 0, offset = 0; i < runs.length; i += runFields) {
      const length = (runs[i + 1] ?? 0) * pageSize;
      if (((runs[i + 2] ?? 0) & pageFlags.present) !== 0) eager.push(pages.subarray(offset, offset + length));
      offset += length;
    }
    eagerPages.set(pagesName, Buffer.concat(eager));
    eagerPages.set(name, Buffer.from(encodePagemap({ ...pagemap, runs })));
  }
  for (const [name, image] of images) writeFileSync(`${directory}/${name}`, eagerPages.get(name) ?? image);

  using server = new LazyServer(directory, {
    ranges(pid) {
      const { runs } = memory.get(pid) ?? assert.fail(`asked for process ${pid}`);
      const pairs: number[] = [];
      for (let i = 0; i < runs.length; i += runFields)
        if (((runs[i + 2] ?? 0) & pageFlags.lazy) !== 0)
          pairs.push(runs[i] ?? 0, (runs[i] ?? 0) + (runs[i + 1] ?? 0) * pageSize);
      return new LazyRanges(pairs);
    },
    read(pid, address, pages, into) {
      const { runs, pages: content } = memory.get(pid) ?? assert.fail(`asked for process ${pid}`);
      for (let i = 0, offset = 0; i < runs.length; i += runFields) {
        const [start = 0, count = 0] = runs.subarray(i, i + 2);
        const end = start + count * pageSize;
        if (address >= start && address < end) {
          const given = Math.min(pages, (end - address) / pageSize);
          const at = offset + address - start;
          into.set(content.subarray(at, at + given * pageSize));
          return given;
        }
        offset += count * pageSize;
      }
      assert.fail(`asked for ${address.toString(16)} of process ${pid}`);
    },
  });
  const started = performance.now();
  await using run = new Program([
    criu.path,
    ...restoreCommand({
      imageDirectory: directory,
      workDirectory: directory,
      logFile: 'restore.log',
      detached: true,
      lazyPages: true,
    }),
  ]);
  let restoredMs = 0;
  let served = 0;
  for (let finished = false; !finished; ) {
    if (restoredMs === 0 && !run.running) restoredMs = performance.now() - started;
    for (const event of server.poll(2)) {
      if (event.kind === 'pages') served += event.bytes;
      if (event.kind !== 'finished') continue;
      assert.ok(event.complete, readLog(`${directory}/restore.log`));
      finished = true;
    }
    await setImmediate();
  }
  t.diagnostic(
    `runs after ${restoredMs.toFixed(0)} ms, whole after ${(performance.now() - started).toFixed(0)} ms`,
  );
  assert.ok(served >= 2 * mebibytes * 2 ** 20, `${served} bytes served`);
  assert.equal((await run.ended).exitCode, 0, readLog(`${directory}/restore.log`));
  assert.deepEqual(readTree(subject.pid), subject.tree);
  await subject.verify();
});
