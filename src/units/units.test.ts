import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pack } from 'tar-stream';
import { mountsOf } from '../linux/mounts.ts';
import { isAlive, readStatus } from '../linux/process.ts';
import { linkOf } from '../network/attach.ts';
import { commandOf, loadImage } from './oci-image.ts';
import { resolveUser } from './users.ts';
import { readStatusRecord } from './unit-status.ts';
import { eventually, outputOf, TestNode, whyNoUnits } from './test-node.ts';

const skip = (await whyNoUnits()) ?? false;

describe('units', { skip, timeout: 180_000 }, () => {
  let node: TestNode;
  before(async () => {
    node = await TestNode.create();
  });
  after(() => node[Symbol.asyncDispose]());

  const sh = (script: string) => ['sh', '-c', script];
  const deadline = () => AbortSignal.timeout(30_000);

  test('R01 a command runs, its output and exit code are kept', async () => {
    const unit = await node.start(sh('echo out; echo err >&2; printf half; exit 7'));
    const status = await unit.waitExit(deadline());
    assert.equal(status.state, 'exited');
    assert.equal(status.exitCode, 7);
    assert.deepEqual(await outputOf(unit), { stdout: 'out\nhalf', stderr: 'err\n' });
    await unit.remove();
  });

  test('R22 a command that does not exist is the fault of the caller, and nothing is left running', async () => {
    const unit = await node.prepare(['/no/such/program']);
    await assert.rejects(unit.start(), { class: 'argument', code: 'unit-command-not-found' });
    assert.equal((await unit.status()).state, 'prepared');
    assert.deepEqual(unit.cgroup.processes(), []);
    await unit.remove();
  });

  test('X04 a unit sees its own processes, host name, /tmp, /run and devices, and none of the node', async () => {
    mkdirSync(path.join(node.directory, 'state'), { recursive: true });
    writeFileSync(path.join(node.directory, 'state', 'secret'), 'secret');
    const unit = await node.start(
      sh(`hostname; ls -A /tmp /run /var/tmp | tr '\\n' ' '; echo; ls /dev | tr '\\n' ' '; echo
        cat ${node.directory}/state/secret || echo hidden; ls -d /proc/[0-9]* | wc -l
        cat /proc/self/uid_map; awk '{print $3, $9}' /proc/self/mountinfo | grep -c tmpfs
        stat -c %a /tmp; touch /tmp/mine /usr/mine && echo writable; ls /sys/fs/cgroup | wc -l`),
    );
    await unit.waitExit(deadline());
    const lines = (await outputOf(unit)).stdout.split('\n');
    assert.equal(lines[0], 'unit');
    assert.equal(lines[1]?.replace(/\s+/g, ' ').trim(), '/run: /tmp: /var/tmp:');
    assert.match(
      lines[2] ?? '',
      /^fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\s*$/,
    );
    assert.equal(lines[3], 'hidden');
    assert.ok(Number(lines[4]) <= 4, `it sees ${lines[4]} processes`);
    assert.match(lines[5] ?? '', /^\s+0\s+0\s+4294967295$/);
    assert.ok(!existsSync('/usr/mine'), 'the host has been written to');
    assert.ok(lines.includes('1777'));
    assert.ok(lines.includes('writable'));
    await unit.remove();
  });

  test('no tmpfs is mounted in a unit but its /dev/shm, which the node has made', async () => {
    const unit = await node.start(['sleep', '1000']);
    const { pid } = await unit.status();
    const tmpfs = mountsOf(pid ?? 0).filter((mount) => mount.type === 'tmpfs');
    assert.deepEqual(
      tmpfs.map((mount) => mount.mountPoint),
      ['/dev/shm'],
    );
    await unit.remove();
  });

  test('R05 programs of uid 1000 and 33 run as such, with limited rights', async () => {
    for (const [uid, gid] of [
      [1000, 1000],
      [33, 33],
    ] as const) {
      const unit = await node.start(
        sh(
          'id -u; id -g; id -G; touch /tmp/mine && echo mine; touch /etc/mine || echo refused; cat /proc/self/status',
        ),
        { user: { uid, gid, additionalGids: [50] } },
      );
      await unit.waitExit(deadline());
      const { stdout } = await outputOf(unit);
      assert.ok(stdout.startsWith(`${uid}\n${gid}\n${gid} 50\nmine\nrefused\n`), stdout);
      assert.match(stdout, /^CapEff:\s0+$/m);
      assert.match(stdout, /^Seccomp:\s2$/m);
      await unit.remove();
    }
  });

  test('root of a unit cannot harm the host: no modules, no sysctl, no sysrq, no mounts, no device nodes', async () => {
    const unit = await node.start(
      sh(`(echo 1 > /proc/sys/kernel/panic) 2>&1; (echo h > /proc/sysrq-trigger) 2>&1
        mount -t tmpfs none /mnt 2>&1; mknod /tmp/disk b 254 0 2>&1; unshare -m true 2>&1; dmesg 2>&1 | tail -1; echo done`),
    );
    await unit.waitExit(deadline());
    const { stdout } = await outputOf(unit);
    const refusals = stdout
      .trim()
      .split('\n')
      .filter((line) => !line.includes('may have more information'));
    assert.equal(refusals.at(-1), 'done');
    assert.ok(refusals.length >= 7, stdout);
    for (const line of refusals.slice(0, -1)) {
      assert.match(line, /denied|not permitted|Read-only|cannot create|must be superuser/i, stdout);
    }
    await unit.remove();
  });

  test('a killed command tells its signal; SIGTERM that it ignores is followed by SIGKILL', async () => {
    const unit = await node.start(sh('trap "" TERM; echo ready; while :; do sleep 0.05; done'));
    await eventually('ready', async () => ((await outputOf(unit)).stdout === 'ready\n' ? true : undefined));
    const status = await unit.stop({ graceMs: 100 });
    assert.equal(status.state, 'exited');
    assert.equal(status.signal, 9);
    assert.deepEqual(await unit.processes(), []);
    await unit.remove();

    const polite = await node.start(
      sh('trap "echo bye; exit 3" TERM; echo ready; while :; do sleep 0.05; done'),
    );
    await eventually('ready', async () => ((await outputOf(polite)).stdout === 'ready\n' ? true : undefined));
    assert.equal((await polite.stop({ graceMs: 10_000 })).exitCode, 3);
    assert.equal((await outputOf(polite)).stdout, 'ready\nbye\n');
    await polite.remove();
  });

  test('a command that needs more memory than it may is killed, and the status says why', async () => {
    const script = "b''.join(bytes(1 << 20) for _ in range(1 << 20))";
    const unit = await node.start(['python3', '-c', script], { resources: { memoryBytes: 32 * 2 ** 20 } });
    const status = await unit.waitExit(deadline());
    assert.equal(status.signal, 9);
    assert.equal(status.oomKilled, true);
    await unit.remove();
  });

  test('limits of processes and processors are set', async () => {
    const unit = await node.start(sh('for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo $?'), {
      resources: { pids: 5, cpus: 0.5 },
    });
    await unit.waitExit(deadline());
    assert.match((await outputOf(unit)).stderr, /fork/);
    await unit.remove();
  });

  test('logs are rotated by size, no line of the kept ones is lost or broken', async () => {
    const unit = await node.start(sh('i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "line $i"; done'), {
      logs: { maxBytes: 20_000, files: 4 },
    });
    await unit.waitExit(deadline());
    const files = readdirSync(unit.paths.logs).filter((name) => name.startsWith('unit.log'));
    assert.ok(files.length >= 3 && files.length <= 4, files.join(' '));
    const numbers: number[] = [];
    for await (const line of unit.logs()) numbers.push(Number(line.text.slice(5)));
    assert.equal(numbers.at(-1), 3000);
    for (const [i, n] of numbers.entries()) assert.equal(n, (numbers[0] ?? 0) + i);
    const tail: string[] = [];
    for await (const line of unit.logs({ tail: 2 })) tail.push(line.text);
    assert.deepEqual(tail, ['line 2999', 'line 3000']);
    await unit.remove();
  });

  test('followed logs go on until the unit ends', async () => {
    const unit = await node.start(
      sh('echo 1; read x < /proc/self/fd/0; sleep 0.2; echo 2; sleep 0.2; echo 3'),
    );
    const lines: string[] = [];
    for await (const line of unit.logs({ follow: true, signal: deadline() })) lines.push(line.text);
    assert.deepEqual(lines, ['1', '2', '3']);
    await unit.remove();
  });

  test('suspend stops a unit where it is, resume lets it go on', async () => {
    const unit = await node.start(sh('while :; do echo x; sleep 0.01; done'));
    await eventually('output', async () => ((await outputOf(unit)).stdout.length > 4 ? true : undefined));
    await unit.suspend();
    assert.equal((await unit.status()).state, 'suspended');
    const before = await eventually('quiet', async () => {
      const one = (await outputOf(unit)).stdout.length;
      await new Promise((resolve) => setTimeout(resolve, 50));
      return (await outputOf(unit)).stdout.length === one ? one : undefined;
    });
    unit.resume();
    await eventually('more', async () => ((await outputOf(unit)).stdout.length > before ? true : undefined));
    assert.equal((await unit.status()).state, 'running');
    await unit.suspend();
    assert.equal((await unit.kill()).signal, 9, 'a suspended unit can be killed');
    await unit.remove();
  });

  test('nothing is left of a removed unit: process, mount, control group, interface, file', async () => {
    const unit = await node.start(sh('sleep 1000 & sleep 1000 & wait'), {
      network: {
        mode: 'bridge',
        ports: [{ hostAddress: '0.0.0.0', hostPort: 41999, unitPort: 80, protocol: 'tcp' }],
      },
    });
    const record = readStatusRecord(unit.paths.status);
    assert.ok(record);
    const table = () => execFileSync('nft', ['list', 'ruleset'], { encoding: 'utf8' });
    assert.ok(existsSync(`/sys/class/net/${linkOf(unit.id)}`));
    assert.match(table(), /41999/);
    await unit.remove();
    assert.ok(!isAlive(record.init) && !isAlive(record.monitor));
    assert.deepEqual(
      mountsOf().filter((mount) => mount.mountPoint.includes(unit.id)),
      [],
    );
    assert.deepEqual(
      unit.cgroup.directories().filter((directory) => existsSync(directory)),
      [],
    );
    assert.ok(!existsSync(`/sys/class/net/${linkOf(unit.id)}`));
    assert.doesNotMatch(table(), /41999/);
    assert.ok(!existsSync(unit.paths.state) && !existsSync(unit.paths.run));
    assert.equal(await node.units.addresses.addressOf(unit.id), undefined);
  });

  test('what a daemon killed in the middle of preparing has left is swept away', async () => {
    const unit = await node.prepare(['true']);
    unit.mountRoot();
    execFileSync('rm', [unit.paths.spec]);
    assert.deepEqual(await node.units.sweep(), [unit.id]);
    assert.ok(!existsSync(unit.paths.state) && !unit.cgroup.exists());
  });

  test('a description that a killed daemon has not written to its end is swept away, and nothing else of that unit', async () => {
    const unit = await node.prepare(['true']);
    const unfinished = path.join(unit.paths.state, '.spec.json.0a1b2c3d.tmp');
    const ofItsMonitor = path.join(unit.paths.state, '.status.json.0a1b2c3d.tmp');
    for (const file of [unfinished, ofItsMonitor]) writeFileSync(file, '{');
    assert.deepEqual(await node.units.sweep(), []);
    assert.ok(!existsSync(unfinished));
    assert.ok(existsSync(ofItsMonitor) && existsSync(unit.paths.spec));
    await unit.remove();
  });

  test('P05 the command of an OCI image runs in it, on nothing but its files', async () => {
    const layout = path.join(node.directory, 'layout');
    await makeImage(layout);
    const { rootfs, config } = await loadImage(node.units.imageDirectory, layout);
    const unit = await node.start(
      commandOf(config, ['-c', 'echo $GREETING; ls /; id -u; touch /made && echo made']),
      {
        rootFileSystem: { kind: 'oci', path: layout },
        environment: config.environment,
        user: resolveUser(rootfs, config.user).user,
        workingDirectory: config.workingDirectory,
      },
    );
    rmSync(layout, { recursive: true });
    assert.equal((await (await node.units.open(unit.id))?.waitExit(deadline()))?.exitCode, 0);
    const { stdout } = await outputOf(unit);
    assert.match(stdout, /^hello\n/);
    assert.match(stdout, /\nhome\n/);
    assert.match(stdout, /\n1234\nmade\n$/);
    assert.doesNotMatch(stdout, /\nboot\n/);
    await unit.remove();
  });

  test('bind mounts appear, read-only ones cannot be written', async () => {
    const shared = path.join(node.directory, 'shared');
    mkdirSync(shared);
    writeFileSync(path.join(shared, 'given'), 'given');
    const unit = await node.start(
      sh('cat /data/given; echo made > /data/made; echo no > /fixed/no || echo refused'),
      {
        mounts: [
          { source: shared, target: '/data', readonly: false },
          { source: shared, target: '/fixed', readonly: true },
        ],
      },
    );
    await unit.waitExit(deadline());
    assert.equal((await outputOf(unit)).stdout, 'givenrefused\n');
    assert.equal(readFileSync(path.join(shared, 'made'), 'utf8'), 'made\n');
    await unit.remove();
  });

  test('the first process of a unit is in its control group and has the namespaces that it should have', async () => {
    const unit = await node.start(['sleep', '1000']);
    const { pid = 0 } = await unit.status();
    assert.ok(unit.cgroup.holds(pid));
    assert.deepEqual(await unit.processes(), [pid]);
    assert.deepEqual(readStatus(pid)?.namespacePids, [pid, 1]);
    for (const kind of ['user', 'pid', 'mnt', 'ipc', 'uts', 'net', 'cgroup', 'time']) {
      const link = (of: number | 'self') =>
        execFileSync('readlink', [`/proc/${of}/ns/${kind}`], { encoding: 'utf8' });
      assert.notEqual(
        link(pid),
        execFileSync('readlink', [`/proc/${process.pid}/ns/${kind}`], { encoding: 'utf8' }),
      );
    }
    await unit.remove();
  });
});

/** A tiny image: the host's shell and `ls`, `id`, `touch` with the libraries that they need. */
async function makeImage(layout: string): Promise<void> {
  const programs = ['/bin/sh', '/bin/ls', '/usr/bin/id', '/usr/bin/touch'];
  const listed = execFileSync('ldd', programs, { encoding: 'utf8' });
  const libraries = new Set([...listed.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] ?? ''));
  const layer = pack();
  for (const file of [...programs, ...libraries]) {
    layer.entry({ name: file.slice(1), mode: 0o755, uid: 0, gid: 0 }, readFileSync(file));
  }
  layer.entry({ name: 'etc/passwd' }, 'app:x:1234:1234::/home/app:/bin/sh\n');
  layer.entry({ name: 'home', type: 'directory', mode: 0o777, uid: 1234, gid: 1234 });
  layer.entry({ name: './', type: 'directory', mode: 0o777 });
  layer.finalize();
  const pieces: Uint8Array[] = [];
  for await (const piece of layer) pieces.push(piece as Uint8Array);
  mkdirSync(path.join(layout, 'blobs/sha256'), { recursive: true });
  const add = (bytes: Uint8Array) => {
    const hex = createHash('sha256').update(bytes).digest('hex');
    writeFileSync(path.join(layout, 'blobs/sha256', hex), bytes);
    return { digest: `sha256:${hex}`, size: bytes.length };
  };
  const json = (value: unknown) => add(Buffer.from(JSON.stringify(value)));
  const blob = add(Buffer.concat(pieces));
  const settings = {
    Entrypoint: ['sh'],
    Env: ['GREETING=hello', 'PATH=/usr/bin:/bin'],
    User: 'app',
    WorkingDir: '/home',
  };
  const config = json({ os: 'linux', config: settings, rootfs: { diff_ids: [blob.digest] } });
  const manifest = json({ schemaVersion: 2, config, layers: [blob] });
  writeFileSync(path.join(layout, 'index.json'), JSON.stringify({ manifests: [manifest] }));
}
