import { readdirSync, readFileSync } from 'node:fs';
import { unlessGone } from './process.ts';

/** Whether no block device of this host has a request under way (/sys/block/DEVICE/inflight). */
export function disksAreQuiet(): boolean {
  for (const device of readdirSync('/sys/block')) {
    const counts = unlessGone(() => readFileSync(`/sys/block/${device}/inflight`, 'utf8')) ?? '';
    if (
      counts
        .trim()
        .split(/\s+/)
        .some((count) => Number(count) > 0)
    )
      return false;
  }
  return true;
}
