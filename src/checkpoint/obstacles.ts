import type { OpenDescriptor, ProcessResources, UnitResources } from './unit-resources.ts';

/** Something in a unit that cannot be saved (or will be missing): who has it, why, and what helps (R18). */
export interface Obstacle {
  /** PID on the host and inside the unit; 0 where no single process is meant. */
  pid: number;
  unitPid: number;
  command: string;
  descriptor?: number;
  resource: string;
  reason: string;
  remedy: string;
}

type Rule = { pattern: RegExp; reason: string; remedy: string };

const closeIt = 'let the program close it before the checkpoint';

/** Descriptors without a name in the file system that CRIU cannot save, by what /proc/PID/fd calls them. */
const anonymousRules: readonly Rule[] = [
  {
    pattern: /^anon_inode:\[io_uring\]/,
    reason: 'io_uring keeps requests in the kernel that cannot be read out',
    remedy: 'switch io_uring off in the program (for Node.js UV_USE_IO_URING=0) or deny it in the unit',
  },
  {
    pattern: /^anon_inode:\[userfaultfd\]/,
    reason: 'page faults that wait for an answer cannot be saved',
    remedy: closeIt,
  },
  {
    pattern: /^anon_inode:\[?perf_event\]?/,
    reason: 'hardware counters cannot be saved',
    remedy: 'stop the profiler',
  },
  {
    pattern: /^anon_inode:\[?kvm/,
    reason: 'a virtual machine lives in the kernel',
    remedy: 'use its own migration',
  },
  { pattern: /^anon_inode:\[?landlock/, reason: 'Landlock rule sets cannot be read out', remedy: closeIt },
  { pattern: /^anon_inode:\[?seccomp notify/, reason: 'a seccomp listener cannot be saved', remedy: closeIt },
  { pattern: /^anon_inode:\[?(sync_file|dmabuf)/, reason: 'it belongs to a device', remedy: closeIt },
  { pattern: /^\/?dmabuf:/, reason: 'it belongs to a device', remedy: closeIt },
  {
    pattern: /^anon_inode:\[?(fscontext|mount)\]?/,
    reason: 'a mount that is being made cannot be saved',
    remedy: 'try again later',
  },
];

/** Descriptors that CRIU saves, but would bring back as something else. */
const variants: Readonly<Record<NonNullable<OpenDescriptor['variant']>, { reason: string; remedy: string }>> =
  {
    'packet-pipe': {
      reason: 'a pipe in packet mode (O_DIRECT) would lose the borders between its messages',
      remedy: 'use a socket pair of type SOCK_SEQPACKET, or a pipe without O_DIRECT',
    },
    'eventfd-semaphore': {
      reason: 'an eventfd with EFD_SEMAPHORE would come back as one without',
      remedy: 'use a POSIX semaphore, or an eventfd without EFD_SEMAPHORE',
    },
  };

/** Devices that hold no state of their own, or whose state CRIU saves. */
const harmlessDevices =
  /^\/dev\/(null|zero|full|random|urandom|tty|console|ptmx|pts\/.*|shm\/.*|mqueue|net\/tun|fd|stdin|stdout|stderr)$/;

/** Decides on what a unit uses; `obstacles` forbid a checkpoint, `warnings` say what will be missing. Pure. */
export function findObstacles(resources: UnitResources): { obstacles: Obstacle[]; warnings: Obstacle[] } {
  const obstacles: Obstacle[] = [];
  const warnings: Obstacle[] = [];
  const inside = new Set(resources.processes.flatMap(({ descriptors }) => descriptors.map(socketInode)));
  const isOutside = (inode: number | undefined): boolean => {
    const peer = inode === undefined ? undefined : resources.unixPeers.get(inode);
    return peer !== undefined && !inside.has(peer);
  };
  for (const process of resources.processes) {
    obstacles.push(...ofProcess(process));
    for (const descriptor of process.descriptors) {
      const found = ofDescriptor(process, descriptor, isOutside);
      if (found !== undefined) obstacles.push(found);
    }
  }
  for (const { mountPoint, type, root } of resources.mounts) {
    if (type === 'fuse' || type.startsWith('fuse.') || type === 'fuseblk')
      if (root === '/') obstacles.push(ofMount(mountPoint, type));
  }
  for (const { pid, command } of resources.strangers)
    warnings.push({
      pid,
      unitPid: 0,
      command,
      resource: 'process',
      reason:
        'it was started by `cairn exec` and is not part of the job: it goes on, but a restart will not bring it back',
      remedy: 'end it, or start it from the job itself',
    });
  return { obstacles, warnings };
}

function who(process: ProcessResources): Pick<Obstacle, 'pid' | 'unitPid' | 'command'> {
  return { pid: process.pid, unitPid: process.unitPid, command: process.command };
}

function ofProcess(process: ProcessResources): Obstacle[] {
  const found: Obstacle[] = [];
  if (process.tracer !== 0)
    found.push({
      ...who(process),
      resource: 'debugger',
      reason: `process ${process.tracer} traces it, and a process has only one tracer`,
      remedy: 'detach the debugger',
    });
  // The only ones that CRIU restores (compel/src/lib/infect.c).
  if (process.stopSignal !== undefined && !['SIGSTOP', 'SIGTSTP'].includes(process.stopSignal))
    found.push({
      ...who(process),
      resource: `process stopped by ${process.stopSignal}`,
      reason: 'it waits in the background for the terminal, and such a stop cannot be brought back',
      remedy: 'bring it to the foreground (fg), or end it',
    });
  for (const { path, start } of process.devices)
    found.push({
      ...who(process),
      resource: `mapping of ${path} at ${start}`,
      reason: /infiniband|uverbs|rdma/.test(path)
        ? 'RDMA keeps memory registrations and queues in the adapter'
        : 'its content belongs to a device or cannot be read',
      remedy: /infiniband|uverbs|rdma/.test(path)
        ? 'use TCP: for Open MPI `--mca btl tcp,self`, for UCX `UCX_TLS=tcp,self`'
        : 'let the program unmap it before the checkpoint',
    });
  for (const kind of process.ownNamespaces)
    if (kind === 'pid' || kind === 'user' || kind === 'time')
      found.push({
        ...who(process),
        resource: `${kind} namespace`,
        reason: `a ${kind} namespace inside the unit cannot be saved`,
        remedy: 'run the program without a sandbox of its own, for Chromium with --no-sandbox',
      });
  return found;
}

function ofDescriptor(
  process: ProcessResources,
  descriptor: OpenDescriptor,
  isOutside: (inode: number | undefined) => boolean,
): Obstacle | undefined {
  const { fd, target, fileSystem } = descriptor;
  const named = (reason: string, remedy: string): Obstacle => ({
    ...who(process),
    descriptor: fd,
    resource: target,
    reason,
    remedy,
  });
  const rule = anonymousRules.find(({ pattern }) => pattern.test(target));
  if (rule !== undefined) return named(rule.reason, rule.remedy);
  if (fileSystem === 'mqueue' && target !== '/')
    return named(
      'a POSIX message queue cannot be read without taking its messages',
      'use System V queues or a socket',
    );
  if (descriptor.lostWatch !== undefined)
    return named(
      descriptor.lostWatch,
      'let the program watch the path anew, or not use inotify (tail: `tail -F ---disable-inotify`)',
    );
  const variant = descriptor.variant === undefined ? undefined : variants[descriptor.variant];
  if (variant !== undefined) return named(variant.reason, variant.remedy);
  if (target.startsWith('/dev/') && !harmlessDevices.test(target.replace(/ \(deleted\)$/, '')))
    if (fileSystem === 'devtmpfs' || fileSystem === undefined)
      return named('the state of a device cannot be saved', closeIt);
  if (descriptor.socket !== undefined && !canSaveSocket(descriptor.socket))
    return named(
      `sockets of this kind (domain ${descriptor.socket.domain}, protocol ${descriptor.socket.protocol}) cannot be saved`,
      'use TCP, UDP or Unix sockets',
    );
  if (isOutside(socketInode(descriptor)))
    return named(
      'the other end of this Unix socket belongs to a process outside the job',
      'use TCP, or let the program close the connection before the checkpoint',
    );
  return undefined;
}

function socketInode(descriptor: OpenDescriptor): number | undefined {
  const inode = /^socket:\[(\d+)\]$/.exec(descriptor.target)?.[1];
  return inode === undefined ? undefined : Number(inode);
}

/** Unix, IPv4, IPv6, netlink and packet sockets; of the internet protocols all but SCTP, DCCP and multipath TCP. */
function canSaveSocket({ domain, protocol }: { domain: number; protocol: number }): boolean {
  const [unix, inet, inet6, netlink, packet] = [1, 2, 10, 16, 17];
  const [dccp, sctp, mptcp] = [33, 132, 262];
  if (domain === inet || domain === inet6) return ![dccp, sctp, mptcp].includes(protocol);
  return domain === unix || domain === netlink || domain === packet;
}

function ofMount(mountPoint: string, type: string): Obstacle {
  return {
    pid: 0,
    unitPid: 0,
    command: '',
    resource: `mount ${mountPoint} (${type})`,
    reason: 'a FUSE file system is answered by a process whose connection cannot be saved',
    remedy: 'unmount it before the checkpoint',
  };
}

/** One line for people: `process 12 (python3 job.py), descriptor 5 (anon_inode:[io_uring]): reason; remedy`. */
export function describeObstacle(obstacle: Obstacle): string {
  const process = obstacle.unitPid === 0 ? '' : `process ${obstacle.unitPid} (${obstacle.command}), `;
  const stranger =
    obstacle.unitPid === 0 && obstacle.pid !== 0 ? `process ${obstacle.pid} (${obstacle.command}), ` : '';
  const what =
    obstacle.descriptor === undefined
      ? obstacle.resource
      : `descriptor ${obstacle.descriptor} (${obstacle.resource})`;
  return `${process}${stranger}${what}: ${obstacle.reason}; ${obstacle.remedy}`;
}
