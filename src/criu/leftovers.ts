import { killProcess } from '../linux/pidfd.ts';
import { identityOf, type ProcessIdentity, readAllPids, readCommandLine } from '../linux/process.ts';

/** What CRIU is told to do. */
export type CriuAction = 'dump' | 'restore';

/**
 * Processes of CRIU that work, or worked, in `directory`; known by their command line. A CRIU that is killed can leave children behind: it
 * tries out features of the kernel in children at its start, which stop themselves and wait for it.
 */
export function leftoverCriu(directory: string, actions: readonly CriuAction[]): ProcessIdentity[] {
  return readAllPids().flatMap((pid) => {
    const words = readCommandLine(pid);
    if (words?.includes(directory) !== true || !actions.some((action) => words.includes(action))) return [];
    return identityOf(pid) ?? [];
  });
}

/** Ends what a CRIU that was killed has left behind. */
export function endLeftoverCriu(directory: string, actions: readonly CriuAction[]): void {
  for (const left of leftoverCriu(directory, actions)) killProcess(left);
}
