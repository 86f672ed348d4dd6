/** What CRIU itself says about programs that it cannot dump, and what Cairn makes of it. Needs root and a CRIU. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { readStat } from '../linux/process.ts';
import { Program } from '../linux/spawn.ts';
import { type DumpOptions, dumpCommand } from './dump-command.ts';
import { explainFailure } from './explain.ts';
import { type Criu, findCriu } from './find.ts';
import { readLog } from './log.ts';

interface Refusal {
  title: string;
  /** Perl; `$d` is a directory of its own. */
  program: string;
  code: string;
  /** In the message. */
  piece: RegExp;
  /** `socket`: standard output is one end of a socket pair whose other end this test holds. */
  output?: 'socket';
  options?: Partial<DumpOptions>;
  /** A file that must exist. */
  needs?: string;
}

/** A device that harms nobody when it is opened, and that CRIU does not save. */
const device =
  ['/dev/loop-control', '/dev/fuse', '/dev/kvm', '/dev/vga_arbiter'].find(existsSync) ?? '/dev/fuse';

const refusals: Refusal[] = [
  {
    title: 'R07 file locks that are not allowed',
    program: 'use Fcntl ":flock"; open(our $f, ">", "$d/lock"); flock($f, LOCK_EX);',
    code: 'file-locks',
    piece: /file locks/,
  },
  {
    title: 'R08 an unlinked file above the limit',
    program: 'open(our $f, "+>", "$d/ghost"); syswrite($f, "x" x 3_000_000); unlink "$d/ghost";',
    code: 'unlinked-too-large',
    piece: /ghost has 30\d+ bytes/,
  },
  {
    title: 'R08 an unlinked file with another name',
    program: 'open(our $f, "+>", "$d/a"); syswrite($f, "x"); link "$d/a", "$d/b"; unlink "$d/a";',
    code: 'unlinked-linked-elsewhere',
    piece: /unlinked but has another name/,
  },
  {
    title: 'R13 a socket pair that leaves the tree',
    program: '',
    output: 'socket',
    code: 'unix-peer-outside',
    piece: /held outside the job|outside the job/,
  },
  {
    title: 'R17 an established connection without a policy',
    program:
      'use Socket; socket(our $l, PF_INET, SOCK_STREAM, 0); bind($l, pack_sockaddr_in(0, inet_aton("127.0.0.1")));' +
      'listen($l, 5); socket(our $c, PF_INET, SOCK_STREAM, 0); connect($c, getsockname($l)); accept(our $s, $l);',
    code: 'tcp-established',
    piece: /TCP/,
  },
  {
    title: 'R18 a device',
    program: `open(our $f, "<", "${device}");`,
    code: 'device-open',
    piece: /descriptor \d+ of process \d+ is a device .*\d+:\d+/,
    needs: device,
  },
];

for (const { title, program, code, piece, output, options, needs } of refusals) {
  test(`${title} is refused with its reason; the program runs on`, async (t) => {
    if (process.getuid?.() !== 0) return t.skip('needs root');
    if (needs !== undefined && !existsSync(needs)) return t.skip(`no ${needs} here`);
    let criu: Criu;
    try {
      criu = await findCriu();
    } catch (error) {
      return t.skip((error as Error).message);
    }
    const directory = mkdtempSync('/tmp/cairn-criu-');
    const script = `$d = shift; ${program}; open($r, ">", "$d/ready"); close $r; sleep 60 while 1;`;
    const child = spawn('perl', ['-e', script, directory], {
      cwd: '/',
      detached: true,
      stdio: ['ignore', output === 'socket' ? 'pipe' : 'ignore', 'ignore'],
    });
    t.after(async () => {
      if (child.exitCode === null && child.kill('SIGKILL')) await once(child, 'exit');
      rmSync(directory, { recursive: true, force: true });
    });
    for (const deadline = Date.now() + 20_000; !existsSync(`${directory}/ready`); await setTimeout(2)) {
      assert.ok(Date.now() < deadline, 'the program is ready');
    }
    const pid = child.pid ?? 0;
    await using run = new Program([
      criu.path,
      ...dumpCommand({ pid, imageDirectory: directory, logFile: 'dump.log', afterwards: 'run', ...options }),
    ]);
    const end = await run.ended;
    const log = readLog(`${directory}/dump.log`);
    assert.notEqual(end.exitCode, 0, log);
    const error = explainFailure({ attempt: 'Dump of job x', end, log });
    assert.equal(error.code, code, log);
    assert.match(error.message, piece);
    assert.ok(error.lines.length > 0 && error.remedy !== undefined);
    assert.match(readStat(pid)?.state ?? 'gone', /[SR]/);
    assert.equal(readFileSync(`/proc/${pid}/status`, 'utf8').match(/^TracerPid:\s+(\d+)/m)?.[1], '0');
  });
}
