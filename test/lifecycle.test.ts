import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { CheckpointResult, PreflightResult } from '../src/api/schemas.ts';
import { exitCodes } from '../src/errors.ts';
import { NodeFixture } from './support/node-fixture.ts';
import { until } from './support/poll.ts';
import { projectRoot } from './support/probe-programs.ts';
import { mustRun } from './support/run-command.ts';

/** Counts up, one number each 20 ms. */
const counting = [
  '/bin/bash',
  '-c',
  'n=0; exec 9<> <(:); while :; do echo $((n++)); read -rt 0.02 -u 9; done',
];

const numbers = async (node: NodeFixture, job: string): Promise<number[]> =>
  (await node.output(job)).map(Number);

describe('lifecycle', () => {
  let node: NodeFixture;
  before(async () => {
    node = await NodeFixture.start();
  });
  after(() => node?.[Symbol.asyncDispose]());

  it('run stays with a job in the foreground and ends with its exit code', async () => {
    const result = await node.cairn([
      'run',
      '--name',
      'short',
      '--',
      '/bin/sh',
      '-c',
      'echo to stdout; echo to stderr >&2; exit 7',
    ]);
    assert.deepEqual([result.code, result.stdout, result.stderr], [7, 'to stdout\n', 'to stderr\n']);
    const logs = await node.cairn(['logs', 'short']);
    assert.deepEqual([logs.stdout, logs.stderr], ['to stdout\n', 'to stderr\n']);
    await node.remove('short');
  });

  it('output goes on in the same log over a checkpoint, a crash and a restart, without a gap or a repetition of what came after', async () => {
    await node.run('count', [], counting);
    await node.waitOutput('count', /^20$/);
    await node.checkpoint('count');
    const atCheckpoint = (await numbers(node, 'count')).at(-1) ?? 0;
    await until('it counts on', async () => ((await numbers(node, 'count')).at(-1) ?? 0) > atCheckpoint + 20);
    await node.crash('count');
    const beforeRestart = await numbers(node, 'count');
    await node.restart('count');
    await node.waitOutput('count', new RegExp(`^${beforeRestart.length + 50}$`));
    const all = await numbers(node, 'count');
    assert.deepEqual(
      all.slice(0, beforeRestart.length),
      beforeRestart,
      'what was in the log before has changed',
    );
    const again = all[beforeRestart.length] ?? -1;
    assert.ok(
      again > 0 && again <= atCheckpoint + 1,
      `it went on with ${again}; it had ${atCheckpoint} after the checkpoint`,
    );
    all.slice(beforeRestart.length).forEach((value, index) => assert.equal(value, again + index));
    const follow = spawn(path.join(projectRoot, 'cairn'), ['logs', '-f', 'count'], {
      env: { ...process.env, CAIRN_RUN: node.runDirectory },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let followed = '';
    follow.stdout.on('data', (data) => (followed += data));
    await until('the follower sees it too', () => followed.includes(`\n${beforeRestart.length + 50}\n`));
    await node.cairn(['stop', '-t', '0', 'count']);
    const [code] = await Promise.race([once(follow, 'exit'), delay(10_000, [null])]);
    if (code === null) follow.kill('SIGKILL');
    assert.equal(code, 0, 'logs -f does not end with the job');
    await node.remove('count');
  });

  it('exec works before and after a restart, with standard input, exit code, user and directory', async () => {
    await node.run('exec', [], ['/bin/sh', '-c', 'while :; do sleep 1; done']);
    for (const round of [1, 2]) {
      const result = await node.cairn(
        ['exec', '-i', '-u', '1000', '-w', '/usr', 'exec', '--', '/bin/sh', '-c', 'id -u; pwd; cat; exit 3'],
        {
          input: `round ${round}\n`,
        },
      );
      assert.deepEqual([result.code, result.stdout], [3, `1000\n/usr\nround ${round}\n`], result.stderr);
      if (round === 1) {
        await node.checkpoint('exec');
        await node.crash('exec');
        await node.restart('exec');
      }
    }
    await node.remove('exec');
  });

  it('R20 continue, stop and terminate after a checkpoint', async () => {
    await node.run('then', [], counting);
    await node.waitOutput('then', /^10$/);
    await node.checkpoint('then', '--then', 'continue');
    const first = (await numbers(node, 'then')).at(-1) ?? 0;
    await until(
      'it goes on after continue',
      async () => ((await numbers(node, 'then')).at(-1) ?? 0) > first + 10,
    );

    await node.checkpoint('then', '--then', 'stop');
    assert.equal(await node.state('then'), 'suspended');
    const stopped = (await numbers(node, 'then')).at(-1) ?? 0;
    await delay(300); // time in which nothing may happen
    assert.equal((await numbers(node, 'then')).at(-1), stopped, 'a stopped job goes on');
    await node.ok(['resume', 'then']);
    await until(
      'it goes on after resume',
      async () => ((await numbers(node, 'then')).at(-1) ?? 0) > stopped + 10,
    );

    const { sequence } = await node.checkpoint('then', '--then', 'terminate');
    const ended = await node.details('then');
    assert.equal(ended.job.state.kind, 'stopped');
    const length = (await numbers(node, 'then')).length;
    const last = (await numbers(node, 'then')).at(-1) ?? 0;
    await node.restart(`then@${sequence}`);
    await until(
      'it goes on after the restart',
      async () => (await numbers(node, 'then')).length > length + 10,
    );
    assert.equal(
      (await numbers(node, 'then'))[length],
      last + 1,
      'nothing ran between the checkpoint and the end',
    );
    await node.remove('then');
  });

  it('R21 a checkpoint that would have stopped the job, and was given up, lets it run on', async () => {
    await node.run('given-up', [], counting);
    await node.waitOutput('given-up', /^10$/);
    let givenUp = 0;
    // Deadlines all through the time that a checkpoint takes: before, while and after the job is frozen.
    for (let ms = 60; ms <= 460; ms += 40) {
      const result = await node.cairn(['checkpoint', '--then', 'stop', '--timeout', `${ms}ms`, 'given-up']);
      if (result.code === 0) {
        assert.equal(await node.state('given-up'), 'suspended');
        await node.ok(['resume', 'given-up']);
      } else {
        givenUp++;
        assert.equal(await node.state('given-up'), 'running', `after ${ms} ms`);
      }
      const last = (await numbers(node, 'given-up')).at(-1) ?? 0;
      await until(
        `it counts on after a deadline of ${ms} ms`,
        async () => ((await numbers(node, 'given-up')).at(-1) ?? 0) > last + 5,
        { timeoutMs: 10_000 },
      );
    }
    assert.ok(givenUp > 1, 'no deadline was short enough');
    const all = await numbers(node, 'given-up');
    all.forEach((value, index) => assert.equal(value, index));
    await node.remove('given-up');
  });

  it('R23 a snapshot is restarted twice, and cloned beside the running job', async () => {
    await node.run('twice', [], counting);
    await node.waitOutput('twice', /^30$/);
    await node.checkpoint('twice');
    const starts: number[] = [];
    for (let round = 0; round < 2; round++) {
      await node.crash('twice');
      const length = (await numbers(node, 'twice')).length;
      await node.restart('twice@1');
      await until('it goes on', async () => (await numbers(node, 'twice')).length > length + 5);
      starts.push((await numbers(node, 'twice'))[length] ?? -1);
    }
    assert.equal(starts[0], starts[1], 'the second restart began elsewhere');
    assert.equal((await node.fails(['restart', 'twice@1'])).code, 'job-running');
    await node.restart('twice@1', '--clone', '--name', 'twin');
    const [original, twin] = await Promise.all([node.details('twice'), node.details('twin')]);
    assert.equal(original.job.state.kind, 'running');
    assert.equal(twin.job.state.kind, 'running');
    assert.notEqual(twin.job.id, original.job.id);
    assert.notEqual(twin.unit?.address, original.unit?.address);
    await until('the clone counts', async () => (await numbers(node, 'twin')).length > 5);
    const inside = await node.cairn([
      'exec',
      'twin',
      '--',
      '/bin/sh',
      '-c',
      'hostname; ip -4 -o addr show scope global',
    ]);
    assert.ok(inside.stdout.includes(twin.unit?.address ?? 'no address'), inside.stdout);
    await node.remove('twin');
    await node.remove('twice');
  });

  it('R18 H08 a dry run answers and freezes nothing', async () => {
    await node.run(
      'dry',
      [],
      [
        '/usr/bin/python3',
        '-c',
        'import os,time\nx=os.urandom(50_000_000)\nprint("ready",flush=True)\nwhile True: time.sleep(0.01)',
      ],
    );
    await node.waitOutput('dry', /ready/);
    const answer = await node.ok<PreflightResult>(['checkpoint', '--dry-run', 'dry']);
    assert.equal(answer.possible, true);
    assert.ok(
      answer.estimate.memoryBytes > 50_000_000 && answer.estimate.memoryBytes < 500_000_000,
      JSON.stringify(answer.estimate),
    );
    assert.ok(answer.estimate.totalMs > 0 && answer.estimate.frozenMs > 0);
    assert.deepEqual((await node.details('dry')).snapshots, []);
    await node.remove('dry');
  });

  it('H07 a checkpoint and a restart tell their times and sizes', async () => {
    await node.run(
      'times',
      [],
      [
        '/usr/bin/python3',
        '-c',
        'import os,time\nx=os.urandom(50_000_000)\nprint("ready",flush=True)\nwhile True: time.sleep(0.01)',
      ],
    );
    await node.waitOutput('times', /ready/);
    const { timings, bytes } = await node.ok<CheckpointResult>(['checkpoint', 'times']);
    for (const name of ['preflightMs', 'preSaveMs', 'freezeMs', 'frozenMs', 'publishMs', 'totalMs']) {
      const value = timings[name];
      assert.ok(value !== undefined && value >= 0, `${name} is ${value}`);
    }
    const { frozenMs = 0, totalMs = 0 } = timings;
    assert.ok(frozenMs > 0 && frozenMs <= totalMs, JSON.stringify(timings));
    assert.ok((bytes.memory ?? 0) > 50_000_000 && (bytes.new ?? 0) > 50_000_000, JSON.stringify(bytes));
    const second = await node.ok<CheckpointResult>(['checkpoint', 'times']);
    assert.ok(
      (second.bytes.new ?? 0) < 20_000_000,
      `the second checkpoint stored ${second.bytes.new} new bytes`,
    );
    await node.crash('times');
    const restarted = await node.restart('times');
    assert.ok(Object.values(restarted.timings).some((value) => value > 0));
    const inspected = await node.ok<{ timings: Record<string, number> }>(['inspect', 'times@1']);
    assert.ok((inspected.timings.frozenMs ?? 0) > 0, 'the snapshot has no times');
    await node.remove('times');
  });

  it('R19 R02 SIGKILL of the daemon harms no job; the next daemon finds it and carries on', async () => {
    await node.run('kept', ['--every', '1s', '--keep', '3'], counting);
    await until('a first snapshot', async () => (await node.details('kept')).snapshots.length > 0);
    const before = await node.details('kept');
    await node.endDaemon('SIGKILL');
    await delay(300); // the job works alone
    await node.startDaemon();
    const found = await node.details('kept');
    assert.equal(found.job.state.kind === 'checkpointing' ? 'running' : found.job.state.kind, 'running');
    assert.equal(found.unit?.pid, before.unit?.pid);
    const values = await numbers(node, 'kept');
    values.forEach((value, index) => assert.equal(value, index, 'output was lost while there was no daemon'));
    const newest = Math.max(...found.snapshots.map(({ sequence }) => sequence));
    await until('the schedule goes on', async () =>
      (await node.details('kept')).snapshots.some(({ sequence }) => sequence > newest + 1),
    );
    assert.ok((await node.details('kept')).snapshots.length <= 4, 'more snapshots than are to be kept');
    await node.remove('kept');
  });

  it('R27 --every with --restart on-failure brings a crashed job back by itself, one that ends well not', async () => {
    await node.run('phoenix', ['--every', '1s', '--restart', 'on-failure'], counting);
    await until('a snapshot', async () => (await node.details('phoenix')).snapshots.length > 0);
    const before = await node.details('phoenix');
    const length = (await numbers(node, 'phoenix')).length;
    await node.crash('phoenix');
    await until('it runs again', async () => {
      const now = await node.details('phoenix');
      return now.job.state.kind === 'running' && now.unit?.pid !== before.unit?.pid;
    });
    await until('it counts on', async () => (await numbers(node, 'phoenix')).length > length + 20);
    assert.ok(
      (await numbers(node, 'phoenix')).filter((value) => value === 0).length === 1,
      'it began from the beginning',
    );
    await node.remove('phoenix');
    await node.run('mortal', ['--restart', 'on-failure'], ['/bin/true']);
    await node.waitState('mortal', 'exited');
    await node.remove('mortal');
  });

  it('R21 a checkpoint has a deadline; when it passes, the job runs as before', async () => {
    const slow = path.join(node.directory, 'criu-slow');
    const real = (
      await mustRun(['/bin/sh', '-c', 'ls /opt/cairn/bin/criu 2> /dev/null || command -v criu'])
    ).trim();
    // CRIU that hangs with the whole job frozen: it is stopped a moment after it has begun to dump.
    writeFileSync(slow, `#!/bin/sh\n[ "$1" = dump ] && (sleep 0.06; kill -STOP $$) &\nexec ${real} "$@"\n`);
    chmodSync(slow, 0o755);
    await node.endDaemon('SIGTERM');
    await node.startDaemon({ CAIRN_CRIU: slow });
    try {
      await node.run('deadline', [], counting);
      await node.waitOutput('deadline', /^10$/);
      const started = performance.now();
      const error = await node.fails(['checkpoint', '--timeout', '2s', 'deadline']);
      const took = performance.now() - started;
      assert.deepEqual([error.class, error.exitCode], ['temporary', exitCodes.temporary], error.message);
      assert.ok(took > 1900 && took < 6000, `it took ${took} ms`);
      const last = (await numbers(node, 'deadline')).at(-1) ?? 0;
      await until('it counts on', async () => ((await numbers(node, 'deadline')).at(-1) ?? 0) > last + 10, {
        timeoutMs: 5000,
      });
      const { job, snapshots } = await node.details('deadline');
      assert.equal(job.state.kind, 'running');
      assert.deepEqual(snapshots, []);
    } finally {
      await node.endDaemon('SIGTERM');
      await node.startDaemon({});
    }
    await node.checkpoint('deadline');
    await node.remove('deadline');
  });

  it('a published port of the host leads to the job, also after a restart', async () => {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    await node.run(
      'web',
      ['-p', `127.0.0.1:${port}:8000`],
      [
        ...[
          '/usr/bin/python3',
          '-c',
          'import http.server as h\nprint("ready",flush=True)\nh.test(h.SimpleHTTPRequestHandler, port=8000)',
        ],
      ],
    );
    const get = async (): Promise<number> =>
      (
        await fetch(`http://127.0.0.1:${port}/etc/hostname`, {
          headers: { connection: 'close' },
          signal: AbortSignal.timeout(5000),
        })
      ).status;
    await until('the port answers', () =>
      get().then(
        (status) => status === 200,
        () => false,
      ),
    );
    await node.checkpoint('web');
    await node.crash('web');
    await node.restart('web');
    await until(
      'the port answers again',
      () =>
        get().then(
          (status) => status === 200,
          () => false,
        ),
      { timeoutMs: 10_000 },
    );
    await node.remove('web');
  });

  it('H03 restored processes are in the control group and the namespaces of their unit', async () => {
    await node.run('where', ['-m', '256m'], ['/bin/sh', '-c', 'sleep 1000 & sleep 2000 & wait']);
    await node.checkpoint('where');
    await node.crash('where');
    await node.restart('where');
    const { unit } = await node.details('where');
    assert.ok(unit !== undefined && unit.processes.length === 3, JSON.stringify(unit));
    for (const pid of unit.processes) {
      const groups = readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n');
      // A hybrid host has hierarchies that a unit does not use; those that limit it must all be its own.
      for (const hierarchy of ['memory', 'pids', 'devices', 'freezer', '0::']) {
        const group = groups.find((line) => line.includes(`:${hierarchy}`) || line.startsWith(hierarchy));
        if (group !== undefined && !/^0::\/$/.test(group))
          assert.ok(group.endsWith(`/cairn/${unit.id}`), group);
      }
    }
    await node.remove('where');
  });
});
