import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { runProgram } from '../src/linux/run-program.ts';

/** What tests could leave on the host: everything with Cairn's name, by a description that is unique. */
export type Belongings = ReadonlySet<string>;

/** Mounts, cgroups, network namespaces, interfaces, nft tables and temporary files that are Cairn's by their names. */
export async function collectBelongings(): Promise<Belongings> {
  const found = new Set<string>();
  for (const line of read('/proc/self/mountinfo').split('\n')) {
    const point = line.split(' ')[4];
    if (point?.includes('cairn')) found.add(`mount ${point}`);
  }
  for (const hierarchy of ['', ...entries('/sys/fs/cgroup')]) {
    const base = path.join('/sys/fs/cgroup', hierarchy);
    for (const name of entries(base)) {
      if (!name.startsWith('cairn')) continue;
      // The parent directory of all units may stay, empty.
      for (const unit of entries(path.join(base, name))) {
        if (isDirectory(path.join(base, name, unit))) found.add(`cgroup ${path.join(base, name, unit)}`);
      }
    }
  }
  for (const name of entries('/run/netns'))
    if (name.includes('cairn')) found.add(`network namespace ${name}`);
  for (const name of entries('/sys/class/net')) {
    if (name.startsWith('cairn')) found.add(`interface ${name}`);
    if (entries(`/sys/class/net/${name}/brport`).length > 0) {
      const bridge = path.basename(readLink(`/sys/class/net/${name}/brport/bridge`));
      if (bridge.startsWith('cairn')) found.add(`interface ${name} on ${bridge}`);
    }
  }
  const tables = await runProgram('nft', ['list', 'tables']).catch(() => undefined);
  for (const line of tables?.stdout.split('\n') ?? []) {
    if (/\bcairn\S/.test(line)) found.add(`nft ${line}`);
  }
  // Where tests write although they were told another place.
  for (const name of entries('/tmp')) if (name.startsWith('cairn')) found.add(`file /tmp/${name}`);
  for (const name of entries('/dev/shm')) if (name.startsWith('cairn')) found.add(`file /dev/shm/${name}`);
  return found;
}

/** What a run of tests has left behind. */
export interface Leaks {
  /** Certainly from this run. */
  own: string[];
  /** New since the start of the run, but another Cairn runs on this host and may be the one that made it. */
  doubtful: string[];
}

/**
 * What is there now and was not before, and what carries the mark of this run: processes by their environment, files by
 * their place. Waits until nothing is left, at most `timeoutMs`: what a test has ended may need a moment to go.
 */
export async function findLeaks(
  before: Belongings,
  options: { runMark: string; temporary: string; timeoutMs: number },
): Promise<Leaks> {
  const deadline = Date.now() + options.timeoutMs;
  for (;;) {
    const now = await collectBelongings();
    const fresh = [...now].filter((one) => !before.has(one) && one !== `file ${options.temporary}`);
    const own = fresh.filter((one) => one.includes(`${options.temporary}/`));
    const rest = fresh.filter((one) => !own.includes(one));
    own.push(...processesOf(options.runMark));
    for (const name of entries(options.temporary)) own.push(`temporary file ${options.temporary}/${name}`);
    if (own.length + rest.length === 0 || Date.now() > deadline) {
      return othersRun(options.runMark) ? { own, doubtful: rest } : { own: [...own, ...rest], doubtful: [] };
    }
    await delay(100);
  }
}

/** Whether a daemon, a monitor or a test that is not of this run works on the host. */
function othersRun(runMark: string): boolean {
  return entries('/proc').some(
    (pid) =>
      /^\d+$/.test(pid) &&
      Number(pid) !== process.pid &&
      /\/src\/(cli\/main|units\/monitor)\.ts|\.test\.ts/.test(read(`/proc/${pid}/cmdline`)) &&
      !read(`/proc/${pid}/environ`).includes(`CAIRN_TEST_RUN=${runMark}\0`),
  );
}

function processesOf(runMark: string): string[] {
  const found: string[] = [];
  for (const pid of entries('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    if (!read(`/proc/${pid}/environ`).includes(`CAIRN_TEST_RUN=${runMark}\0`)) continue;
    const command = read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
    // A process that has just ended has no command line.
    if (command !== '') found.push(`process ${pid}: ${command.slice(0, 200)}`);
  }
  return found;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

function entries(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function isDirectory(file: string): boolean {
  return statSync(file, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function readLink(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}
