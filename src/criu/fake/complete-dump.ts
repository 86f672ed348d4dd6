/** A dump of a tree as Cairn makes it, with all its images in memory: what tests restore from. */

import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { close, pipe, read } from '../../linux/libc.ts';
import { readMemory } from '../../linux/memory.ts';
import { readStat } from '../../linux/process.ts';
import { socketPair } from '../../linux/socket.ts';
import { Program } from '../../linux/spawn.ts';
import { coveredCommand } from '../covered-command.ts';
import { type DumpOptions, dumpCommand } from '../dump-command.ts';
import { explainFailure } from '../explain.ts';
import type { Criu } from '../find.ts';
import { pagemapId } from '../image-file.ts';
import { readLog } from '../log.ts';
import { MappingCover, type ShortenedMapping } from '../mapping-cover.ts';
import { decodePagemap, encodePagemap, pageFlags, runFields, withLazyPages } from '../pagemap.ts';
import { StreamCapture } from '../stream-capture.ts';
import type { SelfCheckingProgram } from './self-checking-program.ts';

export const pageSize = 4096;

/** Content of each image by its name. */
export type Images = Map<string, Buffer>;

/** A dump of the program into the streamer that listens in its directory. */
export function streamedDump(subject: SelfCheckingProgram): DumpOptions {
  return {
    pid: subject.pid,
    imageDirectory: subject.directory,
    logFile: 'dump.log',
    afterwards: 'run',
    stream: true,
  };
}

/**
 * Dumps with streamer and page socket, reads the lazy pages itself, and returns complete images. `whileFrozen` gets them as CRIU wrote
 * them, and what was shortened of the mappings of the processes `covered` (`MappingCover`): then the images are not complete.
 */
export async function dump(
  t: TestContext,
  criu: Criu,
  subject: SelfCheckingProgram,
  {
    whileFrozen,
    covered = [],
  }: {
    whileFrozen?: (images: Images, shortened: ReadonlyMap<number, ShortenedMapping[]>) => void;
    covered?: readonly number[];
  } = {},
): Promise<Images> {
  const chunks = new Map<string, Buffer[]>();
  const [ours, theirs] = socketPair();
  const status = pipe();
  using capture = new StreamCapture(subject.directory);
  capture.watch(status.read);
  const covers = covered.flatMap((pid) => MappingCover.create(subject.directory, pid) ?? []);
  const shortened = new Map<number, ShortenedMapping[]>();
  const serveCovers = () => {
    for (const cover of covers) {
      const cut = cover.serve();
      if (cut !== undefined) shortened.set(cover.cover.pid, cut);
    }
  };
  const started = performance.now();
  await using run = new Program(
    coveredCommand(
      [criu.path, ...dumpCommand({ ...streamedDump(subject), lazySocket: 3, statusDescriptor: 4 })],
      covers.map(({ cover }) => cover),
    ),
    { descriptors: [theirs, status.write] },
  );
  close(theirs);
  close(status.write);
  let said = 0;
  const take = (events: ReturnType<StreamCapture['poll']>) => {
    for (const event of events) {
      if (event.kind === 'open') chunks.set(event.name, []);
      if (event.kind === 'data') chunks.get(event.name)?.push(Buffer.from(event.bytes));
      if (event.kind === 'ready') {
        said = read(event.fd, new Uint8Array(1)) ?? 0;
        capture.unwatch(event.fd);
        return true;
      }
      if (event.kind === 'finished') return true;
    }
    return false;
  };
  while (!take(capture.poll(covers.some(({ served }) => !served) ? 1 : 20))) {
    serveCovers();
    await setImmediate();
  }
  for (const cover of covers) cover[Symbol.dispose]();
  if (said === 0) {
    const failure = { attempt: 'Dump', end: await run.ended, log: readLog(`${subject.directory}/dump.log`) };
    throw explainFailure(failure);
  }
  take(capture.drain(5000));
  const frozenMs = performance.now() - started;
  for (const pid of subject.tree) assert.equal(readStat(pid)?.state, 't', 'frozen while CRIU waits');

  const images: Images = new Map();
  for (const [name, parts] of chunks) images.set(name, Buffer.concat(parts));
  whileFrozen?.(images, shortened);
  const bytes = fillLazyPages(images);
  t.diagnostic(
    `images after ${frozenMs.toFixed(0)} ms, ${(bytes / 2 ** 20).toFixed(0)} MiB read from frozen memory`,
  );
  close(ours);
  close(status.read);
  assert.equal((await run.ended).exitCode, 0, readLog(`${subject.directory}/dump.log`));
  return images;
}

/** Puts the pages that CRIU left out into the pages images; returns how many bytes. */
function fillLazyPages(images: Images): number {
  let bytes = 0;
  for (const [name, image] of images) {
    const id = pagemapId(name);
    if (id?.kind !== 'process') continue;
    const pagemap = decodePagemap(image, name);
    const pagesName = `pages-${pagemap.pagesId}.img`;
    const eager = images.get(pagesName) ?? Buffer.alloc(0);
    const parts: Buffer[] = [];
    let offset = 0;
    for (let i = 0; i < pagemap.runs.length; i += runFields) {
      const [address = 0, pages = 0, flags = 0] = pagemap.runs.subarray(i, i + runFields);
      const length = pages * pageSize;
      if ((flags & pageFlags.present) !== 0) {
        parts.push(eager.subarray(offset, offset + length));
        offset += length;
      } else if ((flags & pageFlags.lazy) !== 0) {
        const part = Buffer.alloc(length);
        assert.equal(readMemory(id.id, part, BigUint64Array.of(BigInt(address), BigInt(length)), 1), length);
        parts.push(part);
        bytes += length;
      }
    }
    assert.equal(offset, eager.length, `${pagesName} holds what ${name} says`);
    images.set(pagesName, Buffer.concat(parts));
    images.set(name, Buffer.from(encodePagemap({ ...pagemap, runs: withLazyPages(pagemap.runs) })));
  }
  return bytes;
}
