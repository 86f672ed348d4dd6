import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { CairnError } from '../errors.ts';
import { findRuntime } from '../linux/find-program.ts';
import { checkCriu, findCriu } from './find.ts';

/** A directory with scripted programs; the environment of the test points to it and is put back. */
class Stage {
  readonly directory: string;
  readonly #before = { ...process.env };

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async create(): Promise<Stage> {
    const stage = new Stage(await mkdtemp(path.join(tmpdir(), 'cairn-find-')));
    process.env.CAIRN_PREFIX = path.join(stage.directory, 'prefix');
    process.env.PATH = path.join(stage.directory, 'path');
    delete process.env.CAIRN_CRIU;
    delete process.env.CAIRN_RUNC;
    return stage;
  }

  async program(file: string, script: string): Promise<string> {
    const target = path.join(this.directory, file);
    await mkdir(path.dirname(target), { recursive: true });
    await writeFile(target, `#!/bin/sh\n${script}\n`);
    await chmod(target, 0o755);
    return target;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of ['CAIRN_PREFIX', 'PATH', 'CAIRN_CRIU', 'CAIRN_RUNC']) {
      if (this.#before[name] === undefined) delete process.env[name];
      else process.env[name] = this.#before[name];
    }
    await rm(this.directory, { recursive: true, force: true });
  }
}

function fails(code: string, pattern: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof CairnError);
    assert.equal(error.class, 'environment');
    assert.equal(error.code, code);
    assert.match(error.message, pattern);
    assert.ok(error.remedy);
    return true;
  };
}

test("CRIU from Cairn's prefix comes before the one in PATH, CAIRN_CRIU before both", async () => {
  await using stage = await Stage.create();
  const inPath = await stage.program('path/criu', 'echo "Version: 4.9"');
  assert.deepEqual(await findCriu(), { path: inPath, version: '4.9', prefix: false });
  const own = await stage.program('prefix/bin/criu', 'echo "Version: 4.2.1"');
  // Another PATH, because what was found is remembered for as long as the environment is the same.
  process.env.PATH += ':/nowhere';
  assert.deepEqual(await findCriu(), { path: own, version: '4.2.1', prefix: true });
  process.env.CAIRN_CRIU = await stage.program('chosen', 'echo "Version: 4.3"');
  assert.deepEqual(await findCriu(), { path: process.env.CAIRN_CRIU, version: '4.3', prefix: false });
});

test('R22 a CAIRN_CRIU that is not there is refused, not replaced by another', async () => {
  await using stage = await Stage.create();
  await stage.program('path/criu', 'echo "Version: 4.9"');
  process.env.CAIRN_CRIU = '/nowhere/criu';
  await assert.rejects(findCriu(), fails('criu-missing', /\/nowhere\/criu/));
});

test('R22 a CRIU that is too old is refused with the reason', async () => {
  await using stage = await Stage.create();
  process.env.CAIRN_CRIU = await stage.program('criu', 'echo "Version: 3.17.1"');
  await assert.rejects(findCriu(), fails('criu-too-old', /3\.17\.1.*4\.2/));
});

test('R22 a CRIU that crashes or says nothing is refused, and found again once it is mended', async () => {
  await using stage = await Stage.create();
  process.env.CAIRN_CRIU = await stage.program('criu', 'kill -SEGV $$');
  await assert.rejects(findCriu(), fails('criu-broken', /version/));
  await stage.program('criu', 'exit 0');
  await assert.rejects(findCriu(), fails('criu-broken', /told none/));
  await stage.program('criu', 'echo "Version: 4.2.1"');
  assert.equal((await findCriu()).version, '4.2.1');
});

test('R22 what `criu check` says is kept when it fails', async () => {
  await using stage = await Stage.create();
  const criu = await stage.program('criu', 'echo "Error (criu/cr-check.c:1): no such kernel" >&2; exit 1');
  await assert.rejects(checkCriu(criu), (error) => {
    assert.ok(fails('criu-broken', /check/)(error));
    assert.match((error as CairnError).lines.join(), /no such kernel/);
    return true;
  });
});

test('features are asked for by name', async () => {
  await using stage = await Stage.create();
  const criu = await stage.program('criu', 'case "$*" in *mem_dirty_track) exit 1;; esac');
  const { features } = await checkCriu(criu);
  assert.equal(features.mem_dirty_track, false);
  assert.equal(features.timens, true);
});

test('R22 a runc without time namespaces is refused', async () => {
  await using stage = await Stage.create();
  process.env.CAIRN_RUNC = await stage.program('runc', 'echo "runc version 1.1.15+ds1"');
  await assert.rejects(findRuntime('runc'), fails('runtime-too-old', /1\.1\.15.*time namespace/));
  process.env.CAIRN_RUNC = await stage.program('runc', 'echo "runc version 1.3.6"');
  assert.equal((await findRuntime('runc')).version, '1.3.6');
});
