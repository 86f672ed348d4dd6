/**
 * What /proc tells about a process. Every function returns `undefined` if the process (or thread, or descriptor) is gone;
 * other errors (EACCES …) are thrown. Formats: proc(5).
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { systemCode } from '../errors.ts';

/** Runs a read of /proc; `undefined` if what it reads has vanished. */
export function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
}

function text(path: string): string | undefined {
  return unlessGone(() => readFileSync(path, 'utf8'));
}

/** /proc/PID/stat, the fields that Cairn uses. */
export interface ProcessStat {
  pid: number;
  /** Name of the program, at most 15 bytes; may hold any character. */
  name: string;
  /** R running, S sleeping, D waiting, T stopped, t traced, Z ended, X gone, I idle. */
  state: string;
  parent: number;
  processGroup: number;
  session: number;
  /** Device number of the controlling terminal, 0 for none. */
  terminal: number;
  userTicks: number;
  systemTicks: number;
  threads: number;
  /** Clock ticks since boot; with the PID it names a process for good. */
  startTime: number;
  virtualBytes: number;
  residentPages: number;
}

/** Parses the line of /proc/PID/stat; the name in parentheses may itself hold parentheses and spaces. */
export function parseStat(line: string): ProcessStat {
  const open = line.indexOf('(');
  const end = line.lastIndexOf(')');
  const rest = line.slice(end + 2).split(' ');
  const number = (field: number) => Number(rest[field - 3]);
  return {
    pid: Number(line.slice(0, open - 1)),
    name: line.slice(open + 1, end),
    state: rest[0] ?? '?',
    parent: number(4),
    processGroup: number(5),
    session: number(6),
    terminal: number(7),
    userTicks: number(14),
    systemTicks: number(15),
    threads: number(20),
    startTime: number(22),
    virtualBytes: number(23),
    residentPages: number(24),
  };
}

export function readStat(pid: number): ProcessStat | undefined {
  const line = text(`/proc/${pid}/stat`);
  return line === undefined || line === '' ? undefined : parseStat(line);
}

/** A process that cannot be confused with a later one of the same PID (on the same boot). */
export interface ProcessIdentity {
  pid: number;
  startTime: number;
}

export function identityOf(pid: number): ProcessIdentity | undefined {
  const stat = readStat(pid);
  return stat && { pid: stat.pid, startTime: stat.startTime };
}

/** Whether the process of this identity still lives (a zombie does not). */
export function isAlive(identity: ProcessIdentity): boolean {
  const stat = readStat(identity.pid);
  return (
    stat !== undefined && stat.startTime === identity.startTime && stat.state !== 'Z' && stat.state !== 'X'
  );
}

/** /proc/PID/status, the fields that Cairn uses. */
export interface ProcessStatus {
  name: string;
  umask: number;
  state: string;
  threadGroup: number;
  parent: number;
  /** PID of the tracer, 0 for none. */
  tracer: number;
  /** Real, effective, saved and file system. */
  uids: [number, number, number, number];
  gids: [number, number, number, number];
  groups: number[];
  /** PID in each nested PID namespace, the reader's first. */
  namespacePids: number[];
  threads: number;
  /** Bit sets. */
  capabilities: {
    inheritable: bigint;
    permitted: bigint;
    effective: bigint;
    bounding: bigint;
    ambient: bigint;
  };
  noNewPrivileges: boolean;
  /** 0 off, 1 strict, 2 filter. */
  seccomp: number;
  seccompFilters: number;
  residentBytes: number;
  swappedBytes: number;
  hugetlbBytes: number;
}

export function parseStatus(status: string): ProcessStatus {
  const fields = new Map<string, string>();
  for (const line of status.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  const numbers = (name: string) => (fields.get(name) ?? '').split(/\s+/).filter(Boolean).map(Number);
  const number = (name: string) => numbers(name)[0] ?? 0;
  const bits = (name: string) => BigInt(`0x${fields.get(name) ?? '0'}`);
  const four = (name: string): [number, number, number, number] => {
    const [real = 0, effective = 0, saved = 0, files = 0] = numbers(name);
    return [real, effective, saved, files];
  };
  const kibibytes = (name: string) => number(name) * 1024;
  return {
    name: fields.get('Name') ?? '',
    umask: Number.parseInt(fields.get('Umask') ?? '0', 8),
    state: fields.get('State')?.[0] ?? '?',
    threadGroup: number('Tgid'),
    parent: number('PPid'),
    tracer: number('TracerPid'),
    uids: four('Uid'),
    gids: four('Gid'),
    groups: numbers('Groups'),
    namespacePids: numbers('NSpid'),
    threads: number('Threads'),
    capabilities: {
      inheritable: bits('CapInh'),
      permitted: bits('CapPrm'),
      effective: bits('CapEff'),
      bounding: bits('CapBnd'),
      ambient: bits('CapAmb'),
    },
    noNewPrivileges: number('NoNewPrivs') === 1,
    seccomp: number('Seccomp'),
    seccompFilters: number('Seccomp_filters'),
    residentBytes: kibibytes('VmRSS'),
    swappedBytes: kibibytes('VmSwap'),
    hugetlbBytes: kibibytes('HugetlbPages'),
  };
}

export function readStatus(pid: number | 'self'): ProcessStatus | undefined {
  const status = text(`/proc/${pid}/status`);
  return status === undefined ? undefined : parseStatus(status);
}

/** Arguments of a process; empty for a kernel thread or a zombie. */
export function readCommandLine(pid: number): string[] | undefined {
  return text(`/proc/${pid}/cmdline`)?.split('\0').slice(0, -1);
}

/** Where a link of /proc/PID leads: `exe`, `cwd`, `root`. */
export function readProcessLink(pid: number, name: 'exe' | 'cwd' | 'root'): string | undefined {
  return unlessGone(() => readlinkSync(`/proc/${pid}/${name}`));
}

/** Thread IDs of a process, ascending. */
export function readThreads(pid: number): number[] | undefined {
  return unlessGone(() => readdirSync(`/proc/${pid}/task`).map(Number));
}

/** Whether all threads of a process are stopped by a tracer (or have ended). */
export function isStopped(pid: number): boolean {
  const threads = readThreads(pid) ?? [];
  return threads.every((thread) => {
    const line = text(`/proc/${pid}/task/${thread}/stat`);
    return line === undefined || ['t', 'Z', 'X'].includes(parseStat(line).state);
  });
}

/**
 * Stack pointers of the threads of a stopped process (/proc/TID/syscall); `undefined` if it is gone or one of them runs.
 */
export function readStackPointers(pid: number): number[] | undefined {
  const pointers: number[] = [];
  for (const thread of readThreads(pid) ?? []) {
    const words = text(`/proc/${pid}/task/${thread}/syscall`)?.trim().split(' ');
    // A thread that has ended but is still there has none.
    if (words === undefined) continue;
    const pointer = Number(words.at(-2));
    if (!Number.isSafeInteger(pointer)) return undefined;
    pointers.push(pointer);
  }
  return pointers.length === 0 ? undefined : pointers;
}

/** PIDs of the children of all threads of a process (needs CONFIG_PROC_CHILDREN, which CRIU needs too). */
export function readChildren(pid: number): number[] | undefined {
  const threads = readThreads(pid);
  return threads?.flatMap((thread) =>
    (text(`/proc/${pid}/task/${thread}/children`) ?? '').split(' ').filter(Boolean).map(Number),
  );
}

/** A process and all its descendants, parents first; empty if it is gone. Not a snapshot: a running tree changes. */
export function readTree(root: number): number[] {
  if (readStat(root) === undefined) return [];
  const tree = [root];
  const seen = new Set(tree);
  for (let i = 0; i < tree.length; i++) {
    for (const child of readChildren(tree[i] ?? 0) ?? []) {
      if (!seen.has(child)) tree.push(child);
      seen.add(child);
    }
  }
  return tree;
}

/** Every PID of this PID namespace. */
export function readAllPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Inode numbers of the namespaces of a process by kind (`net`, `pid`, `pid_for_children` …). */
export function readNamespaces(pid: number | 'self'): Map<string, number> | undefined {
  return unlessGone(() => {
    const namespaces = new Map<string, number>();
    for (const kind of readdirSync(`/proc/${pid}/ns`)) {
      const inode = unlessGone(() => /\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/ns/${kind}`))?.[1]);
      if (inode !== undefined) namespaces.set(kind, Number(inode));
    }
    return namespaces;
  });
}

/** One line of /proc/PID/cgroup. */
export interface CgroupPlace {
  /** Hierarchy number; 0 is cgroup v2. */
  hierarchy: number;
  /** Controllers of a v1 hierarchy (`cpu`, `cpuacct`; `name=systemd`); empty for v2. */
  controllers: string[];
  /** Path of the group below the mount, as the reader's cgroup namespace sees it. */
  path: string;
}

export function readCgroups(pid: number | 'self'): CgroupPlace[] | undefined {
  return text(`/proc/${pid}/cgroup`)
    ?.split('\n')
    .filter(Boolean)
    .map((line) => {
      const [hierarchy = '', controllers = '', ...path] = line.split(':');
      return {
        hierarchy: Number(hierarchy),
        controllers: controllers === '' ? [] : controllers.split(','),
        path: path.join(':'),
      };
    });
}

/** Monotonic and boot-time offsets of the time namespace a process is in, in nanoseconds. */
export function readTimeOffsets(pid: number): { monotonic: bigint; boottime: bigint } | undefined {
  const lines = text(`/proc/${pid}/timens_offsets`);
  if (lines === undefined) return undefined;
  const offset = (clock: string) => {
    const match = new RegExp(`^${clock}\\s+(-?\\d+)\\s+(\\d+)`, 'm').exec(lines);
    return match ? BigInt(match[1] ?? 0) * 1_000_000_000n + BigInt(match[2] ?? 0) : 0n;
  };
  return { monotonic: offset('monotonic'), boottime: offset('boottime') };
}
