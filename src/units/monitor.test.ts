import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { isAlive } from '../linux/process.ts';
import {
  eventually,
  inForeground,
  outputOf,
  TestNode,
  testSpec,
  textOf,
  whyNoUnits,
  within,
} from './test-node.ts';
import { MonitorLauncher } from './monitor-client.ts';
import type { Unit } from './unit.ts';
import { readStatusRecord } from './unit-status.ts';
import { Units } from './units.ts';

const skip = (await whyNoUnits()) ?? false;

describe('monitor of a unit', { skip, timeout: 180_000 }, () => {
  let node: TestNode;
  before(async () => {
    node = await TestNode.create();
  });
  after(() => node[Symbol.asyncDispose]());

  const sh = (script: string) => ['sh', '-c', script];
  const deadline = () => AbortSignal.timeout(30_000);

  test('a monitor that is killed before it has read its order is an error that can be tried again, and harms nobody', async () => {
    const unit = await node.prepare(['true']);
    // Ends at once, with the order unread: the connection is reset.
    const killed = path.join(node.directory, 'killed');
    writeFileSync(killed, '#!/bin/sh\nsleep 0.2; kill -KILL $$\n', { mode: 0o755 });
    using launcher = new MonitorLauncher(killed);
    const plan = unit.monitorPlan({ columns: 80, rows: 24 });
    await assert.rejects(launcher.launch(plan, { kind: 'start' }), {
      code: 'monitor-killed',
      class: 'temporary',
    });
    await unit.remove();
  });

  test('exec runs another command in the unit, with its own streams and exit code', async () => {
    const unit = await node.start(['sleep', '1000']);
    const session = await unit.exec({
      command: sh('cat; echo err >&2; hostname > /dev/stdout; exit 5'),
      user: { uid: 33, gid: 33, additionalGids: [] },
    });
    session.stdin.end('hello\n');
    const [stdout, stderr] = await Promise.all([textOf(session.stdout), textOf(session.stderr)]);
    assert.deepEqual(await session.exit, { exitCode: 5 });
    assert.equal(stdout, 'hello\nunit\n');
    assert.equal(stderr, 'err\n');
    const terminal = await unit.exec({
      command: sh('stty size; tty'),
      terminal: true,
      size: { columns: 99, rows: 9 },
    });
    assert.equal(await textOf(terminal.stdout), '9 99\r\n/dev/pts/0\r\n');
    assert.deepEqual(await terminal.exit, { exitCode: 0 });
    const absent = await unit.exec({ command: ['/no/such'] });
    assert.match(await textOf(absent.stderr), /no such file/);
    assert.notEqual((await absent.exit).exitCode, 0);
    await unit.remove();
  });

  test('R15 an interactive shell has job control and a window; it can be detached and attached again', async () => {
    const unit = await node.prepare(['bash', '--norc', '--noprofile', '-i'], {
      terminal: true,
      environment: { PATH: '/usr/bin:/bin', PS1: '> ', TERM: 'dumb' },
    });
    await unit.start({ columns: 101, rows: 37 });
    const first = await unit.attach({ replay: true });
    let text = '';
    first.stdout.on('data', (bytes) => {
      text += String(bytes);
    });
    await first.write(Buffer.from('stty size; tty; echo $$ $-\n'));
    await eventually('answer', () =>
      /37 101\r\n\/dev\/pts\/0\r\n1 \w*m\w*\r\n/.test(text) ? true : undefined,
    );
    await first.resize({ columns: 50, rows: 20 });
    await first.write(Buffer.from('stty size\n'));
    await eventually('new size', () => (/20 50\r\n/.test(text) ? true : undefined));
    await first.write(Buffer.from('sleep 1000\n'));
    await inForeground(unit, 'sleep');
    first.detach();
    assert.deepEqual(await first.done, { kind: 'detached' });

    using second = await unit.attach({ replay: true });
    let again = '';
    second.stdout.on('data', (bytes) => {
      again += String(bytes);
    });
    await eventually('replay', () => (again.includes('sleep 1000') ? true : undefined));
    await second.write(Buffer.from('\x1a'));
    await eventually('stopped', () => (/Stopped\s+sleep 1000/.test(again) ? true : undefined));
    await second.write(Buffer.from('exit 4\nexit 4\n'));
    // Bash warns once of stopped jobs.
    const end = await within(second.done);
    assert.equal(end.kind === 'exited' ? end.end.exitCode : undefined, 4);
    assert.equal((await unit.waitExit(deadline())).exitCode, 4);
    await unit.remove();
  });

  test('several clients see the output, and one feeds the input of a unit without a terminal', async () => {
    const unit = await node.start(['cat'], { stdin: true });
    const clients = [await unit.attach(), await unit.attach({ stdin: false })] as const;
    const texts = clients.map((client) => textOf(client.stdout));
    await clients[1].write(Buffer.from('not fed\n'));
    await clients[0].write(Buffer.from('fed\n'));
    await clients[0].endInput();
    assert.deepEqual(await Promise.all(texts), ['fed\n', 'fed\n']);
    assert.equal((await within(clients[0].done)).kind, 'exited');
    assert.equal((await unit.waitExit(deadline())).exitCode, 0);
    await unit.remove();
  });

  test('a unit and its monitor survive the death of the daemon; another one finds them', async () => {
    const spec = testSpec(sh('i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done'));
    const program = `
      import { Units } from '${path.join(import.meta.dirname, 'units.ts')}';
      const units = new Units(${JSON.stringify({
        stateDirectory: path.join(node.directory, 'state'),
        runDirectory: path.join(node.directory, 'run'),
        tools: { runc: (await node.prepare(['true'])).runtime.program },
      })});
      const unit = await units.prepare(${JSON.stringify(spec)});
      await unit.start();
      process.stdout.write('started');
      setInterval(() => {}, 1000);`;
    const daemon = spawn(process.execPath, ['--input-type=module-typescript', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => daemon.stdout.once('data', resolve));
    daemon.kill('SIGKILL');
    const unit = await node.units.open(spec.id);
    assert.ok(unit);
    assert.equal((await unit.status()).state, 'running');
    assert.equal(await unit.isMonitored(), true);
    const length = (await outputOf(unit)).stdout.length;
    await eventually('more output', async () =>
      (await outputOf(unit)).stdout.length > length + 20 ? true : undefined,
    );
    await unit.sendSignal(9);
    assert.equal((await unit.waitExit(deadline())).signal, 9);
    await unit.remove();
  });

  const killMonitor = async (unit: Unit) => {
    const record = readStatusRecord(unit.paths.status);
    assert.ok(record);
    process.kill(record.monitor.pid, 'SIGKILL');
    await eventually('dead', () => (isAlive(record.monitor) ? undefined : true));
    assert.equal((await unit.status()).state, 'running', 'the unit does not depend on its monitor');
    assert.equal(await unit.isMonitored(), false);
  };

  test('a unit whose monitor is killed gets another one: no output is lost, its end is known', async () => {
    const unit = await node.start(
      sh('i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo $i; sleep 0.005; done; exit 6'),
    );
    const { startedAt } = await unit.status();
    await eventually('output', async () => ((await outputOf(unit)).stdout.length > 10 ? true : undefined));
    await killMonitor(unit);
    await unit.launch({ kind: 'adopt' });
    assert.equal(await unit.isMonitored(), true);
    const status = await unit.waitExit(deadline());
    assert.deepEqual([status.state, status.exitCode, status.startedAt], ['exited', 6, startedAt]);
    const numbers = (await outputOf(unit)).stdout.trim().split('\n').map(Number);
    // What the killed monitor had read and not yet written is gone; nothing of what comes later is.
    assert.deepEqual(
      numbers.slice(-100),
      Array.from({ length: 100 }, (_, i) => 51 + i),
    );
    await unit.remove();
  });

  test('the pipes of a unit that nobody has held are opened anew', async () => {
    const quiet = await node.start(sh('trap "echo bye; exit 7" USR1; while :; do sleep 0.05; done'));
    const other = new Units({
      stateDirectory: path.join(node.directory, 'state'),
      runDirectory: path.join(node.directory, 'run'),
      tools: { runc: quiet.runtime.program },
      bridge: { name: node.units.bridge.name, subnet: '10.215.0.0/24' },
    });
    await killMonitor(quiet);
    const found = await other.open(quiet.id);
    await found?.launch({ kind: 'adopt' });
    await quiet.sendSignal(constants.signals.SIGUSR1);
    assert.equal((await quiet.waitExit(deadline())).exitCode, 7);
    assert.equal((await outputOf(quiet)).stdout, 'bye\n');
    other.close();
    await quiet.remove();
  });

  test('a terminal outlives its monitor', async () => {
    const unit = await node.prepare(['bash', '--norc', '--noprofile', '-i'], { terminal: true });
    await unit.start({ columns: 77, rows: 22 });
    await killMonitor(unit);
    await unit.launch({ kind: 'adopt' });
    using client = await unit.attach();
    let text = '';
    client.stdout.on('data', (bytes) => {
      text += String(bytes);
    });
    await client.write(Buffer.from('stty size; sleep 100\n'));
    await eventually('size', () => (/22 77\r\n/.test(text) ? true : undefined));
    await inForeground(unit, 'sleep');
    await client.write(Buffer.from('\x03'));
    await client.write(Buffer.from('exit 8\n'));
    const end = await within(client.done);
    assert.equal(end.kind === 'exited' ? end.end.exitCode : undefined, 8);
    await unit.remove();
  });
});
