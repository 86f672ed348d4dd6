/** A file that this one CRIU is to see instead of `/proc/PID/smaps`. */
export interface Cover {
  pid: number;
  file: string;
  /** The descriptor of it that has the lease, in this process; see `MappingCover`. */
  fd: number;
}

/** A mount that fails does no harm: then CRIU sees the mappings as they are. */
const script =
  'while [ "$1" != -- ]; do mount --no-mtab --bind "$2" "/proc/$1/smaps"; shift 2; done; shift; exec "$@"';

/**
 * Command line that runs `argv` (CRIU) in a mount namespace of its own, in which the covers lie over the files of /proc. The process is the same
 * in the end. Pure.
 */
export function coveredCommand(argv: readonly string[], covers: readonly Cover[]): string[] {
  if (covers.length === 0) return [...argv];
  return [
    ...['unshare', '--mount', '--propagation', 'slave', '/bin/sh', '-c', script, 'sh'],
    ...covers.flatMap(({ pid, file }) => [String(pid), file]),
    '--',
    ...argv,
  ];
}
