import { atLeast } from '../linux/version.ts';

/** Whether pages may be hidden from this CRIU. One that does not save guard pages would not be told of them by Cairn either. */
export function mayCover(criuVersion: string): boolean {
  return atLeast(criuVersion, '4.2');
}

/**
 * Puts another page map over `/proc/PID/pagemap` of each process, for this one CRIU only (a mount namespace of its own): its own.
 *
 * `/proc/PID/pagemap` belongs to a process, not to a path: CRIU asks itself which pages it has at the addresses of the mappings of the
 * process, finds none, and so neither lists them nor puts references to them into pipes, which takes most of a lazy dump of much memory. What
 * the process has Cairn lists itself, its guard pages too. A page that CRIU happens to have at such an address it lists, and reads from the process:
 * harmless, as is a mount that fails.
 */
const script =
  'while [ "$1" != -- ]; do mount --no-mtab --bind "/proc/$$/pagemap" "/proc/$1/pagemap"; shift; done; ' +
  'shift; exec "$@"';

/** Command line that runs `argv` (CRIU) so that it does not see the pages of `pids`. The process is the same in the end. Pure. */
export function coveredCommand(argv: readonly string[], pids: readonly number[]): string[] {
  if (pids.length === 0) return [...argv];
  return [
    'unshare',
    '--mount',
    '--propagation',
    'slave',
    '/bin/sh',
    '-c',
    script,
    'sh',
    ...pids.map(String),
    '--',
    ...argv,
  ];
}
