/** The network lock: while it is set, nothing but loopback traffic gets into or out of a network namespace. */

import { nft, nftList } from '../linux/nft.ts';

/** Own table, so that locking and unlocking touch no rule of anyone else. */
const table = 'inet cairn_lock';

/** The lock as an nft script. Priorities beyond those of CRIU and container engines: nothing answers before it. */
export const lockRules = `
add table ${table}
delete table ${table}
table ${table} {
  chain in {
    type filter hook input priority -400; policy accept;
    iifname != "lo" drop
  }
  chain out {
    type filter hook output priority -400; policy accept;
    oifname != "lo" drop
  }
}
`;

/** Locks the network namespace of a process; it may be locked already. */
export async function lockNetwork(pid: number, signal?: AbortSignal): Promise<void> {
  await nft(lockRules, { pid, ...(signal === undefined ? {} : { signal }) });
}

/** Unlocks it; nothing if it is not locked. */
export async function unlockNetwork(pid: number, signal?: AbortSignal): Promise<void> {
  const script = `add table ${table}\ndelete table ${table}\n`;
  await nft(script, { pid, ...(signal === undefined ? {} : { signal }) });
}

/** Whether the network namespace of a process is locked. */
export async function isNetworkLocked(pid: number): Promise<boolean> {
  return (await nftList(`table ${table}`, { pid })) !== undefined;
}
