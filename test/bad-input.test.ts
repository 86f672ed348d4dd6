import assert from 'node:assert/strict';
import {
  chmodSync,
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { exitCodes } from '../src/errors.ts';
import { NodeFixture } from './support/node-fixture.ts';
import { projectRoot } from './support/probe-programs.ts';
import { mustRun, runCommand } from './support/run-command.ts';

const idle = ['/bin/sh', '-c', 'echo started; while :; do sleep 1; done'];

describe('bad input', () => {
  let node: NodeFixture;
  before(async () => {
    node = await NodeFixture.start();
    await node.run('idle', [], idle);
    await node.waitOutput('idle', /started/);
    await node.checkpoint('idle');
  });
  after(() => node?.[Symbol.asyncDispose]());

  for (const argv of [
    ['checkpoint', 'nobody'],
    ['logs', 'nobody'],
    ['restart', 'nobody'],
    ['stop', 'nobody'],
    ['inspect', 'nobody'],
    ['exec', 'nobody', '--', 'true'],
  ]) {
    it(`R22 an unknown job is an argument error of ${argv[0]}`, async () => {
      const error = await node.fails(argv);
      assert.deepEqual([error.class, error.exitCode], ['argument', exitCodes.argument]);
      assert.match(error.message, /nobody/);
    });
  }

  it('R22 a snapshot of another job, or one that does not exist, is refused', async () => {
    await node.run('other', [], idle);
    const error = await node.fails(['restart', 'other@1']);
    assert.deepEqual([error.class, error.exitCode], ['argument', exitCodes.argument], error.message);
    assert.match(error.message, /other/);
    await node.remove('other');
    assert.equal((await node.fails(['inspect', 'idle@99'])).class, 'argument');
  });

  for (const name of ['a/b', '../x', 'a b', '', '-x', 'x'.repeat(64), 'ümlaut', '.']) {
    it(`a job name like ${JSON.stringify(name)} is refused`, async () => {
      const error = await node.fails(['run', '-d', `--name=${name}`, '--', '/bin/true']);
      assert.deepEqual([error.class, error.exitCode], ['argument', exitCodes.argument], error.message);
      assert.ok(!existsSync(path.join(node.stateDirectory, 'units', 'x')));
    });
  }

  it('R22 a program that does not exist, a missing mount and a taken name are refused', async () => {
    for (const argv of [
      ['run', '-d', '--name', 'no-program', '--', '/no/such/program'],
      ['run', '-d', '--name', 'no-mount', '-v', '/no/such/directory:/x', '--', '/bin/true'],
      ['run', '-d', '--name', 'idle', '--', '/bin/true'],
    ]) {
      const error = await node.fails(argv);
      assert.equal(error.class, 'argument', `${argv.join(' ')}: ${error.message}`);
      assert.ok(error.message.length > 10);
    }
    for (const job of ['no-program', 'no-mount']) await node.cairn(['rm', '-f', job]);
  });

  it('R23 a running job is not restarted a second time', async () => {
    const error = await node.fails(['restart', 'idle']);
    assert.equal(error.code, 'job-running');
    assert.match(error.remedy ?? '', /--clone/);
  });

  it('R25 without root everything says so, and does nothing', async () => {
    const unprivileged = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];
    for (const argv of [
      ['jobs'],
      ['checkpoint', 'idle'],
      ['node', '--state', '/tmp/cairn-no', '--run', '/tmp/cairn-no'],
    ]) {
      const result = await runCommand([...unprivileged, path.join(projectRoot, 'cairn'), ...argv], {
        environment: { CAIRN_RUN: node.runDirectory, HOME: '/tmp' },
      });
      assert.equal(result.code, exitCodes.environment, `cairn ${argv.join(' ')}: ${result.stderr}`);
      assert.match(result.stderr, /root|permission|not allowed/i);
      assert.doesNotMatch(result.stderr, /^\s+at /m, 'a stack trace is no message');
    }
    assert.ok(!existsSync('/tmp/cairn-no'));
  });

  it('without a daemon the error says how to start one', async () => {
    const result = await node.cairn(['jobs', '--json'], {
      environment: { CAIRN_RUN: path.join(node.directory, 'nowhere') },
    });
    assert.equal(result.code, exitCodes.environment);
    const { error } = JSON.parse(result.stderr);
    assert.match(error.remedy, /cairn node|systemctl/);
  });

  it('a second daemon on the same directories is refused, and harms nothing', async () => {
    const second = await runCommand(
      [path.join(projectRoot, 'cairn'), 'node', '--state', node.stateDirectory, '--run', node.runDirectory],
      { timeoutMs: 20_000 },
    );
    assert.equal(second.code, exitCodes.environment, second.stderr);
    assert.equal(await node.state('idle'), 'running');
  });

  describe('CRIU that does not do', () => {
    const fakes: Record<string, { script: string; classes: string[]; says: RegExp }> = {
      'is missing': { script: '', classes: ['environment'], says: /CRIU|criu/ },
      'is too old': { script: 'echo "Version: 3.17.1"; exit 0', classes: ['environment'], says: /3\.17\.1/ },
      'tells no version': { script: 'exit 1', classes: ['environment'], says: /version/ },
      'crashes at once': {
        script: '[ "$1" = --version ] && exec "$REAL" "$@"; kill -SEGV $$',
        classes: ['temporary', 'permanent', 'environment'],
        says: /CRIU|criu/i,
      },
      'crashes in the middle': {
        script:
          '[ "$1" = --version ] && exec "$REAL" "$@"; [ "$1" = dump ] || exec "$REAL" "$@"; "$REAL" "$@" & sleep 0.05; kill -KILL $!; wait $!; kill -SEGV $$',
        classes: ['temporary', 'permanent', 'environment'],
        says: /CRIU|criu/i,
      },
    };
    before(async () => {
      await node.run('fallen', [], idle);
      await node.waitOutput('fallen', /started/);
      await node.checkpoint('fallen');
      await node.crash('fallen');
    });
    afterEach(async () => {
      await node.endDaemon('SIGTERM');
      await node.startDaemon({});
    });
    /** A program in the place of CRIU; without a script there is none. */
    async function fakeCriu(what: string, script: string): Promise<string> {
      const fake = path.join(node.directory, `criu-${what.replaceAll(' ', '-')}`);
      if (script === '') return fake;
      writeFileSync(fake, `#!/bin/sh\nREAL=${await realCriu()}\n${script}\n`);
      chmodSync(fake, 0o755);
      return fake;
    }
    for (const [what, { script, classes, says }] of Object.entries(fakes)) {
      it(`R21 R22 when CRIU ${what}, the checkpoint fails and the job runs on`, async () => {
        await node.endDaemon('SIGTERM');
        await node.startDaemon({ CAIRN_CRIU: await fakeCriu(what, script) });
        const before = await node.details('idle');
        const error = await node.fails(['checkpoint', 'idle']);
        assert.ok(classes.includes(error.class), `${error.class}: ${error.message}`);
        assert.match(`${error.message} ${error.lines.join(' ')}`, says);
        assert.ok((error.remedy ?? '') !== '' || error.class === 'temporary', 'no remedy');
        const now = await node.details('idle');
        assert.equal(now.job.state.kind, 'running');
        assert.equal(now.unit?.pid, before.unit?.pid);
        assert.equal(now.snapshots.length, before.snapshots.length);
        assert.equal(processState(now.unit?.pid ?? 0), 'S', 'the job is not running');
      });

      // This one crashes only when it dumps.
      if (what === 'crashes in the middle') continue;
      it(`R22 R23 when CRIU ${what}, a restart fails, and succeeds once CRIU is in order`, async () => {
        await node.endDaemon('SIGTERM');
        await node.startDaemon({ CAIRN_CRIU: await fakeCriu(what, script) });
        const error = await node.fails(['restart', 'fallen']);
        assert.ok(classes.includes(error.class), `${error.class}: ${error.message}`);
        assert.match(`${error.message} ${error.lines.join(' ')}`, says);
        const { job, unit, snapshots } = await node.details('fallen');
        assert.deepEqual([job.state.kind, unit?.processes ?? []], ['crashed', []]);
        assert.deepEqual(
          snapshots.map(({ sequence, state }) => [sequence, state]),
          [[1, 'local']],
        );
        await node.endDaemon('SIGTERM');
        await node.startDaemon({});
        await node.restart('fallen');
        assert.equal(await node.state('fallen'), 'running');
        await node.crash('fallen');
      });
    }
  });
});

describe('damaged snapshots', () => {
  let node: NodeFixture;
  let spy: string;
  before(async () => {
    node = await NodeFixture.start();
    // CRIU that leaves a mark when it is called to restore: it must not be.
    spy = path.join(node.directory, 'criu-spy');
    writeFileSync(
      spy,
      `#!/bin/sh\ncase "$1" in restore) echo "$@" >> ${node.directory}/restores ;; esac\nexec ${await realCriu()} "$@"\n`,
    );
    chmodSync(spy, 0o755);
    await node.endDaemon('SIGTERM');
    await node.startDaemon({ CAIRN_CRIU: spy });
  });
  after(() => node?.[Symbol.asyncDispose]());

  const kinds = { pack: /pack/i, manifest: /manifest/i };
  for (const kind of ['pack', 'manifest'] as const) {
    for (const damage of ['truncated', 'bit-flipped', 'missing'] as const) {
      it(`R19 M01 a ${damage} ${kind} is refused by name, before CRIU sees a byte`, async () => {
        const job = `damaged-${kind}-${damage}`;
        await node.run(
          job,
          [],
          ['/bin/sh', '-c', 'head -c 3000000 /dev/urandom > /data; echo started; while :; do sleep 1; done'],
        );
        await node.waitOutput(job, /started/);
        await node.checkpoint(job);
        const { id } = (await node.details(job)).job;
        const files = storeFiles(node).filter((file) => isKind(file, kind, id));
        assert.ok(files.length > 0, `no ${kind} among ${storeFiles(node).join(', ')}`);
        const newest = files.sort((a, b) => statSync(a).mtimeMs - statSync(b).mtimeMs).at(-1) ?? '';
        const saved = readFileSync(newest);
        await node.crash(job);
        const marks = restores(node);
        spoil(newest, damage);
        try {
          // Without its manifest there is no such snapshot any more.
          const isGone = kind === 'manifest' && damage === 'missing';
          const expected = isGone ? 'argument' : 'permanent';
          const named = isGone ? /snapshot/i : kinds[kind];
          const checked = await node.cairn(['verify', '--json', `${job}@1`]);
          assert.equal(checked.code, exitCodes[expected], `verify: ${checked.stdout}${checked.stderr}`);
          assert.match(checked.stdout + checked.stderr, named);
          const error = await node.fails(['restart', `${job}@1`]);
          assert.deepEqual(
            [error.class, error.exitCode],
            [expected, exitCodes[expected]],
            `${error.code}: ${error.message}`,
          );
          assert.match(`${error.message} ${error.lines.join(' ')}`, named);
          assert.equal(restores(node), marks, 'CRIU was called to restore');
          assert.equal(await node.state(job), 'crashed');
        } finally {
          writeFileSync(newest, saved, { mode: 0o600 });
        }
        await node.restart(`${job}@1`);
        assert.notEqual(restores(node), marks, 'it would not be noticed that CRIU is called');
        assert.equal(await node.state(job), 'running');
        await node.remove(job);
      });
    }
  }

  it('R19 M01 the manifest of another job, or of another number, is refused by name, before CRIU sees a byte', async () => {
    for (const job of ['mine', 'theirs']) {
      await node.run(job, [], idle);
      await node.waitOutput(job, /started/);
      await node.checkpoint(job);
    }
    await node.checkpoint('theirs');
    await node.crash('mine');
    const [mine, theirs] = [(await node.details('mine')).job.id, (await node.details('theirs')).job.id];
    const manifests = (id: string) =>
      storeFiles(node)
        .filter((file) => isKind(file, 'manifest', id))
        .sort();
    const [target = ''] = manifests(mine);
    const [first = '', second = ''] = manifests(theirs);
    const saved = readFileSync(target);
    const marks = restores(node);
    for (const foreign of [first, second]) {
      writeFileSync(target, readFileSync(foreign));
      const error = await node.fails(['restart', 'mine@1']);
      assert.deepEqual([error.class, error.exitCode], ['permanent', exitCodes.permanent], error.message);
      assert.match(error.message, /manifest/i);
      assert.equal(await node.state('mine'), 'crashed');
    }
    assert.equal(restores(node), marks, 'CRIU was called to restore');
    writeFileSync(target, saved);
    await node.restart('mine@1');
    for (const job of ['mine', 'theirs']) await node.remove(job);
  });

  it('R19 M01 a pack in the place of another one is refused by name, before CRIU sees a byte', async () => {
    await node.run(
      'swapped',
      [],
      ['/bin/sh', '-c', 'head -c 3000000 /dev/urandom > /data; echo started; while :; do sleep 1; done'],
    );
    await node.waitOutput('swapped', /started/);
    const before = storeFiles(node);
    await node.checkpoint('swapped');
    const { id } = (await node.details('swapped')).job;
    const [pack = '', other = ''] = storeFiles(node)
      .filter((file) => isKind(file, 'pack', id) && !before.includes(file))
      .concat(before.filter((file) => isKind(file, 'pack', id)));
    await node.crash('swapped');
    const saved = readFileSync(pack);
    const marks = restores(node);
    writeFileSync(pack, other === '' ? Buffer.alloc(saved.length) : readFileSync(other));
    const error = await node.fails(['restart', 'swapped@1']);
    assert.equal(error.class, 'permanent', error.message);
    assert.match(`${error.message} ${error.lines.join(' ')}`, /pack/);
    assert.equal(restores(node), marks, 'CRIU was called to restore');
    writeFileSync(pack, saved);
    await node.restart('swapped@1');
    await node.remove('swapped');
  });
});

async function realCriu(): Promise<string> {
  const found = (
    await mustRun(['/bin/sh', '-c', 'ls /opt/cairn/bin/criu 2> /dev/null || command -v criu'])
  ).trim();
  assert.ok(found.startsWith('/'));
  return found;
}

function processState(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return stat[stat.lastIndexOf(')') + 2] ?? '?';
}

function storeFiles(node: NodeFixture): string[] {
  const store = path.join(node.stateDirectory, 'store');
  return readdirSync(store, { recursive: true, encoding: 'utf8' })
    .map((name) => path.join(store, name))
    .filter((file) => statSync(file).isFile());
}

function isKind(file: string, kind: 'pack' | 'manifest', jobId: string): boolean {
  return kind === 'pack' ? /pack/.test(file) && !/index/.test(file) : file.includes(jobId);
}

function spoil(file: string, damage: 'truncated' | 'bit-flipped' | 'missing'): void {
  const { size } = statSync(file);
  if (damage === 'missing') return rmSync(file);
  const fd = openSync(file, 'r+');
  try {
    if (damage === 'truncated') return ftruncateSync(fd, size - 1000);
    const bytes = readFileSync(file);
    const at = Math.floor(size / 2);
    writeSync(fd, Buffer.from([(bytes[at] ?? 0) ^ 4]), 0, 1, at);
  } finally {
    closeSync(fd);
  }
}

function restores(node: NodeFixture): string {
  const file = path.join(node.directory, 'restores');
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}
