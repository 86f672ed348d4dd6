import { setTimeout as delay } from 'node:timers/promises';
import { nft, nftList } from '../linux/nft.ts';
import { readStat } from '../linux/process.ts';

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
 * Takes away the rules with which a CRIU that died in the middle has locked the network of a unit; without this its connections
 * would stay silent for ever. Only tables that bear CRIU's name in the unit's own network namespace.
 */
export async function removeCriuLocks(pid: number): Promise<void> {
  const place = { pid };
  const tables = (await nftList('tables', place)) ?? '';
  const names = [...tables.matchAll(/^table (\w+ CRIU-[\w-]+)$/gm)].map((match) => match[1]);
  for (const name of names) await nft(`delete table ${name}\n`, place);
}
