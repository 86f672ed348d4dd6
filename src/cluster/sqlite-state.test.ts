import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import test from 'node:test';
import { CairnError } from '../errors.ts';
import { SqliteState } from './sqlite-state.ts';
import { testStateContract } from './state-contract.ts';

async function temporaryDirectory(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'cairn-state-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

testStateContract('SQLite state', async () => {
  const directory = await temporaryDirectory();
  const state = SqliteState.open(join(directory.path, 'node.db'));
  return {
    state,
    async [Symbol.asyncDispose]() {
      await state[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
});

test('SQLite state keeps values and revisions when it is opened again', async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'node.db');
  let revision: number;
  {
    await using state = SqliteState.open(path);
    revision = await state.put('jobs/a', { name: 'redis' });
  }
  await using again = SqliteState.open(path);
  assert.deepEqual(await again.get('jobs/a'), { key: 'jobs/a', value: { name: 'redis' }, revision });
  assert.ok((await again.put('jobs/b', 1)) > revision);
});

test('R19 SQLite state keeps every change whose promise resolved when the process is killed', async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'node.db');
  const program = `
    import { SqliteState } from ${JSON.stringify(new URL('./sqlite-state.ts', import.meta.url).href)};
    const state = SqliteState.open(${JSON.stringify(path)});
    for (let n = 1; ; n++) { await state.put('n', n); process.stdout.write(n + '\\n'); }`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  for await (const chunk of child.stdout) {
    output += String(chunk);
    if (output.split('\n').length > 20) break;
  }
  child.kill('SIGKILL');
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  const reported = Number(output.slice(0, output.lastIndexOf('\n')).split('\n').at(-1));
  await using state = SqliteState.open(path);
  const entry = await state.get('n');
  assert.ok(
    Number(entry?.value) >= reported,
    `the child reported ${reported}, the state holds ${entry?.value}`,
  );
});

test('SQLite state refuses a second process on the same file', async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'node.db');
  await using _state = SqliteState.open(path);
  const program = `
    import { SqliteState } from ${JSON.stringify(new URL('./sqlite-state.ts', import.meta.url).href)};
    try { SqliteState.open(${JSON.stringify(path)}); console.log('opened'); } catch (error) { console.log(error.code); }`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  for await (const chunk of child.stdout) output += String(chunk);
  assert.equal(output.trim(), 'state-locked');
});

test('H06 SQLite state can be read by its owner only', async () => {
  await using directory = await temporaryDirectory();
  await using state = SqliteState.open(join(directory.path, 'node.db'));
  await state.put('a', 1);
  for (const name of await readdir(directory.path)) {
    assert.equal((await stat(join(directory.path, name))).mode & 0o077, 0, name);
  }
});

test('SQLite state refuses a version that it does not know', async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, 'node.db');
  const database = new DatabaseSync(path);
  database.exec('PRAGMA user_version = 99');
  database.close();
  assert.throws(
    () => SqliteState.open(path),
    (error) => error instanceof CairnError && error.code === 'state-version',
  );
});
