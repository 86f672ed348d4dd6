/** The messages of CRIU's images that Cairn reads (CRIU images/*.proto). */

import { CairnError } from '../errors.ts';
import { decodeImage } from './image-file.ts';
import { Message } from './protobuf.ts';

/** `inventory.img` */
export interface Inventory {
  /** 2: images of version 1.1. */
  imageVersion: number;
  /** Seconds since boot when the dump was made, in microseconds; used by CRIU to notice reused PIDs. */
  uptime: bigint | undefined;
  tcpClosed: boolean;
  /** Which PID namespace and so on the root task has; absent kinds are those CRIU itself had. */
  rootNamespaces: Partial<Record<'pid' | 'net' | 'ipc' | 'uts' | 'mnt' | 'user' | 'cgroup' | 'time', number>>;
}

export function decodeInventory(image: Uint8Array): Inventory {
  const [message] = decodeImage(image, 'inventory');
  const ids = message?.message(3);
  const rootNamespaces: Inventory['rootNamespaces'] = {};
  const kinds = ['pid', 'net', 'ipc', 'uts', 'mnt', 'user', 'cgroup', 'time'] as const;
  for (const [i, kind] of kinds.entries()) {
    const id = ids?.uint(5 + i);
    if (id !== undefined) rootNamespaces[kind] = id;
  }
  return {
    imageVersion: required(message?.uint(1), 'inventory.img', 'img_version'),
    uptime: message?.uint64(8),
    tcpClosed: message?.bool(10) ?? false,
    rootNamespaces,
  };
}

/** One task of `pstree.img`; PIDs are those inside the dumped PID namespace. */
export interface TaskEntry {
  pid: number;
  parent: number;
  processGroup: number;
  session: number;
  threads: number[];
}

export function decodeTaskTree(image: Uint8Array): TaskEntry[] {
  return decodeImage(image, 'pstree').map((message) => ({
    pid: required(message.uint(1), 'pstree.img', 'pid'),
    parent: required(message.uint(2), 'pstree.img', 'ppid'),
    processGroup: required(message.uint(3), 'pstree.img', 'pgid'),
    session: required(message.uint(4), 'pstree.img', 'sid'),
    threads: message.uints(5).map(Number),
  }));
}

/** `core-PID.img`, what is worth showing. */
export interface Core {
  name: string;
  /** 1 alive, 2 dead, 3 stopped, 6 zombie (as CRIU numbers them). */
  state: number;
  exitCode: number;
}

/** `undefined` for the core of a thread that is not the first of its process. */
export function decodeCore(image: Uint8Array, name = 'core.img'): Core | undefined {
  const task = decodeImage(image, 'core', name)[0]?.message(3);
  return task && { name: task.text(6) ?? '', state: task.uint(1) ?? 0, exitCode: task.uint(2) ?? 0 };
}

/** One mapping of `mm-PID.img`. */
export interface SavedMapping {
  start: bigint;
  end: bigint;
  /** Offset in bytes in the file. */
  offset: bigint;
  /** Identifier of shared memory or of the file. */
  sharedId: bigint;
  protection: number;
  flags: number;
  /** VMA_* bits of CRIU. */
  status: number;
  /** Bit N: advice number N of madvise(2). */
  advice: number;
}

export function decodeMappings(image: Uint8Array, name = 'mm.img'): SavedMapping[] {
  const [message] = decodeImage(image, 'mm', name);
  return (message?.messages(14) ?? []).map((vma) => ({
    start: required(vma.uint64(1), name, 'start'),
    end: required(vma.uint64(2), name, 'end'),
    offset: vma.uint64(3) ?? 0n,
    sharedId: vma.uint64(4) ?? 0n,
    protection: vma.uint(5) ?? 0,
    flags: vma.uint(6) ?? 0,
    status: vma.uint(7) ?? 0,
    advice: vma.uint(9) ?? 0,
  }));
}

/** The name that CRIU asks its image streamer for. */
export function decodeStreamerRequest(message: Message): string {
  return required(message.text(1), 'request of the image streamer', 'filename');
}

/** The streamer's answer on a restore: does the image exist? */
export function streamerReply(exists: boolean): Message {
  return new Message().set(1, exists);
}

function required<T>(value: T | undefined, where: string, field: string): T {
  if (value !== undefined) return value;
  throw new CairnError('permanent', 'image-damaged', `Tried to read CRIU's ${where}: ${field} is missing.`);
}
