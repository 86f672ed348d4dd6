import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { release, tmpdir } from 'node:os';
import path from 'node:path';
import { CairnError, systemCode } from '../../src/errors.ts';
import { lastLines, runProgram } from '../../src/linux/run-program.ts';

/** Where the result is remembered: a test that was passed is not repeated for the same kernel and the same CRIU. */
const markFile = '/var/lib/cairn/setup/criu-self-test.json';

interface Mark {
  kernel: string;
  criu: string;
  version: string;
}

/** Whether the self-test was passed with this CRIU on the running kernel. */
export async function selfTestPassed(criu: { path: string; version: string }): Promise<boolean> {
  try {
    const mark = JSON.parse(await readFile(markFile, 'utf8')) as Partial<Mark>;
    return mark.kernel === release() && mark.criu === criu.path && mark.version === criu.version;
  } catch {
    return false;
  }
}

export async function rememberSelfTest(criu: { path: string; version: string }): Promise<void> {
  const mark: Mark = { kernel: release(), criu: criu.path, version: criu.version };
  await mkdir(path.dirname(markFile), { recursive: true, mode: 0o700 });
  await writeFile(markFile, `${JSON.stringify(mark)}\n`);
}

// A process with an established TCP connection to itself and 8 MiB that it can check. Perl is on every Debian.
// After SIGUSR1 it checks its memory, sends a byte through the connection, receives it and writes the number of the round.
const program = `
use strict; use Socket; use POSIX ();
socket(my $l, PF_INET, SOCK_STREAM, 0) or die; bind($l, sockaddr_in(0, INADDR_LOOPBACK)) or die; listen($l, 1) or die;
socket(my $c, PF_INET, SOCK_STREAM, 0) or die; connect($c, getsockname($l)) or die; accept(my $s, $l) or die;
my $block = join('', map { pack('N', $_ * 2654435761 % 4294967296) } 1 .. 262144); my $memory = $block x 8;
my ($round, $asked) = (0, 0);
POSIX::sigaction(POSIX::SIGUSR1(), POSIX::SigAction->new(sub { $asked = 1 }, POSIX::SigSet->new(), 0));
my $usr1 = POSIX::SigSet->new(POSIX::SIGUSR1()); my $before = POSIX::SigSet->new();
POSIX::sigprocmask(POSIX::SIG_BLOCK(), $usr1, $before);
while (1) {
  open(my $f, '>', "$ARGV[0].new") or die; print $f $round; close $f; rename "$ARGV[0].new", $ARGV[0];
  POSIX::sigsuspend($before) until $asked; $asked = 0;
  exit 3 unless $memory eq $block x 8;
  syswrite($c, chr(65 + $round % 26)) == 1 or exit 4;
  sysread($s, my $byte, 1) == 1 or exit 5; $byte eq chr(65 + $round % 26) or exit 6;
  $round++;
}`;

/**
 * Dumps and restores a small process that has a TCP connection, first the way Cairn captures (memory stays lazy, the page
 * client is a socket, a status descriptor tells when all is ready, the process runs on), then with a kill and a restore.
 * `criu check` cannot tell this.
 *
 * Needs root; takes about a second. Throws `environment` `criu-self-test` with CRIU's last lines.
 */
export async function selfTest(criuPath: string): Promise<void> {
  const directory = await mkdtemp(path.join(tmpdir(), 'cairn-self-test-'));
  const state = path.join(directory, 'round');
  // In an own session and without descriptors of ours: what hangs on the outside cannot be dumped.
  const child = spawn('perl', ['-e', program, state], { detached: true, stdio: 'ignore', cwd: '/' });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const pid = child.pid;
  try {
    if (pid === undefined) throw failed('The test program could not be started: is perl installed?');
    await reaches(state, 0, pid);
    const common = ['--tcp-established', '--network-lock', 'skip', '-v2', '-o', 'log', '-t', String(pid)];

    const first = path.join(directory, 'lazy');
    await mkdir(first);
    await lazyDump(criuPath, ['dump', ...common, '-D', first, '--leave-running', '--lazy-pages'], first);
    process.kill(pid, 'SIGUSR1');
    await reaches(state, 1, pid);

    const second = path.join(directory, 'full');
    await mkdir(second);
    await criu(
      criuPath,
      ['dump', ...common, '-D', second],
      second,
      'dumping a process with a TCP connection',
    );
    await exited;
    await criu(
      criuPath,
      ['restore', '--restore-detached', ...common.slice(0, -2), '-D', second],
      second,
      'restoring a process with a TCP connection',
    );
    process.kill(pid, 'SIGUSR1');
    await reaches(state, 2, pid);
  } finally {
    if (pid !== undefined && (await isOurs(pid, state))) process.kill(pid, 'SIGKILL');
    await rm(directory, { recursive: true, force: true });
  }
}

async function lazyDump(criuPath: string, argv: string[], images: string): Promise<void> {
  const what = 'dumping with lazy pages through a socket';
  // Node's own pipes are socket pairs: just what --ps-socket wants.
  const child = spawn(criuPath, [...argv, '--ps-socket', '3', '--status-fd', '4'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    timeout: 30_000,
    killSignal: 'SIGKILL',
  });
  const exit = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code));
  });
  const [, , , pages, status] = child.stdio;
  const ready = new Promise<boolean>((resolve) => {
    status?.once('data', () => resolve(true));
    status?.once('error', () => resolve(false));
    void exit.then(() => resolve(false)).catch(() => resolve(false));
  });
  pages?.on('error', () => {});
  // Everything is dumped and the tasks are frozen; the closed socket says that nobody wants the pages.
  const becameReady = await ready;
  pages?.destroy();
  const code = await exit;
  if (!becameReady || code !== 0)
    throw failed(`CRIU failed at ${what}: code ${code}.`, await logLines(images));
}

async function criu(criuPath: string, argv: string[], images: string, what: string): Promise<void> {
  const { code } = await runProgram(criuPath, argv, { timeoutMs: 30_000 });
  if (code !== 0) throw failed(`CRIU failed at ${what}: code ${code}.`, await logLines(images));
}

async function logLines(images: string): Promise<string[]> {
  const text = await readFile(path.join(images, 'log'), 'utf8').catch(() => '');
  const errors = text.split('\n').filter((line) => line.includes('Error'));
  return errors.length > 0 ? errors.slice(-6) : lastLines(text, 6);
}

/** Waits until the program has written the number of a round. */
async function reaches(state: string, round: number, pid: number): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const text = await readFile(state, 'utf8').catch(() => undefined);
    if (text === String(round)) return;
    if (!(await isOurs(pid, state))) throw failed(`The test program ended in round ${round}.`);
    if (Date.now() > deadline) throw failed(`The test program did not reach round ${round}.`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Whether the process is still our test program (its command line names our file), not another one with its number. */
async function isOurs(pid: number, state: string): Promise<boolean> {
  try {
    return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).includes(state);
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(systemCode(error) ?? '')) return false;
    throw error;
  }
}

function failed(message: string, lines: string[] = []): CairnError {
  return new CairnError('environment', 'criu-self-test', message, {
    lines,
    remedy: 'This kernel and this CRIU do not go together; `cairn doctor` tells more about this host.',
  });
}
