/** Open descriptors of a process: /proc/PID/fd and /proc/PID/fdinfo. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { unlessGone } from './process.ts';

/** An open descriptor. */
export interface Descriptor {
  fd: number;
  /** As the link says: a path, `socket:[inode]`, `pipe:[inode]`, `anon_inode:[io_uring]` … */
  target: string;
}

/** Everything that fdinfo tells about a descriptor. */
export interface DescriptorInfo {
  position: bigint;
  /** Open flags (octal in the file). */
  flags: number;
  mountId: number;
  inode: number | undefined;
  /** `lock:` lines, as they are. */
  locks: string[];
  /** All lines by name, for what is particular to a kind (`eventfd-count`, `tty-index`, `Pid` …); the first of each name. */
  fields: Map<string, string>;
}

/** The descriptors of a process, ascending; `undefined` if it is gone. */
export function readDescriptors(pid: number | 'self'): Descriptor[] | undefined {
  const names = unlessGone(() => readdirSync(`/proc/${pid}/fd`));
  if (names === undefined) return undefined;
  const descriptors: Descriptor[] = [];
  for (const fd of names.map(Number)) {
    const target = unlessGone(() => readlinkSync(`/proc/${pid}/fd/${fd}`));
    if (target !== undefined) descriptors.push({ fd, target });
  }
  return descriptors;
}

/** Details of one descriptor. */
export function readDescriptorInfo(pid: number | 'self', fd: number): DescriptorInfo | undefined {
  const text = unlessGone(() => readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'));
  return text === undefined ? undefined : parseDescriptorInfo(text);
}

export function parseDescriptorInfo(text: string): DescriptorInfo {
  const fields = new Map<string, string>();
  const locks: string[] = [];
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    if (colon <= 0) continue;
    const name = line.slice(0, colon);
    const value = line.slice(colon + 1).trim();
    if (name === 'lock') locks.push(value);
    else if (!fields.has(name)) fields.set(name, value);
  }
  const inode = fields.get('ino');
  return {
    position: BigInt(fields.get('pos') ?? 0),
    flags: Number.parseInt(fields.get('flags') ?? '0', 8),
    mountId: Number(fields.get('mnt_id') ?? -1),
    inode: inode === undefined ? undefined : Number(inode),
    locks,
    fields,
  };
}

/** Inode of a `socket:[123]` or `pipe:[123]` target, otherwise `undefined`. */
export function inodeOfTarget(target: string, kind: 'socket' | 'pipe'): number | undefined {
  const match = /^(\w+):\[(\d+)\]$/.exec(target);
  return match?.[1] === kind ? Number(match[2]) : undefined;
}
