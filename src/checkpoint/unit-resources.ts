import { closeSync, constants, statfsSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { type DescriptorInfo, readDescriptors, readDescriptorInfo } from '../linux/process-descriptors.ts';
import { readMaps } from '../linux/process-maps.ts';
import { readCommandLine, readNamespaces, readStatus, readTree, unlessGone } from '../linux/process.ts';
import { mountsOf } from '../linux/mounts.ts';
import { openPidfd, takeDescriptor } from '../linux/pidfd.ts';
import { findProgram } from '../linux/find-program.ts';
import { runProgram } from '../linux/run-program.ts';
import { socketKind } from '../linux/socket.ts';
import { stopSignalOf } from '../linux/stop-signal.ts';
import { isInotify, WatchFinder } from './watched-files.ts';

/** One open descriptor, as far as it can decide whether the process can be saved. */
export interface OpenDescriptor {
  fd: number;
  /** As /proc/PID/fd says. */
  target: string;
  /** File system of the mount it was opened on; `undefined` if the mount is not the unit's and of no kind that matters. */
  fileSystem: string | undefined;
  /** What its target does not tell: a pipe that keeps messages apart (O_DIRECT), an eventfd that counts down (EFD_SEMAPHORE). */
  variant?: 'packet-pipe' | 'eventfd-semaphore';
  /** Of an inotify descriptor: why its watches cannot be saved, if one cannot. */
  lostWatch?: string;
  /** Of a socket. */
  socket?: { domain: number; type: number; protocol: number };
}

export interface DeviceMapping {
  path: string;
  start: string;
}

/** What one process uses. Plain data: preflight decides on it without touching the system. */
export interface ProcessResources {
  pid: number;
  /** PID inside the unit. */
  unitPid: number;
  command: string;
  state: string;
  /** The signal that stopped it, of a process in state T. */
  stopSignal?: string;
  /** PID of the tracer, 0 for none. */
  tracer: number;
  uid: number;
  residentBytes: number;
  descriptors: readonly OpenDescriptor[];
  /** Mappings of files below /dev, and of special files that have no copy on disk. */
  devices: readonly DeviceMapping[];
  /** Kinds of namespaces that differ from those of the unit's first process. */
  ownNamespaces: readonly string[];
}

/** What a unit uses. */
export interface UnitResources {
  rootPid: number;
  processes: readonly ProcessResources[];
  /** Processes of the unit's cgroup that do not descend from its first process: `cairn exec` sessions. */
  strangers: readonly { pid: number; command: string }[];
  /** Mounts made inside the unit, besides those of its bundle: mount point and type. */
  mounts: readonly { mountPoint: string; type: string; root: string }[];
  /** Inodes of connected Unix sockets, each with the inode of its peer. */
  unixPeers: ReadonlyMap<number, number>;
}

const AF_UNIX = 1;
const namespaceKinds = ['pid', 'mnt', 'ipc', 'uts', 'net', 'user', 'time'];

/** Reads from /proc what a unit uses. Processes that end meanwhile are left out. `all` are the PIDs of its cgroup. */
export async function readUnitResources(
  rootPid: number,
  all: readonly number[],
  signal?: AbortSignal,
): Promise<UnitResources> {
  const tree = readTree(rootPid);
  const inTree = new Set(tree);
  const mounts = readMounts(rootPid);
  const fileSystems = new Map(mounts.map((mount) => [mount.id, mount.type]));
  const rootNamespaces = readNamespaces(rootPid);
  const processes: ProcessResources[] = [];
  const watches = new WatchFinder(rootPid);
  for (const pid of tree) {
    const status = readStatus(pid);
    if (status === undefined || status.state === 'Z' || status.state === 'X') continue;
    const own = readNamespaces(pid);
    const stopSignal = status.state === 'T' ? signalName(stopSignalOf(pid)) : undefined;
    processes.push({
      pid,
      unitPid: status.namespacePids.at(-1) ?? pid,
      command: commandOf(pid, status.name),
      state: status.state,
      ...(stopSignal === undefined ? {} : { stopSignal }),
      tracer: status.tracer,
      uid: status.uids[1],
      residentBytes: status.residentBytes + status.swappedBytes + status.hugetlbBytes,
      descriptors: descriptorsOf(pid, fileSystems, watches),
      devices: devicesOf(pid),
      // Those of a process that is ending are gone one after the other.
      ownNamespaces: namespaceKinds.filter(
        (kind) => own?.has(kind) === true && own.get(kind) !== rootNamespaces?.get(kind),
      ),
    });
  }
  const strangers = all
    .filter((pid) => !inTree.has(pid))
    .flatMap((pid) => {
      const status = readStatus(pid);
      return status === undefined || status.state === 'Z'
        ? []
        : [{ pid, command: commandOf(pid, status.name) }];
    });
  const hasUnix = processes.some((process) =>
    process.descriptors.some(({ socket }) => socket?.domain === AF_UNIX),
  );
  const unixPeers = hasUnix ? await readUnixPeers(rootPid, signal) : new Map<number, number>();
  return { rootPid, processes, strangers, mounts, unixPeers };
}

function commandOf(pid: number, name: string): string {
  const words = readCommandLine(pid)?.join(' ').trim();
  const text = words === undefined || words === '' ? name : words;
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function readMounts(pid: number) {
  try {
    return mountsOf(pid).map(({ id, mountPoint, type, root }) => ({ id, mountPoint, type, root }));
  } catch {
    return [];
  }
}

function descriptorsOf(
  pid: number,
  fileSystems: ReadonlyMap<number, string>,
  watches: WatchFinder,
): OpenDescriptor[] {
  let pidfd: number | undefined;
  try {
    return (readDescriptors(pid) ?? []).map(({ fd, target }) => {
      if (target.startsWith('socket:')) {
        pidfd ??= openPidfd(pid);
        const socket = pidfd === undefined ? undefined : kindOfSocket(pidfd, fd);
        return { fd, target, fileSystem: undefined, ...(socket === undefined ? {} : { socket }) };
      }
      if (isInotify(target)) {
        const lost = watches.fates(pid, fd).find((fate) => fate.kind === 'lost');
        return {
          fd,
          target,
          fileSystem: undefined,
          ...(lost === undefined ? {} : { lostWatch: lost.reason }),
        };
      }
      // Only where it can matter: it costs a read for each.
      const info = /^(\/|pipe:|anon_inode:\[eventfd\])/.test(target)
        ? readDescriptorInfo(pid, fd)
        : undefined;
      const variant = info === undefined ? undefined : variantOf(target, info);
      return {
        fd,
        target,
        fileSystem:
          target.startsWith('/') && info !== undefined ? fileSystemOf(pid, fd, info, fileSystems) : undefined,
        ...(variant === undefined ? {} : { variant }),
      };
    });
  } finally {
    if (pidfd !== undefined) closeSync(pidfd);
  }
}

function variantOf(target: string, info: DescriptorInfo): OpenDescriptor['variant'] {
  if (target.startsWith('pipe:')) return (info.flags & constants.O_DIRECT) !== 0 ? 'packet-pipe' : undefined;
  return info.fields.get('eventfd-semaphore') === '1' ? 'eventfd-semaphore' : undefined;
}

/** MQUEUE_MAGIC of the kernel (ipc/mqueue.c). */
const mqueueMagic = 0x19800202;

function fileSystemOf(
  pid: number,
  fd: number,
  { mountId }: DescriptorInfo,
  fileSystems: ReadonlyMap<number, string>,
): string | undefined {
  const known = fileSystems.get(mountId);
  if (known !== undefined) return known;
  // mq_open(3) does not go through a mount that a process could see.
  const type = unlessGone(() => statfsSync(`/proc/${pid}/fd/${fd}`).type);
  return type === mqueueMagic ? 'mqueue' : undefined;
}

function signalName(number: number | undefined): string | undefined {
  return Object.entries(osConstants.signals).find(([, value]) => value === number)?.[0];
}

function kindOfSocket(pidfd: number, fd: number): OpenDescriptor['socket'] {
  let copy: number | undefined;
  try {
    copy = takeDescriptor(pidfd, fd);
    return socketKind(copy);
  } catch {
    // The descriptor or the process has gone since.
    return undefined;
  } finally {
    if (copy !== undefined) closeSync(copy);
  }
}

/** Asks `ss` (sock_diag) in the network namespace of the unit which Unix sockets are connected to which. */
async function readUnixPeers(pid: number, signal: AbortSignal | undefined): Promise<Map<number, number>> {
  const peers = new Map<number, number>();
  const [nsenter, ss] = await Promise.all([findProgram('nsenter'), findProgram('ss')]);
  if (nsenter === undefined || ss === undefined) return peers;
  const result = await runProgram(nsenter.path, [`--net=/proc/${pid}/ns/net`, ss.path, '-xaH'], {
    timeoutMs: 5000,
    ...(signal === undefined ? {} : { signal }),
  });
  for (const line of result.stdout.split('\n')) {
    const fields = line.trim().split(/\s+/);
    const peer = Number(fields.at(-1));
    const own = Number(fields.at(-3));
    if (fields[1] === 'ESTAB' && own > 0 && peer > 0) peers.set(own, peer);
  }
  return peers;
}

function devicesOf(pid: number): DeviceMapping[] {
  return (readMaps(pid) ?? [])
    .filter(({ path }) => isSpecialMapping(path))
    .map(({ path, start }) => ({ path, start: `0x${start.toString(16)}` }));
}

function isSpecialMapping(path: string): boolean {
  if (path.startsWith('/dev/shm/') || path === '/dev/zero') return false;
  return path.startsWith('/dev/') || path.startsWith('anon_inode:') || path === '/secretmem';
}
