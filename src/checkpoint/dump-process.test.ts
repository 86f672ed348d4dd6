import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { MappingCover } from '../criu/mapping-cover.ts';
import { fcntl } from '../linux/libc.ts';
import { DumpProcess } from './dump-process.ts';

const F_GETLEASE = 1025;
const F_WRLCK = 1;

test('R20 the end of a dump leaves the covers of another one alone', async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const criu = path.join(directory, 'criu');
  writeFileSync(criu, '#!/bin/sh\nexit 0\n', { mode: 0o755 });
  const covers: MappingCover[] = [];
  const cover = (place: string) => {
    const made = MappingCover.create(place, process.pid) ?? assert.fail('no leases here');
    covers.push(made);
    return made;
  };
  const dump = await DumpProcess.start(
    criu,
    path.join(directory, 'dump'),
    { pid: process.pid, afterwards: 'run', hold: false },
    async (place) => [cover(place).cover],
  );
  // As the worker does, when it hangs up; the next dump gets the same number for its cover.
  const number = covers[0]?.cover.fd ?? assert.fail();
  covers[0]?.[Symbol.dispose]();
  const fillers: number[] = [];
  while (fillers.at(-1) !== number) fillers.push(openSync('/dev/null', 'r'));
  closeSync(number);
  fillers.pop();
  t.after(() => fillers.forEach((fd) => closeSync(fd)));
  using other = cover(directory);
  assert.equal(other.cover.fd, number, 'not the case that is to be shown');
  await dump[Symbol.asyncDispose]();
  assert.equal(fcntl(other.cover.fd, F_GETLEASE), F_WRLCK);
});
