/** A small tree of processes for tests of CRIU, which check their memory themselves. */

import assert from 'node:assert/strict';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { becomeSubreaper, reapChild } from '../../linux/pidfd.ts';
import { readStat, readTree } from '../../linux/process.ts';
import { Program } from '../../linux/spawn.ts';
import { type Criu, findCriu } from '../find.ts';

/** Random memory of each of the two processes. */
export const mebibytes = 16;

/** Two processes with random memory that check it themselves when a file asks them to. */
const program = String.raw`
my ($d, $n) = @ARGV; my ($m, $b) = ('', '');
open(my $u, '<', '/dev/urandom'); for (1..$n) { read($u, $b, 1<<20); $m .= $b } close $u;
my $role = fork() ? 'parent' : 'child';
substr($m, 12345, 4) = 'kid!' if $role eq 'child';
my $want = unpack('%64C*', $m);
open(my $r, '>', "$d/ready-$role"); close $r;
while (1) {
  if (-e "$d/verify" && ! -e "$d/verified-$role") {
    open(my $v, '>', "$d/verified-$role.new"); print $v unpack('%64C*', $m) eq $want ? 'good' : 'bad'; close $v;
    rename "$d/verified-$role.new", "$d/verified-$role";
  }
  select(undef, undef, undef, 0.005);
}`;

async function poll(what: string, condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 20_000; !condition(); ) {
    if (Date.now() > deadline) throw new Error(`waited 20 s for ${what}`);
    await setTimeout(2);
  }
}

/** CRIU, or `undefined` after skipping the test. */
export async function criuOrSkip(t: TestContext): Promise<Criu | undefined> {
  if (process.getuid?.() !== 0) t.skip('needs root');
  else {
    try {
      return await findCriu();
    } catch (error) {
      t.skip((error as Error).message);
    }
  }
  return undefined;
}

/** Two processes in a session of their own, ended with the test. */
export class SelfCheckingProgram {
  readonly directory = mkdtempSync('/tmp/cairn-criu-');
  readonly pid: number;
  tree: number[] = [];
  #program: Program | undefined;

  constructor(t: TestContext) {
    becomeSubreaper();
    const nothing = openSync('/dev/null', 'r+');
    const argv = ['perl', '-e', program, this.directory, String(mebibytes)];
    this.#program = new Program(argv, { stdin: nothing, stdout: nothing, stderr: nothing, cwd: '/' });
    closeSync(nothing);
    this.pid = this.#program.pid ?? 0;
    t.after(async () => {
      await this.kill();
      rmSync(this.directory, { recursive: true, force: true });
    });
  }

  async ready(): Promise<void> {
    await poll('the program', () =>
      ['parent', 'child'].every((role) => existsSync(`${this.directory}/ready-${role}`)),
    );
    this.tree = readTree(this.pid);
    assert.equal(this.tree.length, 2);
  }

  /** Asks both processes to check their memory. */
  async verify(): Promise<void> {
    writeFileSync(`${this.directory}/verify`, '');
    for (const role of ['parent', 'child']) {
      const file = `${this.directory}/verified-${role}`;
      await poll(`${role}'s answer`, () => existsSync(file));
      assert.equal(readFileSync(file, 'utf8'), 'good', role);
      rmSync(file);
    }
    rmSync(`${this.directory}/verify`);
    for (const role of ['parent', 'child']) rmSync(`${this.directory}/verified-${role}`, { force: true });
  }

  /** Ends both processes and waits until their PIDs are free. */
  async kill(): Promise<void> {
    for (const pid of this.tree) {
      if (readStat(pid) !== undefined) process.kill(pid, 'SIGKILL');
    }
    if (this.#program) await this.#program[Symbol.asyncDispose]();
    this.#program = undefined;
    await poll('the end of the program', () =>
      this.tree.every((pid) => {
        reapChild(pid);
        return readStat(pid) === undefined;
      }),
    );
  }
}
