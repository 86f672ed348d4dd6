import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { dumpCommand } from '../criu/dump-command.ts';
import { type Criu, findCriu } from '../criu/find.ts';
import { readStat } from '../linux/process.ts';
import { runProgram } from '../linux/run-program.ts';
import { dumpExternals } from './external-mounts.ts';
import { writeRestorePlan } from './restore-file.ts';
import { eventually, outputOf, TestNode, whyNoUnits } from './test-node.ts';
import type { Unit } from './unit.ts';

async function findIfUsable(): Promise<Criu | undefined> {
  return findCriu().catch(() => undefined);
}

const criu = await findIfUsable();
const skip = (await whyNoUnits()) ?? (criu === undefined ? 'needs a usable CRIU (npm run setup)' : false);

describe('restore of a unit by its monitor, from plain image files', { skip, timeout: 180_000 }, () => {
  let node: TestNode;
  let dumps = 0;
  before(async () => {
    node = await TestNode.create();
  });
  after(() => node[Symbol.asyncDispose]());

  /** Dumps a unit while it runs on; returns the file for the restore. */
  async function dump(unit: Unit): Promise<string> {
    const directory = path.join(node.directory, `images-${dumps++}`);
    mkdirSync(directory);
    const { pid = 0 } = await unit.status();
    const externals = await unit.externals();
    const argv = dumpCommand({
      pid,
      afterwards: 'run',
      imageDirectory: directory,
      logFile: 'dump.log',
      root: unit.paths.rootfs,
      externals: [...dumpExternals(externals.mounts), ...externals.consoleKeys],
      emptyNetwork: true,
      networkLock: 'skip',
      linkRemap: true,
    });
    const result = await runProgram(criu?.path ?? '', argv, { timeoutMs: 30_000 });
    assert.equal(result.code, 0, readFileSync(path.join(directory, 'dump.log'), 'utf8'));
    const file = path.join(directory, 'restore.json');
    writeRestorePlan(file, {
      criu: criu?.path ?? '',
      criuVersion: criu?.version ?? '',
      source: { kind: 'directory', directory },
      stdio: externals.stdio,
      consoleKeys: externals.consoleKeys,
      externalMounts: externals.mounts,
      ...(externals.runtimeState === undefined ? {} : { runtimeState: externals.runtimeState }),
    });
    return file;
  }

  test('H03 a unit comes back twice: in its control group and network, with its streams, and exec works', async () => {
    const unit = await node.start(['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done'], {
      network: { mode: 'bridge', ports: [] },
      user: { uid: 1000, gid: 1000, additionalGids: [] },
    });
    await eventually('output', async () => ((await outputOf(unit)).stdout.length > 4 ? true : undefined));
    for (let round = 0; round < 2; round++) {
      const file = await dump(unit);
      await unit.kill();
      const before = (await outputOf(unit)).stdout.length;
      const { pid = 0, state } = await unit.launch({ kind: 'restore', file });
      assert.equal(state, 'running');
      assert.ok(unit.cgroup.holds(pid));
      await eventually('more', async () =>
        (await outputOf(unit)).stdout.length > before + 10 ? true : undefined,
      );
      const session = await unit.exec({
        command: ['sh', '-c', 'cat /proc/1/comm; id -u; ip -o -4 address show eth0'],
      });
      let text = '';
      for await (const bytes of session.stdout) text += String(bytes);
      assert.ok(text.startsWith('sh\n1000\n') && text.includes(` ${unit.address}/24 `), text);
      assert.deepEqual(await session.exit, { exitCode: 0 });
    }
    const numbers = (await outputOf(unit)).stdout.trim().split('\n').map(Number);
    assert.equal(numbers[0], 1);
    for (const [i, n] of numbers.entries()) {
      assert.ok(i === 0 || n <= (numbers[i - 1] ?? 0) + 1, `a line is missing before ${n}`);
    }
    assert.equal((await unit.kill()).signal, 9);
    await unit.remove();
  });

  test('R15 an interactive shell comes back twice on new terminals: job control, window, modes, /dev/tty', async () => {
    const unit = await node.prepare(['bash', '--norc', '--noprofile', '-i'], {
      terminal: true,
      environment: { PATH: '/usr/bin:/bin', TERM: 'dumb', PS1: '> ' },
    });
    await unit.start({ columns: 101, rows: 37 });
    let client = await unit.attach();
    let text = '';
    const listen = () => {
      text = '';
      client.stdout.on('data', (bytes) => {
        text += String(bytes);
      });
    };
    const type = (keys: string) => client.write(Buffer.from(keys));
    const answer = (what: RegExp) => eventually(String(what), () => (what.test(text) ? true : undefined));
    const foreground = (program: string) =>
      eventually(program, async () =>
        (await unit.processes()).some((pid) => readStat(pid)?.name === program) ? true : undefined,
      );
    listen();
    await type('exec 9<>/dev/tty; stty -echoctl; sleep 1000 &\n');
    await foreground('sleep');
    await type('cat\n');
    await foreground('cat');
    for (let round = 0; round < 2; round++) {
      client.detach();
      const file = await dump(unit);
      // A new devpts instance too: nothing of the old terminal is left.
      await unit.release();
      unit.cgroup.create();
      await unit.launch({ kind: 'restore', file }, { columns: 80, rows: 24 });
      client = await unit.attach();
      listen();
      await type('still here\n');
      await answer(/still here\r\nstill here\r\n/);
      await type('\x03');
      await answer(/> $/);
      await type('stty size; stty -a | grep -o -e -echoctl; tty; jobs; echo to-tty >&9\n');
      await answer(/37 101\r\n-echoctl\r\n\/dev\/pts\/0\r\n\[1\]\+  Running +sleep 1000 &\r\nto-tty\r\n/);
      await type('cat\n');
      await foreground('cat');
      await type('\x1a');
      await answer(/Stopped +cat/);
      await type('fg\n');
      await answer(/fg\r\ncat\r\n/);
    }
    await type('\x03');
    await answer(/> $/);
    await type('exit 5\nexit 5\n');
    const end = await client.done;
    assert.equal(end.kind === 'exited' ? end.end.exitCode : undefined, 5);
    await unit.remove();
  });

  test('R22 a restore that fails leaves nothing running and says why', async () => {
    const unit = await node.start(['sleep', '1000']);
    const file = await dump(unit);
    await unit.kill();
    const images = path.dirname(file);
    await runProgram('truncate', ['-s', '20', path.join(images, 'pstree.img')]);
    await assert.rejects(unit.launch({ kind: 'restore', file }), (error: Error & { class?: string }) => {
      assert.ok(['permanent', 'environment', 'temporary'].includes(error.class ?? ''), String(error));
      return true;
    });
    assert.deepEqual(unit.cgroup.processes(), []);
    await unit.remove();
  });
});
