import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import test from 'node:test';
import { type Served, served } from '../api/fake-server.ts';

const main = new URL('./main.mjs', import.meta.url).pathname;

/** `cairn` as a process, with what it wrote so far and how it ended. */
interface Running {
  child: ChildProcess;
  output: () => string;
  until(text: string): Promise<void>;
  code: Promise<number | null>;
}

function cairn(node: Served, ...words: string[]): Running {
  const child = spawn(process.execPath, [main, ...words], {
    env: { ...process.env, CAIRN_RUN: node.directory, NO_COLOR: '1' },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let text = '';
  const wake: (() => void)[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (bytes) => {
      text += String(bytes);
      for (const resolve of wake.splice(0)) resolve();
    });
  }
  return {
    child,
    output: () => text,
    async until(wanted) {
      const deadline = AbortSignal.timeout(20_000);
      while (!text.includes(wanted)) {
        await new Promise<void>((resolve, reject) => {
          wake.push(resolve);
          deadline.addEventListener('abort', () => reject(new Error(`"${wanted}" did not come: ${text}`)));
        });
      }
    },
    code: new Promise((resolve) => child.once('close', resolve)),
  };
}

test('run stays with the job, shows its output and ends with its exit code', async () => {
  await using node = await served();
  const running = cairn(node, 'run', '--name', 'x', '--', 'true');
  await running.until('two\n');
  const [job] = node.jobs.list();
  assert.ok(job);
  node.fake.end(job.unit, { exitCode: 9 });
  assert.equal(await running.code, 9);
  assert.equal(running.output(), 'one\ntwo\nthree\n');
});

test('run passes Ctrl-C on, and tells what became of the job', async () => {
  await using node = await served();
  const running = cairn(node, 'run', '--name', 'x', '--', 'true');
  await running.until('two\n');
  running.child.kill('SIGINT');
  assert.equal(await running.code, 130);
  const [job] = node.jobs.list();
  assert.ok(job?.state.kind === 'crashed' && job.state.ending.signal === 2);
  assert.match(running.output(), /x: crashed \(signal 2\)/);
});

test('run -i passes standard input on, and its end', async () => {
  await using node = await served();
  const running = cairn(node, 'run', '-i', '--name', 'x', '--', 'cat');
  running.child.stdin?.end('hello');
  await running.until('hello');
  const [job] = node.jobs.list();
  assert.ok(job);
  node.fake.end(job.unit, { exitCode: 3 });
  assert.equal(await running.code, 3);
});

test('exec ends with the exit code of the command', async () => {
  await using node = await served();
  await node.client.run({ name: 'x', command: ['sleep'] });
  const running = cairn(node, 'exec', '-i', 'x', '--', 'cat');
  running.child.stdin?.end('hello');
  assert.equal(await running.code, 3);
  assert.equal(running.output(), 'hello');
});

test('run -d prints the id, jobs lists it, stop, restart and rm do what they say', async () => {
  await using node = await served();
  const detached = cairn(node, 'run', '-d', '--name', 'x', '--', 'sleep', '10');
  assert.equal(await detached.code, 0);
  const [job] = node.jobs.list();
  assert.equal(detached.output(), `${job?.id}\n`);
  const listed = cairn(node, 'jobs', '--json');
  assert.equal(await listed.code, 0);
  assert.deepEqual(JSON.parse(listed.output()), node.jobs.list());
  const saved = cairn(node, 'checkpoint', 'x');
  assert.equal(await saved.code, 0);
  assert.match(saved.output(), /^x@1: saved in 7\.0 ms, frozen for 1\.0 ms, 30 B new \(20 B stored\)$/m);
  assert.equal(await cairn(node, 'restart', 'x').code, 2);
  assert.equal(await cairn(node, 'stop', 'x', 'nobody').code, 2);
  assert.equal(node.jobs.get('x').state.kind, 'stopped');
  const restarted = cairn(node, 'restart', 'x@1', '--json');
  assert.equal(await restarted.code, 0);
  assert.equal(JSON.parse(restarted.output()).sequence, 1);
  assert.equal(await cairn(node, 'rm', 'x').code, 2);
  assert.equal(await cairn(node, 'rm', '-f', '--snapshots', 'x').code, 0);
  assert.deepEqual(node.jobs.list(), []);
});
