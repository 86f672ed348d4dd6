import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { readCommandLine } from './process.ts';
import { entryCommand, Program } from './spawn.ts';

test('descriptors arrive by number, last lines are kept, the exit code is told', async () => {
  const directory = mkdtempSync('/tmp/cairn-linux-');
  const file = openSync(`${directory}/out`, 'w+');
  await using program = new Program(['sh', '-c', 'echo a >&4; seq 1 50 >&2; echo last >&2; exit 7'], {
    descriptors: [file, file],
    keepLines: 5,
  });
  const end = await program.ended;
  assert.equal(end.exitCode, 7);
  assert.equal(end.lines.length, 5);
  assert.deepEqual(end.lines, ['47', '48', '49', '50', 'last']);
  assert.equal(readFileSync(`${directory}/out`, 'utf8'), 'a\n');
  closeSync(file);
  rmSync(directory, { recursive: true });
});

test('an abort ends the whole process group', async () => {
  const abort = new AbortController();
  await using program = new Program(['sh', '-c', 'sleep 60 & echo $!; wait'], { signal: abort.signal });
  const deadline = Date.now() + 5000;
  while (program.lines.length === 0 && Date.now() < deadline)
    await new Promise((resolve) => setTimeout(resolve, 5));
  const sleeper = Number(program.lines[0]);
  assert.equal(await program.waitFor(1), undefined);
  abort.abort();
  assert.equal((await program.ended).signal, 'SIGKILL');
  assert.equal(program.kill('SIGKILL'), false);
  const gone = () => {
    try {
      return /^State:\s+Z/m.test(readFileSync(`/proc/${sleeper}/status`, 'utf8'));
    } catch {
      return true;
    }
  };
  while (!gone() && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(gone());
});

test('a program that does not exist is told by its code', async () => {
  await using program = new Program(['/nonexistent/program']);
  await assert.rejects(program.ended, { code: 'ENOENT' });
});

test('the program is in its cgroups first; a refusal ends it with 125', async () => {
  const directory = mkdtempSync('/tmp/cairn-linux-');
  writeFileSync(`${directory}/a b`, '');
  const program = new Program(['sh', '-c', 'echo $$ $1', 'sh', 'x  y'], {
    cgroupFiles: [`${directory}/a b`],
  });
  const end = await program.ended;
  assert.deepEqual(end.lines, [`${program.pid} x y`]);
  assert.equal(readFileSync(`${directory}/a b`, 'utf8'), `${program.pid}\n`);
  const refused = await new Program(['true'], { cgroupFiles: [`${directory}/no/such`] }).ended;
  assert.equal(refused.exitCode, 125);
  assert.match(refused.lines.join(), /no\/such/);
  rmSync(directory, { recursive: true });
});

test('SIGPIPE can be ignored', async () => {
  const argv = ['sh', '-c', 'grep SigIgn /proc/self/status'];
  const bits = async (ignoreSigpipe: boolean) => {
    const { lines } = await new Program(argv, { ignoreSigpipe }).ended;
    return (Number.parseInt((lines[0] ?? '').slice(-4), 16) >> 12) & 1;
  };
  assert.equal(await bits(false), 0);
  assert.equal(await bits(true), 1);
  assert.deepEqual(entryCommand(['a', 'b'], {}), ['a', 'b']);
  assert.deepEqual(entryCommand(['a'], { newCgroupNamespace: true }), ['unshare', '--cgroup', 'a']);
});

test('a program can be made to end with the process that has started it', async () => {
  const source = `
    const { Program } = await import(${JSON.stringify(new URL('./spawn.ts', import.meta.url).href)});
    const program = new Program(['sleep', '60'], { endsWithParent: true });
    console.log(program.pid);
    setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = await once(parent.stdout, 'data');
  const child = Number(String(line));
  const command = () => readCommandLine(child)?.[0];
  const until = async (ready: () => boolean) => {
    for (let i = 0; i < 1000 && !ready(); i++) await delay(5);
    assert.ok(ready());
  };
  await until(() => command() === 'sleep');
  parent.kill('SIGKILL');
  await until(() => command() !== 'sleep');
});
