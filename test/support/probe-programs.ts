import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, mkdir, readdir, readFile, rename } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
export const projectRoot = path.dirname(path.dirname(import.meta.dirname));
export const programSources = path.join(projectRoot, 'test/programs');

/** A program of `test/programs/` and how it is run. */
export interface Probe {
  /** What it shows, beginning with the numbers of its requirements. */
  title: string;
  /** Name of a C source without `.c`, or of a script with its suffix. */
  program: string;
  arguments?: string[];
  /** Links the C library into the program. */
  static?: boolean;
  /** uid and gid it runs as; default 0. */
  uid?: number;
  /** `refused`: CRIU cannot save it, so `cairn checkpoint` must say so and the program must run on. Default `saved`. */
  outcome?: 'saved' | 'refused';
  /** What the refusal must name, for `refused`. */
  names?: RegExp;
  /** Needs more than a few seconds or much space; gets a unit of its own. */
  heavy?: boolean;
}

export const probes: readonly Probe[] = [
  { title: 'R01 a static C program', program: 'counter', static: true },
  { title: 'R01 a dynamic C program', program: 'counter' },
  { title: 'R01 a Python program', program: 'counter.py' },
  { title: 'R01 a Perl program', program: 'counter.pl' },
  { title: 'R01 a bash script', program: 'counter.sh' },
  { title: 'R01 a Java program', program: 'Counter.java', heavy: true },
  { title: 'R01 a Node.js program', program: 'counter.mjs' },
  { title: 'R04 general, vector and x87 registers of 64 threads', program: 'thread-registers' },
  { title: 'R04 thread-local storage, names and waits of 64 threads', program: 'thread-local' },
  { title: 'R05 identity and credentials', program: 'identity' },
  { title: 'R05 identity and credentials of an ordinary user', program: 'identity', uid: 1000 },
  { title: 'R06 private memory, stack, protections, copy-on-write', program: 'memory-private' },
  { title: 'R06 memory that comes, goes and moves while it is saved', program: 'shifting-memory' },
  {
    title: 'R06 memory that comes, goes and moves in four threads while it is saved',
    program: 'shifting-memory',
    arguments: ['4'],
  },
  { title: 'R06 guard pages within a mapping', program: 'guards' },
  { title: 'R06 shared anonymous memory and memfd', program: 'memory-shared' },
  { title: 'R06 huge pages', program: 'memory-huge' },
  { title: 'R06 file mappings', program: 'memory-files' },
  { title: 'R06 the vdso', program: 'memory-vdso' },
  { title: 'R07 descriptors: position, flags, duplicates, directories', program: 'descriptors' },
  { title: 'R07 file locks', program: 'locks' },
  { title: 'R07 eventfd, epoll, signalfd, timerfd, pidfd', program: 'event-descriptors' },
  { title: 'R07 inotify', program: 'inotify' },
  { title: 'R08 unlinked file of 1 MiB', program: 'unlinked-file', arguments: ['1'] },
  { title: 'R08 unlinked file of 1 GiB', program: 'unlinked-file', arguments: ['1024'], heavy: true },
  { title: 'R08 unlinked file of 2 GiB', program: 'unlinked-file', arguments: ['2048'], heavy: true },
  { title: 'R09 files opened for append and write', program: 'files-written' },
  { title: 'R09 asynchronous I/O under way', program: 'asynchronous-io' },
  { title: 'R13 pipes and FIFOs with data in flight', program: 'pipes' },
  { title: 'R13 socket pairs with data and descriptors in flight', program: 'socketpairs' },
  { title: 'R14 handlers, masks, pending signals, alternate stack', program: 'signals' },
  { title: 'R14 stopped and waiting processes', program: 'stopped' },
  { title: 'R14 interval and POSIX timers', program: 'timers' },
  { title: 'R14 sleeping programs keep their remaining time', program: 'sleeping' },
  { title: 'R15 a pseudo-terminal inside, with job control', program: 'terminal' },
  { title: 'R16 System V IPC', program: 'sysv-ipc' },
  { title: 'R16 POSIX shared memory, semaphores, mutexes', program: 'posix-ipc' },
  { title: 'R17 listening sockets', program: 'listening' },
  { title: 'R17 connections inside the unit', program: 'connected' },
  { title: 'R17 connections that wait to be accepted', program: 'backlog' },
  { title: 'R17 UDP sockets', program: 'udp' },
  { title: 'G06 G08 a process tree 20 deep', program: 'process-tree', arguments: ['20', '1'] },
  {
    title: 'G06 G08 a process tree 20 deep and 100 wide',
    program: 'process-tree',
    arguments: ['20', '100'],
    heavy: true,
  },
  { title: 'G10 monotonic time does not jump', program: 'monotonic' },
  {
    title: 'R16 R18 a POSIX message queue is refused by name',
    program: 'message-queue',
    outcome: 'refused',
    names: /message queue|mqueue/i,
  },
  {
    title: 'R13 R18 a packet pipe is refused by name',
    program: 'packet-pipe',
    outcome: 'refused',
    names: /pipe/i,
  },
  {
    title: 'R07 R18 an eventfd semaphore is refused by name',
    program: 'eventfd-semaphore',
    outcome: 'refused',
    names: /eventfd|EFD_SEMAPHORE/i,
  },
  {
    title: 'R15 R18 a job stopped by SIGTTIN is refused by name',
    program: 'stopped-reading',
    outcome: 'refused',
    names: /SIGTTIN/,
  },
];

/** Where the programs are seen inside a unit. */
export const programsInside = '/probes';

/** Mounts that `cairn run` needs for probes: the programs and Node.js, read-only. */
export function probeMounts(built: string): string[] {
  return [
    `${built}:${programsInside}:ro`,
    `${programSources}:/probe-sources:ro`,
    `${path.dirname(path.dirname(process.execPath))}:/probe-node:ro`,
  ];
}

/** The command of a probe inside a unit. */
export function probeCommand(probe: Pick<Probe, 'program' | 'arguments' | 'static'>): string[] {
  const source = `/probe-sources/${probe.program}`;
  const rest = probe.arguments ?? [];
  switch (path.extname(probe.program)) {
    case '.py':
      return ['/usr/bin/python3', source, ...rest];
    case '.pl':
      return ['/usr/bin/perl', source, ...rest];
    case '.sh':
      return ['/bin/bash', source, ...rest];
    case '.mjs':
      return ['/probe-node/bin/node', source, ...rest];
    case '.java':
      return ['/usr/bin/java', '-Xmx256m', source, ...rest];
    default:
      return [`${programsInside}/${probe.program}${probe.static === true ? '-static' : ''}`, ...rest];
  }
}

/**
 * Compiles the C probes with gcc, once for each content of the sources, and returns the directory of the programs. The
 * directory may be used by several test files at once.
 */
export async function buildProbes(): Promise<string> {
  const names = (await readdir(programSources)).filter((name) => /\.[ch]$/.test(name)).sort();
  const hash = createHash('sha256');
  for (const name of names) hash.update(name).update(await readFile(path.join(programSources, name)));
  const cache = path.join(projectRoot, 'node_modules/.cache/cairn-probes');
  const target = path.join(cache, hash.digest('hex').slice(0, 16));
  if (await exists(target)) return target;
  const draft = `${target}.${process.pid}`;
  await mkdir(draft, { recursive: true, mode: 0o755 });
  const compile = (name: string, out: string, ...flags: string[]): Promise<unknown> =>
    run('gcc', [
      ...['-D_GNU_SOURCE', '-std=gnu17', '-O1', '-g', '-Wall', '-Wextra', '-Werror', '-pthread', ...flags],
      ...['-o', path.join(draft, out), path.join(programSources, name), '-lutil', '-lrt'],
    ]);
  for (const name of names) if (name.endsWith('.c')) await compile(name, path.basename(name, '.c'));
  await compile('counter.c', 'counter-static', '-static');
  await rename(draft, target).catch(async (error: unknown) => {
    // Another test file was faster.
    if (!(await exists(target))) throw error;
  });
  return target;
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
