/** Entering and leaving namespaces. All of it acts on the calling thread only. */

import { closeSync, openSync } from 'node:fs';
import { checked, libc } from './libc.ts';

/** Flags of unshare(2) and setns(2), by the name under /proc/PID/ns. */
export const namespaceFlags = {
  time: 0x80,
  mnt: 0x20000,
  cgroup: 0x2000000,
  uts: 0x4000000,
  ipc: 0x8000000,
  user: 0x10000000,
  pid: 0x20000000,
  net: 0x40000000,
} as const;

export type NamespaceKind = keyof typeof namespaceFlags;

/** Gives the calling thread new namespaces of the given kinds. */
export function unshare(...kinds: NamespaceKind[]): void {
  const flags = kinds.reduce((sum, kind) => sum | namespaceFlags[kind], 0);
  checked(libc().unshare(flags), 'unshare', kinds.join(','));
}

/** Moves the calling thread into the namespace that a descriptor refers to. */
export function setNamespace(fd: number, kind: NamespaceKind): void {
  checked(libc().setns(fd, namespaceFlags[kind]), 'setns', kind);
}

/**
 * Runs a synchronous action inside the namespace at `path` (`/proc/PID/ns/net`, `/run/netns/NAME`) and returns to the own
 * one. Not for `user`, `pid` and `mnt`, which a thread of many cannot leave again.
 */
export function insideNamespace<T>(path: string, kind: 'net' | 'uts' | 'ipc' | 'cgroup', action: () => T): T {
  const own = openSync(`/proc/thread-self/ns/${kind}`, 'r');
  try {
    const target = openSync(path, 'r');
    try {
      setNamespace(target, kind);
    } finally {
      closeSync(target);
    }
    try {
      return action();
    } finally {
      setNamespace(own, kind);
    }
  } finally {
    closeSync(own);
  }
}
