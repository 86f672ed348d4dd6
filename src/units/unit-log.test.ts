import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { parseLogLine, readLog } from './log-reader.ts';
import { timestamp, UnitLog } from './unit-log.ts';

function scratch() {
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-log-'));
  return { directory, [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) };
}

const large = { maxBytes: 2 ** 20, files: 3 };

async function linesOf(directory: string, options = {}) {
  const lines = [];
  for await (const line of readLog(directory, options)) lines.push(line);
  return lines;
}

test('lines have the form of the container runtime interface', () => {
  using place = scratch();
  {
    using log = new UnitLog(place.directory, large);
    log.write('stdout', Buffer.from('one\ntw'));
    log.write('stderr', Buffer.from('err\n'));
    log.write('stdout', Buffer.from('o\n\nrest'));
  }
  const text = readFileSync(path.join(place.directory, 'unit.log'), 'utf8');
  const time = '\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{9}Z';
  const expected = ['stdout F one', 'stderr F err', 'stdout F two', 'stdout F ', 'stdout P rest'];
  assert.match(text, new RegExp(`^${expected.map((line) => `${time} ${line}\n`).join('')}$`));
  assert.equal(timestamp(1_795_802_251_741.9756), '2026-11-27T17:57:31.741975585Z');
});

test('a long line is written in parts and is read as such', async () => {
  using place = scratch();
  const long = 'x'.repeat(40_000);
  {
    using log = new UnitLog(place.directory, large);
    for (let at = 0; at < long.length; at += 1000)
      log.write('stdout', Buffer.from(long.slice(at, at + 1000)));
    log.write('stdout', Buffer.from('\nend\n'));
  }
  const lines = await linesOf(place.directory);
  assert.deepEqual(
    lines.map((line) => [line.partial, line.text.length]),
    [
      [true, 16384],
      [true, 16384],
      [false, 7232],
      [false, 3],
    ],
  );
  assert.equal(parseLogLine('nonsense'), undefined);
});

test('a piece that is written into again afterwards does not change what was logged', async () => {
  using place = scratch();
  const shared = Buffer.from('abc');
  {
    using log = new UnitLog(place.directory, large);
    log.write('stdout', shared);
    shared.fill('z');
    log.write('stdout', Buffer.from('\n'));
  }
  assert.equal((await linesOf(place.directory))[0]?.text, 'abc');
});

test('rotation keeps so many files of at most that size, and reading goes over all of them', async () => {
  using place = scratch();
  {
    using log = new UnitLog(place.directory, { maxBytes: 4096, files: 3 });
    for (let i = 0; i < 500; i++) log.write('stdout', Buffer.from(`line ${i}\n`));
  }
  {
    // A restart goes on in the same file.
    using log = new UnitLog(place.directory, { maxBytes: 4096, files: 3 });
    log.write('stdout', Buffer.from('line 500\n'));
  }
  const files = readdirSync(place.directory).sort();
  assert.deepEqual(files, ['unit.log', 'unit.log.1', 'unit.log.2']);
  for (const file of files) assert.ok(readFileSync(path.join(place.directory, file)).length <= 4096);
  const lines = await linesOf(place.directory);
  const first = Number(lines[0]?.text.slice(5));
  assert.deepEqual(
    lines.map((line) => line.text),
    Array.from({ length: 501 - first }, (_, i) => `line ${first + i}`),
  );
  assert.deepEqual(
    (await linesOf(place.directory, { tail: 2 })).map((l) => l.text),
    ['line 499', 'line 500'],
  );
  assert.deepEqual(await linesOf(place.directory, { since: Date.now() + 60_000 }), []);
});

test('following sees what is written later, over rotations, and ends when nothing more will come', async () => {
  using place = scratch();
  const total = 300;
  let written = 0;
  using log = new UnitLog(place.directory, { maxBytes: 4096, files: 10 });
  const ended = async () => {
    // Asked when all there is has been read: then more is written, until all is written.
    if (written === total) return true;
    for (let i = 0; i < 20; i++) log.write('stdout', Buffer.from(`line ${written++}\n`));
    return false;
  };
  const lines = await linesOf(place.directory, { follow: true, ended, signal: AbortSignal.timeout(20_000) });
  assert.deepEqual(
    lines.map((line) => line.text),
    Array.from({ length: total }, (_, i) => `line ${i}`),
  );
});
