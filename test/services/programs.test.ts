import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { NodeFixture } from '../support/node-fixture.ts';
import { until } from '../support/poll.ts';
import { projectRoot } from '../support/probe-programs.ts';
import { mustRun } from '../support/run-command.ts';
import { addressOf, crashAndRestart, serviceMounts, servicePrograms } from '../support/service.ts';

// Real programs: each is checkpointed while it works, loses all its processes by SIGKILL, is restarted, and is then judged by
// its own means.

/** Waits until the job has ended well, with PASS as what it wrote last. */
async function endsWithPass(node: NodeFixture, job: string, timeoutMs = 120_000): Promise<void> {
  await until(`${job} ends`, async () => ['exited', 'crashed', 'failed'].includes(await node.state(job)), {
    timeoutMs,
    intervalMs: 100,
  });
  const output = await node.output(job);
  const { stderr } = await node.cairn(['logs', '--tail', '20', job]);
  assert.equal(output.at(-1), 'PASS', `${output.slice(-20).join('\n')}\n${stderr}`);
  const { state } = (await node.details(job)).job;
  assert.ok(state.kind === 'exited' && state.code === 0, JSON.stringify(state));
}

describe('real programs', () => {
  let node: NodeFixture;
  before(async () => {
    node = await NodeFixture.start();
  });
  after(() => node?.[Symbol.asyncDispose]());

  it('R01 R16 R17 PostgreSQL under pgbench loses no committed transaction', async () => {
    const { options } = await serviceMounts(node, 'postgresql');
    const transactions = 1500;
    await node.run(
      'postgresql',
      [...options, '-u', 'postgres'],
      [...['/bin/bash', `${servicePrograms}/postgresql.sh`, String(transactions)]],
    );
    await node.waitOutput('postgresql', /^(ready|FAIL)/, 120_000);
    for (let round = 0; round < 3; round++) {
      await delay(700); // work for the database, not a wait for something
      assert.equal(await node.state('postgresql'), 'running', (await node.output('postgresql')).join('\n'));
      await crashAndRestart(node, 'postgresql');
    }
    await endsWithPass(node, 'postgresql');
    await node.remove('postgresql');
  });

  it('R17 R09 nginx with a download in progress', async () => {
    const { options } = await serviceMounts(node, 'nginx');
    await node.run('nginx', options, ['/bin/bash', `${servicePrograms}/nginx.sh`]);
    await node.waitOutput('nginx', /^(ready|FAIL)/);
    await delay(1500); // some of the 8 s that the download takes
    await crashAndRestart(node, 'nginx');
    assert.ok(
      !(await node.output('nginx')).includes('downloaded'),
      'the download was over before the checkpoint',
    );
    await endsWithPass(node, 'nginx');
    await node.remove('nginx');
  });

  it('R17 a download from outside goes on while the job is checkpointed', async () => {
    const { options } = await serviceMounts(node, 'outside');
    await node.run('outside', [...options, '-e', 'STAY=60'], ['/bin/bash', `${servicePrograms}/nginx.sh`]);
    await node.waitOutput('outside', /^(ready|FAIL)/);
    const address = await addressOf(node, 'outside');
    const download = mustRun(['/bin/sh', '-c', `curl -sSf http://${address}/data | sha256sum`]);
    for (let round = 0; round < 3; round++) {
      await delay(500);
      await node.checkpoint('outside');
    }
    const expected = await mustRun([
      ...[path.join(projectRoot, 'cairn'), 'exec', '--run', node.runDirectory, 'outside', '--'],
      ...['/bin/sh', '-c', 'sha256sum < /srv/files/data'],
    ]);
    assert.equal(await download, expected);
    await node.remove('outside');
  });

  it('R01 a Node.js server keeps its sessions and its connections', async () => {
    const { options } = await serviceMounts(node, 'node-server');
    const nodeDirectory = path.dirname(path.dirname(process.execPath));
    await node.run(
      'node-server',
      [...options, '-v', `${nodeDirectory}:/probe-node:ro`],
      [...['/probe-node/bin/node', `${servicePrograms}/server.mjs`]],
    );
    await node.waitOutput('node-server', /^ready/);
    const url = `http://${await addressOf(node, 'node-server')}:8080`;
    const get = async (where: string): Promise<string> =>
      (
        await fetch(`${url}${where}`, {
          headers: { connection: 'close' },
          signal: AbortSignal.timeout(20_000),
        })
      ).text();
    for (let i = 1; i <= 200; i++)
      assert.equal(await get(`/add?name=client-${i % 7}`), String(Math.ceil(i / 7)));
    const before = JSON.parse(await get('/state'));
    // A client inside the unit whose request is open all the time.
    const late = node.cairn(['exec', 'node-server', '--', '/usr/bin/true']);
    assert.equal((await late).code, 0);
    await crashAndRestart(node, 'node-server');
    const afterwards = JSON.parse(await get('/state'));
    assert.deepEqual({ ...afterwards, ticks: 0 }, { ...before, ticks: 0 });
    assert.ok(afterwards.ticks >= before.ticks);
    assert.equal(afterwards.echo, 'hello');
    assert.equal(await get('/add?name=client-1'), String(before.sessions['client-1'] + 1));
    await until(
      'the interval goes on',
      async () => JSON.parse(await get('/state')).ticks > afterwards.ticks + 5,
    );
    await node.remove('node-server');
  });

  it('R01 a Java server keeps its state', async () => {
    const { options } = await serviceMounts(node, 'java-server');
    await node.run('java-server', options, ['/usr/bin/java', '-Xmx256m', `${servicePrograms}/Server.java`]);
    await node.waitOutput('java-server', /^ready/, 90_000);
    const url = `http://${await addressOf(node, 'java-server')}:8080`;
    const get = async (where: string): Promise<string> =>
      (
        await fetch(`${url}${where}`, {
          headers: { connection: 'close' },
          signal: AbortSignal.timeout(20_000),
        })
      ).text();
    for (let i = 0; i < 300; i++) await get(`/put?entry-${i}`);
    await crashAndRestart(node, 'java-server');
    const state = JSON.parse(await get('/state'));
    assert.deepEqual({ entries: state.entries, wrong: state.wrong }, { entries: 300, wrong: 0 });
    await get('/put?one-more');
    assert.equal(JSON.parse(await get('/state')).entries, 301);
    await until(
      'the scheduled task goes on',
      async () => JSON.parse(await get('/state')).ticks > state.ticks + 20,
    );
    await node.remove('java-server');
  });

  it('R01 R06 a Python program with numpy computes the same, to the bit', async () => {
    const { options, go } = await serviceMounts(node, 'numpy');
    await node.run('numpy', options, ['/usr/bin/python3', `${servicePrograms}/numpy-iteration.py`]);
    await node.waitOutput('numpy', /^(ready|Traceback)/);
    await delay(300);
    await crashAndRestart(node, 'numpy');
    await delay(300);
    await crashAndRestart(node, 'numpy');
    await go();
    await endsWithPass(node, 'numpy');
    await node.remove('numpy');
  });

  it('R13 a bash pipeline gives the same result', async () => {
    const { options } = await serviceMounts(node, 'pipeline');
    const script = path.join(projectRoot, 'test/services/programs/pipeline.sh');
    const expected = mustRun(['/bin/bash', script, '60', '0']);
    await node.run('pipeline', options, ['/bin/bash', `${servicePrograms}/pipeline.sh`, '60', '0.05']);
    await delay(800);
    await crashAndRestart(node, 'pipeline');
    await delay(500);
    await crashAndRestart(node, 'pipeline');
    await node.waitState('pipeline', 'exited', 60_000);
    assert.equal((await node.output('pipeline')).join('\n'), (await expected).trimEnd());
    await node.remove('pipeline');
  });

  for (const mode of ['wal', 'delete']) {
    it(`R09 SQLite in a write loop loses nothing it has committed, journal mode ${mode}`, async () => {
      const job = `sqlite-${mode}`;
      const { options, go } = await serviceMounts(node, job);
      await node.run(job, options, ['/usr/bin/python3', `${servicePrograms}/sqlite.py`, mode]);
      await node.waitOutput(job, /^(ready|Traceback)/);
      for (let round = 0; round < 3; round++) {
        await delay(300);
        await crashAndRestart(node, job);
      }
      await go();
      await endsWithPass(node, job);
      await node.remove(job);
    });
  }
});
