import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify, stripVTControlCharacters } from 'node:util';
import test from 'node:test';
import { CairnError } from '../errors.ts';
import { commands } from './commands.ts';
import { completionScript, shells } from './completion-script.ts';
import { DetachKeys } from './detach-keys.ts';
import { environmentFrom } from './environment.ts';
import { formatAge, formatBytes, formatCommand, formatDuration, formatTable } from './format.ts';
import { parseSince } from './logs.ts';
import { ProgressDisplay } from './progress.ts';
import { exitCodeFor, renderError } from './report-error.ts';

const main = new URL('./main.mjs', import.meta.url).pathname;

/** Runs `cairn` as a process of its own. */
async function cairn(...words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const options = { env: { ...process.env, CAIRN_RUN: '/nonexistent/cairn', NO_COLOR: '1' } };
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [main, ...words], options);
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, stdout, stderr };
  }
}

test('cairn alone, --help and help say what there is', async () => {
  for (const words of [[], ['--help'], ['help']]) {
    const { code, stdout } = await cairn(...words);
    assert.equal(code, 0);
    for (const { name } of commands) assert.match(stdout, new RegExp(`^  ${name} `, 'm'));
  }
  assert.match((await cairn('help', 'run')).stdout, /--rootfs WHAT/);
});

test('every command explains itself with examples, and has the name and summary of the list', async () => {
  for (const listed of commands) {
    const command = await listed.load();
    assert.equal(command.name, listed.name);
    assert.equal(command.summary.toLowerCase(), listed.summary.toLowerCase());
    assert.ok(command.examples.length > 0, `${command.name} has examples`);
    const { commandHelp } = await import('./help.ts');
    const help = commandHelp(command);
    for (const { name } of command.options)
      assert.ok(help.includes(`--${name}`), `${command.name} --${name}`);
    for (const { command: line } of command.examples) assert.match(line, /cairn/);
  }
  const { code, stdout } = await cairn('checkpoint', '--help');
  assert.equal(code, 0);
  assert.match(stdout, /Usage: cairn checkpoint \[OPTIONS\] JOB/);
});

test('R22 each class of failure has its exit code, and the message says what to do', async () => {
  assert.deepEqual(
    (['argument', 'temporary', 'permanent', 'environment'] as const).map((errorClass) =>
      exitCodeFor(new CairnError(errorClass, 'x', 'x')),
    ),
    [2, 3, 4, 5],
  );
  assert.equal(exitCodeFor(new CairnError('permanent', 'internal', 'x')), 1);
  assert.equal(exitCodeFor(new TypeError('x')), 1);
  const error = new CairnError('permanent', 'dump-failed', 'The dump failed.', {
    lines: ['line'],
    remedy: 'Do this.',
  });
  assert.equal(
    renderError(error, { json: false, color: false }),
    'error: The dump failed.\n  line\n→ Do this.\n',
  );
  assert.deepEqual(JSON.parse(renderError(error, { json: true, color: false })), {
    error: {
      class: 'permanent',
      code: 'dump-failed',
      message: 'The dump failed.',
      remedy: 'Do this.',
      lines: ['line'],
    },
  });
});

test('without a daemon every command that needs one ends with 5 and says how to start it', async () => {
  for (const words of [['jobs'], ['snapshots'], ['checkpoint', 'x'], ['run', '--', 'true'], ['logs', 'x']]) {
    const { code, stderr, stdout } = await cairn(...words);
    assert.equal(code, 5, words.join(' '));
    assert.equal(stdout, '');
    assert.match(stderr, /^error: .*\n→ .*cairn node/);
  }
  const { code, stderr } = await cairn('jobs', '--json');
  assert.equal(code, 5);
  assert.equal(JSON.parse(stderr).error.code, 'node-not-running');
});

test('a wrong call ends with 2 before anybody is asked', async () => {
  for (const words of [
    ['jbos'],
    ['jobs', '--x'],
    ['restart', 'a/b'],
    ['restart', 'x@0'],
    ['inspect'],
    ['checkpoint', 'x', '--then', 'y'],
  ]) {
    assert.equal((await cairn(...words)).code, 2, words.join(' '));
  }
  assert.match((await cairn('snapshot')).stderr, /Did you mean "cairn snapshots"/);
});

test('a job file with mistakes is refused with their lines', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-cli-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const file = join(directory, 'job.yaml');
  await writeFile(file, 'name: x\ncommand: [a]\nkeep: 3\n');
  const { code, stderr } = await cairn('run', '-d', '-f', file);
  assert.equal(code, 2);
  assert.ok(stderr.includes(`${file}:3:1: keep is not known`), stderr);
});

test('version is that of package.json', async () => {
  const { stdout } = await cairn('version', '--json');
  assert.match(JSON.parse(stdout).cairn, /^\d+\.\d+\.\d+$/);
});

test('the client loads nothing that only the daemon needs', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--input-type=module',
    '-e',
    `import { registerHooks } from 'node:module';
     const seen = [];
     registerHooks({ load(url, context, next) { seen.push(url); return next(url, context); } });
     const { runCommandLine } = await import(${JSON.stringify(new URL('./run-command-line.ts', import.meta.url).href)});
     process.env.CAIRN_RUN = '/nonexistent';
     await runCommandLine(['checkpoint', 'x']);
     console.log(JSON.stringify([...seen, ...process.moduleLoadList]));`,
  ]);
  const seen: string[] = JSON.parse(stdout);
  assert.deepEqual(
    seen.filter((url) => url.includes('node_modules')),
    [],
  );
  const files = seen.filter((url) => url.startsWith('file:'));
  assert.ok(files.length > 5 && files.length < 25, `${files.length} files`);
  // Takes several times what the rest of a command takes.
  assert.deepEqual(
    seen.filter((name) => name.includes('undici/undici')),
    [],
  );
  assert.ok(seen.some((name) => name.includes('_http_client')));
});

test('completion knows every command and option in every shell', async (t) => {
  const all = await Promise.all(commands.map((command) => command.load()));
  for (const shell of shells) {
    const script = completionScript(shell, all);
    for (const { name, options } of all) {
      assert.ok(script.includes(name));
      for (const option of options)
        assert.ok(script.includes(option.name), `${shell} ${name} ${option.name}`);
    }
    const check = spawnSync(shell, ['-n', '-c', script], { encoding: 'utf8' });
    if (check.error !== undefined) t.diagnostic(`${shell} is not installed: its syntax was not checked`);
    else assert.equal(check.status, 0, check.stderr);
  }
  assert.equal((await cairn('completion', 'tcsh')).code, 2);
});

test('bash completes commands, options and values', async () => {
  const script = completionScript('bash', await Promise.all(commands.map((command) => command.load())));
  const complete = (...words: string[]): string[] => {
    const ask = `COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _cairn; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const result = spawnSync('bash', ['-c', `${script}\n${ask}`], { encoding: 'utf8' });
    assert.equal(result.status, 0, result.stderr);
    return result.stdout.trim().split('\n');
  };
  assert.deepEqual(complete('cairn', 'ch'), ['checkpoint']);
  assert.deepEqual(complete('cairn', 'checkpoint', '--the'), ['--then']);
  assert.deepEqual(complete('cairn', 'checkpoint', '--then', ''), ['continue', 'stop', 'terminate']);
  assert.deepEqual(complete('cairn', 'completion', 'z'), ['zsh']);
});

test('Ctrl-P Ctrl-Q leaves, also in pieces; everything else is passed on', () => {
  const keys = new DetachKeys();
  const push = (...bytes: number[]): [number[], boolean] => {
    const { pass, detached } = keys.push(Uint8Array.from(bytes));
    return [[...pass], detached];
  };
  assert.deepEqual(push(1, 2), [[1, 2], false]);
  assert.deepEqual(push(0x10), [[], false]);
  assert.deepEqual(push(65), [[0x10, 65], false]);
  assert.deepEqual(push(0x10, 0x10), [[0x10], false]);
  assert.deepEqual(push(0x11, 66), [[], true]);
});

test('sizes, times, tables and command lines are readable', () => {
  assert.deepEqual([0, 1023, 1024, 1_500_000, 2 ** 40].map(formatBytes), [
    '0 B',
    '1023 B',
    '1.0 KiB',
    '1.4 MiB',
    '1.0 TiB',
  ]);
  assert.deepEqual([1.26, 45, 2100, 61_000, 7_200_000].map(formatDuration), [
    '1.3 ms',
    '45 ms',
    '2.1 s',
    '1 min',
    '2 h',
  ]);
  assert.equal(formatAge('2026-11-27T10:00:00Z', Date.parse('2026-11-27T10:00:05Z')), '5 s ago');
  assert.equal(formatAge('', 0), '-');
  assert.equal(
    formatTable(
      ['A', 'B'],
      [
        ['1', '2'],
        ['long', 'x'],
      ],
    ),
    'A      B\n1      2\nlong   x\n',
  );
  assert.equal(formatCommand(['sh', '-c', "echo 'a b'"]), `sh -c 'echo '\\''a b'\\'''`);
  assert.equal(parseSince('10m', 600_000), 0);
  assert.equal(parseSince('10m ago', 600_000), 0);
  assert.equal(parseSince('2026-11-27T10:00:00Z', 0), Date.parse('2026-11-27T10:00:00Z'));
  assert.deepEqual(environmentFrom(['A=1=2', 'B', 'C'], { B: 'own' }), { A: '1=2', B: 'own' });
});

test('progress is one changing line on a terminal, plain lines elsewhere', () => {
  const show = (terminal: boolean): string => {
    let text = '';
    let now = 0;
    {
      using display = new ProgressDisplay({
        terminal,
        write: (piece) => (text += piece),
        now: () => (now += 50),
      });
      display.show({ kind: 'phase', phase: 'freeze', atMs: 1 });
      for (const doneBytes of [0, 512, 1024])
        display.show({ kind: 'progress', phase: 'publish', doneBytes, totalBytes: 1024 });
      display.show({ kind: 'warning', message: 'watch out' });
    }
    return text;
  };
  assert.equal(stripVTControlCharacters(show(false)), 'freezing\nwriting the snapshot\nwarning: watch out\n');
  const drawn = show(true);
  assert.ok(drawn.includes('\r\x1b[Kwriting the snapshot  0 B of 1.0 KiB (0 %)'));
  assert.ok(!stripVTControlCharacters(drawn).includes('freezing\n'));
});
