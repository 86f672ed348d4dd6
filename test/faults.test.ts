import assert from 'node:assert/strict';
import { existsSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { DaemonWorkers, debuggableEnvironment } from './support/daemon-workers.ts';
import { NodeFixture } from './support/node-fixture.ts';
import { nodeProcesses } from './support/node-processes.ts';
import { until } from './support/poll.ts';
import { SeededRandom } from './support/random-moments.ts';
import { mustRun, type Result, runCommand } from './support/run-command.ts';
import { serviceMounts, servicePrograms } from './support/service.ts';

// Something dies at a random moment of a checkpoint or of a restart. The job must run on (or be exactly as before), older
// snapshots must be valid, nothing may be left. The job watches itself (programs/witness.py): had it been damaged, it would end.

const rounds = process.env.CAIRN_SOAK === '1' ? 200 : 20;

/** Starts a witness and takes its first snapshot. */
async function startWitness(node: NodeFixture, job: string): Promise<void> {
  const { options } = await serviceMounts(node, job);
  await node.run(job, options, ['/usr/bin/python3', `${servicePrograms}/witness.py`, '4001']);
  await node.waitOutput(job, /^ready/);
  await node.checkpoint(job);
}

async function lastCount(node: NodeFixture, job: string): Promise<number> {
  return Number((await node.output(job)).filter((line) => /^\d+$/.test(line)).at(-1) ?? 0);
}

/** The job works, its network is open, and no CRIU is left. */
async function runsOn(node: NodeFixture, job: string): Promise<void> {
  await until(`${job} is running`, async () => (await node.state(job)) === 'running', { timeoutMs: 10_000 });
  const count = await lastCount(node, job);
  await until(`${job} works`, async () => (await lastCount(node, job)) > count, { timeoutMs: 10_000 }).catch(
    async (error: Error) => {
      const { stderr } = await node.cairn(['logs', '--tail', '5', job]);
      throw new Error(`${error.message}: ${JSON.stringify((await node.details(job)).job.state)}\n${stderr}`);
    },
  );
  await until('no CRIU is left', () => nodeProcesses(node, 'criu').length === 0, { timeoutMs: 10_000 });
  const { unit } = await node.details(job);
  assert.ok(unit?.pid);
  const tables = await mustRun(['nsenter', `--net=/proc/${unit.pid}/ns/net`, 'nft', 'list', 'tables']);
  assert.equal(tables, '', 'the network of the job is locked');
}

/** How long a thing takes that was done once without a fault, to choose moments in it. */
async function timeOf(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

describe('faults', () => {
  let node: NodeFixture;
  before(async () => {
    node = await NodeFixture.start({ environment: debuggableEnvironment });
  });
  after(() => node?.[Symbol.asyncDispose]());

  /** One fault at `rounds` random moments of a checkpoint. `strike` returns once the fault has been made. */
  async function duringCheckpoints(
    t: TestContext,
    job: string,
    strike: (random: SeededRandom) => Promise<void>,
  ): Promise<void> {
    const random = new SeededRandom();
    t.diagnostic(`CAIRN_SEED=${random.seed}`);
    await startWitness(node, job);
    const usualMs = await timeOf(() => node.checkpoint(job));
    const { unit } = await node.details(job);
    let failed = 0;
    for (let round = 0; round < rounds; round++) {
      const known = (await node.details(job)).snapshots.map(({ sequence }) => sequence);
      const checkpoint = node.cairn(['checkpoint', '--json', job]);
      await delay(random.next() * usualMs);
      await strike(random);
      const result: Result = await checkpoint;
      if (result.code !== 0) failed++;
      await runsOn(node, job);
      const now = await node.details(job);
      assert.equal(now.unit?.pid, unit?.pid, 'the job is another one');
      const sequences = now.snapshots.map(({ sequence }) => sequence);
      for (const sequence of known) assert.ok(sequences.includes(sequence), `snapshot ${sequence} is gone`);
      if (result.code === 0)
        assert.ok(sequences.length > known.length, 'it said that it had saved, and there is no snapshot');
      assert.ok(
        now.snapshots.every(({ state }) => state === 'local'),
        JSON.stringify(now.snapshots),
      );
      if (round % 5 === 4) await node.verifyAll();
    }
    t.diagnostic(`${failed} of ${rounds} checkpoints failed`);
    await node.verifyAll();
    await node.crash(job);
    await node.restart(job);
    await runsOn(node, job);
    await node.remove(job);
  }

  /** One fault at `rounds` random moments of a restart. */
  async function duringRestarts(
    t: TestContext,
    job: string,
    strike: (random: SeededRandom) => Promise<void>,
  ): Promise<void> {
    const random = new SeededRandom();
    t.diagnostic(`CAIRN_SEED=${random.seed}`);
    await startWitness(node, job);
    await node.crash(job);
    const usualMs = await timeOf(() => node.restart(job));
    let failed = 0;
    for (let round = 0; round < rounds; round++) {
      if ((await node.state(job)) === 'running') await node.crash(job);
      const restart = node.cairn(['restart', '--json', job]);
      await delay(random.next() * usualMs);
      await strike(random);
      const result = await restart;
      // Running, or exactly as before; never something in between.
      const settled = await until(
        'the job is in order again',
        async () => {
          const { state } = (await node.details(job)).job;
          return ['running', 'crashed'].includes(state.kind) && state.kind;
        },
        { timeoutMs: 20_000 },
      );
      if (settled === 'crashed') {
        failed++;
        assert.deepEqual(
          (await node.details(job)).unit?.processes ?? [],
          [],
          'a job that does not run has processes',
        );
      } else {
        await runsOn(node, job);
      }
      if (result.code === 0 && settled === 'crashed') {
        // It ran and was hit afterwards; the job ended by the fault, not by the restart.
        t.diagnostic(`round ${round}: ended after a successful restart`);
      }
      assert.ok(
        (await node.details(job)).snapshots.some(
          ({ sequence, state }) => sequence === 1 && state === 'local',
        ),
      );
    }
    t.diagnostic(`${failed} of ${rounds} restarts failed`);
    await node.verifyAll();
    if ((await node.state(job)) !== 'running') await node.restart(job);
    await runsOn(node, job);
    await node.remove(job);
  }

  const killDaemon = async (): Promise<void> => {
    await node.endDaemon('SIGKILL');
    await node.startDaemon();
  };

  /** SIGKILL for a process of the node of this kind, if there is one within the next second. */
  const killOne =
    (kind: 'criu' | 'monitor') =>
    async (random: SeededRandom): Promise<void> => {
      for (let i = 0; i < 100; i++) {
        const processes = nodeProcesses(node, kind);
        const victim = processes[random.integer(0, Math.max(1, processes.length))];
        if (victim !== undefined) {
          await delay(random.next() * 50);
          // Looked up again: the number may be another's by now.
          if (
            nodeProcesses(node, kind).some(
              ({ pid, command }) => pid === victim.pid && command === victim.command,
            )
          ) {
            process.kill(victim.pid, 'SIGKILL');
          }
          return;
        }
        await delay(5);
      }
    };

  it(`R19 SIGKILL of the daemon at ${rounds} random moments of a checkpoint`, (t) =>
    duringCheckpoints(t, 'daemon-dies', killDaemon));
  it(`R19 SIGKILL of the daemon at ${rounds} random moments of a restart`, (t) =>
    duringRestarts(t, 'daemon-dies-restart', killDaemon));
  it(`R19 SIGKILL of CRIU at ${rounds} random moments of a checkpoint`, (t) =>
    duringCheckpoints(t, 'criu-dies', killOne('criu')));
  it(`R19 SIGKILL of CRIU at ${rounds} random moments of a restart`, (t) =>
    duringRestarts(t, 'criu-dies-restart', killOne('criu')));
  it(`R19 SIGKILL of the monitor that serves the image, at ${rounds} random moments of a restart`, (t) =>
    duringRestarts(t, 'monitor-dies-restart', killOne('monitor')));
  it(`R19 the end of a worker at ${rounds} random moments of a checkpoint`, async (t) => {
    const ended = new Map<string, number>();
    await duringCheckpoints(t, 'worker-dies', async (random) => {
      using workers = await DaemonWorkers.attach(node);
      await workers.someRun();
      const name = workers.end(random.integer(0, 1000)) ?? 'none';
      ended.set(name, (ended.get(name) ?? 0) + 1);
      await delay(20); // the message is on its way
    });
    t.diagnostic(`ended: ${JSON.stringify(Object.fromEntries(ended))}`);
    assert.ok((ended.get('none') ?? 0) < rounds, 'no worker was ever reached');
  });
});

describe('a full file system', () => {
  let node: NodeFixture;
  let place: string;
  before(async () => {
    place = await mkdtemp(path.join(tmpdir(), 'cairn-full'));
    await mustRun(['mount', '-t', 'tmpfs', '-o', 'size=256m,mode=0700', 'cairn-test', place]);
    await mkdir(path.join(place, 'state'));
    node = await NodeFixture.start({ stateDirectory: path.join(place, 'state') });
  });
  after(async () => {
    try {
      await node?.[Symbol.asyncDispose]();
    } finally {
      await runCommand(['umount', place]);
      await rm(place, { recursive: true, force: true });
    }
  });

  /** Leaves so many bytes free, and gives them back at the end. */
  const fill = (freeBytes: number): Disposable => {
    const { bavail, bsize } = statfsSync(place);
    const ballast = path.join(place, 'ballast');
    writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - freeBytes), 1));
    return { [Symbol.dispose]: () => rmSync(ballast) };
  };

  it(`R19 the store is full at ${rounds} random moments of a checkpoint`, async (t) => {
    const random = new SeededRandom();
    t.diagnostic(`CAIRN_SEED=${random.seed}`);
    await startWitness(node, 'full');
    let failed = 0;
    for (let round = 0; round < rounds; round++) {
      // New content each time: 8 MiB in the writable layer.
      await mustNodeExec(node, 'full', 'head -c 8388608 /dev/urandom > /var/tmp/new');
      const known = (await node.details('full')).snapshots.length;
      {
        using _ = fill(random.integer(0, 14 * 1024 ** 2));
        const result = await node.cairn(['checkpoint', '--json', 'full']);
        if (result.code !== 0) {
          failed++;
          const { error } = JSON.parse(result.stderr);
          assert.deepEqual([error.class, error.code], ['temporary', 'store-full'], result.stderr);
        }
        await runsOn(node, 'full');
        const { snapshots } = await node.details('full');
        assert.equal(snapshots.length, known + (result.code === 0 ? 1 : 0));
      }
      await node.verifyAll();
      // Keeps the file system from filling for good.
      const { snapshots } = await node.details('full');
      if (snapshots.length > 4) {
        await node.crash('full');
        await node.remove('full');
        await startWitness(node, 'full');
      }
    }
    t.diagnostic(`${failed} of ${rounds} checkpoints failed`);
    assert.ok(
      failed > 0 && failed < rounds,
      `${failed} of ${rounds} checkpoints failed: the space was never short, or always`,
    );
    await node.remove('full');
  });

  it(`R19 the file system is full at ${rounds} random moments of a restart`, async (t) => {
    const random = new SeededRandom();
    t.diagnostic(`CAIRN_SEED=${random.seed}`);
    await startWitness(node, 'full-restart');
    await mustNodeExec(node, 'full-restart', 'head -c 8388608 /dev/urandom > /var/tmp/new');
    const { sequence } = await node.checkpoint('full-restart');
    await node.crash('full-restart');
    let failed = 0;
    for (let round = 0; round < rounds; round++) {
      {
        using _ = fill(random.integer(0, 12 * 1024 ** 2));
        const result = await node.cairn(['restart', '--json', `full-restart@${sequence}`]);
        if (result.code !== 0) {
          failed++;
          assert.equal(JSON.parse(result.stderr).error.class, 'temporary', result.stderr);
          assert.equal(await node.state('full-restart'), 'crashed');
        }
      }
      if ((await node.state('full-restart')) === 'running') {
        await runsOn(node, 'full-restart');
        await node.crash('full-restart');
      }
    }
    t.diagnostic(`${failed} of ${rounds} restarts failed`);
    await node.verifyAll();
    await node.restart(`full-restart@${sequence}`);
    await runsOn(node, 'full-restart');
    assert.ok(!existsSync(path.join(place, 'ballast')));
    await node.remove('full-restart');
  });
});

async function mustNodeExec(node: NodeFixture, job: string, script: string): Promise<void> {
  const result = await node.cairn(['exec', job, '--', '/bin/sh', '-c', script]);
  assert.equal(result.code, 0, result.stderr);
}
