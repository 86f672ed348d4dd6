import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { collectBelongings, findLeaks } from './test-leaks.ts';

const staged = {
  'good.test.mjs': `import { test, suite } from 'node:test';
test('passes', () => {});
suite('a suite', () => { test('passes too', () => {}); });
test('skipped for a reason', (t) => t.skip('no huge pages here'));
test('skipped without one', { skip: true }, () => {});`,
  'bad.test.mjs': `import { test } from 'node:test';
console.log('last words');
test('fails', () => { throw Object.assign(new Error('broken promise'), { code: 'E1', lines: ['detail'] }); });
test('has a part that fails', (t) => t.test('the part', () => { throw new Error('part broken'); }));`,
  'crash.test.mjs': `process.kill(process.pid, 'SIGKILL');`,
  'syntax.test.mjs': `this is no JavaScript`,
  'hang.test.mjs': `import { test } from 'node:test';
test('hangs', () => new Promise(() => setInterval(() => {}, 1000)));`,
  'empty.test.mjs': '',
};

test('the summary counts what passed, failed and was skipped, with reasons, crashes and hangs', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'cairn-report-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  for (const [name, source] of Object.entries(staged)) await writeFile(path.join(directory, name), source);
  // node:test refuses to run files from within a test: another process does it, and does not know of this test.
  const driver = `import { run } from 'node:test';
import { TestReport } from ${JSON.stringify(import.meta.resolve('./test-report.ts'))};
const report = new TestReport(process.cwd());
const files = ${JSON.stringify(Object.keys(staged))}.map((name) => process.cwd() + '/' + name);
for await (const event of run({ files, concurrency: 2, timeout: 3_000, forceExit: true })) report.event(event);
process.stdout.write(report.summary());
process.exitCode = report.good ? 0 : 1;`;
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  await writeFile(path.join(directory, 'driver.mjs'), driver);
  const child = spawn(process.execPath, ['driver.mjs'], {
    cwd: directory,
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [summary, code] = await Promise.all([
    text(child.stdout),
    once(child, 'exit').then(([status]) => status),
  ]);
  assert.equal(code, 1);
  assert.match(summary, /\n2 passed, 5 failed, 2 skipped\n$/);
  assert.match(summary, /skipped for a reason\n +no huge pages here/);
  assert.match(summary, /skipped without one\n +\(no reason given\)/);
  assert.match(summary, /broken promise[^]*code: "E1"[^]*lines: \["detail"\]/);
  assert.match(summary, /part broken/);
  assert.match(summary, /crash\.test\.mjs/);
  assert.match(summary, /Last output of bad\.test\.mjs:\n +last words/);
});

test('a process with the mark of the run and a file in its place are found', async (t) => {
  const temporary = await mkdtemp(path.join(tmpdir(), 'cairn-leak-'));
  t.after(() => rm(temporary, { recursive: true, force: true }));
  const runMark = `leak-test-${process.pid}`;
  const before = await collectBelongings();
  const find = async () =>
    (await findLeaks(before, { runMark, temporary, timeoutMs: 0 })).own.filter((leak) =>
      /sleep|left-file/.test(leak),
    );
  assert.deepEqual(await find(), []);
  const child = spawn('sleep', ['60'], { env: { ...process.env, CAIRN_TEST_RUN: runMark } });
  t.after(() => child.kill('SIGKILL'));
  await new Promise((resolve) => child.once('spawn', resolve));
  await writeFile(path.join(temporary, 'left-file'), '');
  assert.deepEqual(await find(), [`process ${child.pid}: sleep 60`, `temporary file ${temporary}/left-file`]);
});
