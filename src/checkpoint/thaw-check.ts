import { setTimeout as delay } from 'node:timers/promises';
import { close } from '../linux/libc.ts';
import { nft, nftList } from '../linux/nft.ts';
import { openPidfd, takeDescriptor } from '../linux/pidfd.ts';
import { inodeOfTarget, readDescriptors } from '../linux/process-descriptors.ts';
import { readStat } from '../linux/process.ts';
import { endTcpRepair, IPPROTO_TCP, socketKind } from '../linux/socket.ts';

/**
 * Waits until no process of a unit is held by a tracer any more: CRIU has let it go, or has died, and then the kernel does. Returns
 * whether that is so after `timeoutMs`.
 */
export async function waitUntilThawed(pids: readonly number[], timeoutMs = 5000): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    if (pids.every((pid) => readStat(pid)?.state !== 't')) return true;
    if (performance.now() > deadline) return false;
    await delay(2);
  }
}

/**
 * Takes connections out of the repair mode in which a CRIU that died in the middle has left them: whatever a program reads from or
 * writes to one that is in it fails. Nobody holds the programs back meanwhile: one that was reading when it was frozen tries again at
 * once, and may be faster than this. Programs that wait for readiness (poll, epoll) notice nothing.
 */
export function endTcpRepairs(pids: readonly number[]): void {
  for (const pid of pids) {
    const pidfd = openPidfd(pid);
    if (pidfd === undefined) continue;
    try {
      for (const { fd, target } of readDescriptors(pid) ?? [])
        if (inodeOfTarget(target, 'socket') !== undefined) endRepairOf(pidfd, fd);
    } finally {
      close(pidfd);
    }
  }
}

function endRepairOf(pidfd: number, fd: number): void {
  let socket: number | undefined;
  try {
    socket = takeDescriptor(pidfd, fd);
    if (socketKind(socket).protocol === IPPROTO_TCP) endTcpRepair(socket);
  } catch {
    // The process has closed it, or has ended.
  } finally {
    if (socket !== undefined) close(socket);
  }
}

/**
 * Takes away the rules with which a CRIU that died in the middle has locked the network of a unit; without this its connections
 * would stay silent for ever. Only tables that bear CRIU's name in the unit's own network namespace.
 */
export async function removeCriuLocks(pid: number): Promise<void> {
  const place = { pid };
  const tables = (await nftList('tables', place)) ?? '';
  const names = [...tables.matchAll(/^table (\w+ CRIU-[\w-]+)$/gm)].map((match) => match[1]);
  for (const name of names) await nft(`delete table ${name}\n`, place);
}
