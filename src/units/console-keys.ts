/** Which descriptors of a unit with a terminal lead to that terminal, in the words of CRIU. */

import { readdirSync, statSync } from 'node:fs';
import { readStat, unlessGone } from '../linux/process.ts';
import type { StdioKeys } from './monitor-stdio.ts';

/** /dev/tty: whatever is the controlling terminal of the process that opens it. */
const controllingTerminal = 0x500;

/**
 * Keys (`tty[RDEV:DEV]`) of everything in the given processes that is the unit's console: its slave side, and /dev/tty
 * where that means the same. Each goes to `--external` of a dump and to `--inherit-fd` of the restore.
 *
 * A /dev/tty that means another terminal (of a tmux in the unit, for example) is left to CRIU; it can only have one or the
 * other, so if both occur the dump is refused by CRIU.
 */
export function consoleKeys(stdio: StdioKeys | undefined, processes: readonly number[]): string[] {
  if (stdio?.kind !== 'terminal') return [];
  const console = Number.parseInt(/^tty\[([0-9a-f]+):/.exec(stdio.terminal)?.[1] ?? '', 16);
  const keys = new Set([stdio.terminal]);
  for (const pid of processes) {
    if (readStat(pid)?.terminal !== console) continue;
    for (const fd of unlessGone(() => readdirSync(`/proc/${pid}/fd`)) ?? []) {
      const file = unlessGone(() => statSync(`/proc/${pid}/fd/${fd}`));
      if (file?.isCharacterDevice() && file.rdev === controllingTerminal) {
        keys.add(`tty[${file.rdev.toString(16)}:${file.dev.toString(16)}]`);
      }
    }
  }
  return [...keys];
}
