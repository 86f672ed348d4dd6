import { type Dirent, existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { mountsOf } from '../../src/linux/mounts.ts';
import { runCommand } from './run-command.ts';

/** Set in the environment of the daemon; whatever it starts inherits it, also when its parent is gone. */
export const markVariable = 'CAIRN_TEST_MARK';

/** What a daemon with one job has on the host; see `belongings`. */
export interface BelongingsOf {
  stateDirectory: string;
  runDirectory: string;
  bridge: string;
  unit: string;
  /** PID of the unit's first process, if it runs. */
  unitPid: number | undefined;
  daemon: number;
  mark: string;
}

/**
 * Everything that a node with one job has on the host, as lines that are the same for the same state: mounts, control groups,
 * interfaces, processes, files that do not last, locks of the network, changed settings.
 */
export async function belongings(of: BelongingsOf): Promise<string[]> {
  const { stateDirectory, runDirectory, unit } = of;
  const found: string[] = [];
  const points = mountsOf('self').map(({ mountPoint }) => mountPoint);
  for (const point of points)
    if (point.startsWith(`${runDirectory}/`) || point.startsWith(`${stateDirectory}/`))
      found.push(`mount ${point}`);
  for (const hierarchy of list('/sys/fs/cgroup')) {
    const group = path.join('/sys/fs/cgroup', hierarchy, 'cairn', unit);
    if (existsSync(group)) found.push(`control group ${group}`);
  }
  for (const link of list(`/sys/class/net/${of.bridge}/brif`)) found.push(`interface ${link}`);
  for (const pid of list('/proc')) if (/^\d+$/.test(pid)) found.push(...processOf(Number(pid), of));
  for (const file of filesBelow(runDirectory, points)) found.push(`file ${file}`);
  // How it ended last: forgotten when a restart begins; the job knows it too.
  for (const file of list(path.join(stateDirectory, 'units', unit)))
    if (file !== 'status.json') found.push(`file ${stateDirectory}/units/${unit}/${file}`);
  for (const file of filesBelow(path.join(stateDirectory, 'store/incoming'), [])) found.push(`file ${file}`);
  for (const file of filesBelow(
    stateDirectory,
    points.concat(path.join(stateDirectory, 'units', unit, 'upper')),
  ))
    if (file.endsWith('.tmp')) found.push(`file ${file}`);
  found.push(...(await networkLocks('of the host', [])));
  if (of.unitPid !== undefined)
    found.push(...(await networkLocks('of the unit', ['nsenter', '-t', String(of.unitPid), '-n'])));
  found.push(`vm.unprivileged_userfaultfd ${read('/proc/sys/vm/unprivileged_userfaultfd').trim()}`);
  return found.sort();
}

function processOf(pid: number, { unit, daemon, mark }: BelongingsOf): string[] {
  if (pid === daemon || pid === process.pid) return [];
  const command = read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
  if (command === '') return [];
  const inUnit = read(`/proc/${pid}/cgroup`).includes(`/cairn/${unit}`);
  if (inUnit) return [`process of the unit: ${command}`];
  if (!read(`/proc/${pid}/environ`).split('\0').includes(`${markVariable}=${mark}`)) return [];
  // Whether a monitor was kept ready or not makes no difference.
  return [command.includes('/monitor.ts') ? 'process: a monitor' : `process: ${command}`];
}

async function networkLocks(where: string, enter: readonly string[]): Promise<string[]> {
  const { stdout } = await runCommand([...enter, 'nft', 'list', 'tables']);
  return [...stdout.matchAll(/^table (\S+ CRIU\S*)/gm)].map((match) => `network lock ${where}: ${match[1]}`);
}

/** Files and directories below a directory, without what is mounted there. */
function filesBelow(directory: string, left: readonly string[]): string[] {
  const found: string[] = [];
  let entries: Dirent[];
  try {
    entries = readdirSync(directory, { withFileTypes: true });
  } catch {
    return found;
  }
  for (const entry of entries) {
    const file = path.join(directory, entry.name);
    found.push(file);
    if (entry.isDirectory() && !left.includes(file)) found.push(...filesBelow(file, left));
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

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** What one list has more often than another one. */
export function surplus(of: readonly string[], over: readonly string[]): string[] {
  const rest = new Map<string, number>();
  for (const line of over) rest.set(line, (rest.get(line) ?? 0) + 1);
  return of.filter((line) => {
    const count = rest.get(line) ?? 0;
    rest.set(line, count - 1);
    return count <= 0;
  });
}
