import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { runCommand } from './run-command.ts';

/** Where a node of a test works, and the units that it has had. */
export interface NodePlaces {
  directory: string;
  bridge: string;
  units: readonly string[];
  /** PID of the daemon, which may run on. */
  daemon: number | undefined;
}

/**
 * What exists on the host because of units of a node: mounts, control groups, processes, interfaces, published ports,
 * directories. Empty once all its jobs were removed.
 */
export async function findNodeLeaks(node: NodePlaces): Promise<string[]> {
  const leaks: string[] = [];
  for (const line of read('/proc/self/mountinfo').split('\n')) {
    const point = line.split(' ')[4] ?? '';
    if (point.startsWith(`${node.directory}/`)) leaks.push(`mount ${point}`);
  }
  for (const hierarchy of list('/sys/fs/cgroup')) {
    for (const unit of list(path.join('/sys/fs/cgroup', hierarchy, 'cairn'))) {
      if (node.units.includes(unit)) leaks.push(`control group ${hierarchy}/cairn/${unit}`);
    }
  }
  for (const pid of list('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid || Number(pid) === node.daemon) continue;
    const cgroup = read(`/proc/${pid}/cgroup`);
    const command = read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ');
    const ours =
      node.units.some((unit) => cgroup.includes(`/cairn/${unit}`) || command.includes(unit)) ||
      command.includes(`${node.directory}/`);
    if (ours && command !== '') leaks.push(`process ${pid}: ${command.slice(0, 160)}`);
  }
  for (const link of list(`/sys/class/net/${node.bridge}/brif`))
    leaks.push(`interface ${link} on ${node.bridge}`);
  for (const place of ['state/units', 'run/units', 'run/runc']) {
    for (const name of list(path.join(node.directory, place))) leaks.push(`${place}/${name}`);
  }
  const rules = await runCommand(['nft', 'list', 'ruleset']);
  // CRIU's own lock of the network, if it was made outside of a unit, would be here.
  for (const table of rules.stdout.matchAll(/^table (?:inet|ip) (CRIU\S*)/gim))
    leaks.push(`nft table ${table[1]}`);
  return leaks;
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
