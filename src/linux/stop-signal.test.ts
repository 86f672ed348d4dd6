import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { readChildren, readStatus } from './process.ts';
import { stopSignalOf } from './stop-signal.ts';

/** A process group with a parent outside of it in the same session: others are not stopped by job control. */
const script = 'if (fork() == 0) { setpgrp(0, 0); exec "sleep", "60" } sleep 60';

async function until<T>(what: string, look: () => T | undefined | false): Promise<T> {
  for (const deadline = Date.now() + 10_000; ; await setTimeout(2)) {
    const found = look();
    if (found !== undefined && found !== false) return found;
    assert.ok(Date.now() < deadline, what);
  }
}

function isUntraced(pid: number, state: string): boolean {
  const status = readStatus(pid);
  return status?.state === state && status.tracer === 0;
}

test('R18 what stopped a process is told any number of times; it stays stopped and can go on', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('needs root');
  const parent = spawn('perl', ['-e', script], { detached: true, stdio: 'ignore' });
  let pid = 0;
  t.after(async () => {
    if (pid > 0) process.kill(pid, 'SIGKILL');
    if (parent.exitCode === null && parent.kill('SIGKILL')) await once(parent, 'exit');
  });
  pid = await until('the child runs', () => {
    const child = readChildren(parent.pid ?? 0)?.[0];
    return child !== undefined && readStatus(child)?.name === 'sleep' && child;
  });
  for (const name of ['SIGSTOP', 'SIGTSTP', 'SIGTTIN', 'SIGTTOU'] as const) {
    process.kill(pid, name);
    await until(`${name} has stopped it`, () => isUntraced(pid, 'T'));
    for (let times = 0; times < 2; times++) {
      assert.equal(stopSignalOf(pid), constants.signals[name], name);
      await until('it is stopped again', () => isUntraced(pid, 'T'));
    }
    process.kill(pid, 'SIGCONT');
    await until('it goes on', () => isUntraced(pid, 'S'));
  }
  assert.equal(stopSignalOf(pid), undefined, 'it is not stopped');
  await until('it runs as before', () => isUntraced(pid, 'S'));
});

test('R18 a process that does not exist has no stop signal', () => {
  assert.equal(stopSignalOf(2 ** 22 - 1), undefined);
});
