/**
 * The OCI runtime configuration (config.json) of a unit, made from its specification and what is known of the host.
 *
 * Nothing in it mounts a tmpfs: CRIU would archive each with tar while the unit is frozen (20 ms each). `/dev`, `/run` and
 * `/tmp` lie in the writable layer, `/dev/shm` is a tmpfs of the host and `/dev/pts` a devpts instance of the host (so that
 * a terminal can be given a new master on a restore); both are bound in and therefore external for CRIU.
 */

import type { SeccompProfile } from './seccomp.ts';
import { defaultSeccomp } from './seccomp.ts';
import type { UnitSpec } from './spec.ts';

/** The capabilities that container users expect; none of them reaches beyond the unit's own user namespace. */
export const defaultCapabilities: readonly string[] = [
  'CAP_AUDIT_WRITE',
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_MKNOD',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_RAW',
  'CAP_SETFCAP',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SYS_CHROOT',
];

/** What the bundle depends on besides the specification. */
export interface BundlePlaces {
  /** `process.arch`. */
  architecture: string;
  /** The mounted root file system of the unit. */
  rootfs: string;
  /** tmpfs and devpts that become /dev/shm and /dev/pts. */
  shm: string;
  pts: string;
  /** An empty directory that hides others. */
  empty: string;
  cgroupPath: string;
  /** Which of `maskedFiles` and `maskedDirectories` exist on this host. */
  existing: ReadonlySet<string>;
  /** File systems of the host that are mounted below its root and shall be seen, read-only. */
  hostMounts: readonly string[];
  /** Directories on those that must not be seen. */
  coveredDirectories: readonly string[];
}

interface OciMount {
  destination: string;
  type: string;
  source: string;
  options: string[];
}

/** The part of the OCI runtime specification that is used here. */
export interface OciConfiguration {
  ociVersion: string;
  hostname: string;
  root: { path: string; readonly: boolean };
  process: OciProcess;
  mounts: OciMount[];
  linux: {
    uidMappings: { containerID: number; hostID: number; size: number }[];
    gidMappings: { containerID: number; hostID: number; size: number }[];
    cgroupsPath: string;
    namespaces: { type: string }[];
    resources: { devices: { allow: boolean; access: string }[] };
    maskedPaths: string[];
    readonlyPaths: string[];
    seccomp?: SeccompProfile;
  };
}

/** The `process` object of the OCI runtime specification; `runc exec --process` takes the same. */
export interface OciProcess {
  terminal: boolean;
  consoleSize?: { height: number; width: number };
  user: { uid: number; gid: number; additionalGids: number[] };
  args: string[];
  env: string[];
  cwd: string;
  capabilities: { bounding: string[]; effective: string[]; permitted: string[] };
  noNewPrivileges: boolean;
}

/** Files of /proc that tell or do too much; hidden by /dev/null. */
export const maskedFiles: readonly string[] = [
  '/proc/kcore',
  '/proc/keys',
  '/proc/timer_list',
  '/proc/sched_debug',
];

/** Directories that tell too much; hidden by an empty one. Not below /proc: runc refuses mounts there. */
export const maskedDirectories: readonly string[] = ['/sys/firmware', '/sys/devices/virtual/powercap'];

/** Root of the unit is root of the host by number, so what checks only the number must not be writable. */
const readonlyPaths = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/bus',
  '/proc/fs',
  '/proc/irq',
  '/proc/scsi',
  '/proc/sys',
  '/proc/sysrq-trigger',
];

const namespaces = ['user', 'pid', 'mount', 'ipc', 'uts', 'network', 'cgroup', 'time'];

/** Every uid and gid but the last, which means "none". */
const identity = [{ containerID: 0, hostID: 0, size: 4294967295 }];

/** Builds the configuration of a unit. */
export function ociConfiguration(spec: UnitSpec, places: BundlePlaces): OciConfiguration {
  const bind = (source: string, destination: string, ...options: string[]): OciMount => ({
    destination,
    type: 'bind',
    source,
    options: ['rbind', ...options],
  });
  const exists = (path: string) => places.existing.has(path);
  return {
    ociVersion: '1.2.0',
    hostname: spec.hostname,
    root: { path: places.rootfs, readonly: false },
    process: ociProcess(spec),
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      bind(places.pts, '/dev/pts', 'nosuid', 'noexec'),
      bind(places.shm, '/dev/shm', 'nosuid', 'noexec', 'nodev'),
      {
        destination: '/dev/mqueue',
        type: 'mqueue',
        source: 'mqueue',
        options: ['nosuid', 'noexec', 'nodev'],
      },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
      ...maskedDirectories.filter(exists).map((path) => bind(places.empty, path, 'ro')),
      ...places.hostMounts.map((path) => bind(path, path, 'ro')),
      ...places.coveredDirectories.map((path) => bind(places.empty, path, 'ro')),
      ...spec.mounts.map((m) => bind(m.source, m.target, m.readonly ? 'ro' : 'rw')),
    ],
    linux: {
      uidMappings: identity,
      gidMappings: identity,
      cgroupsPath: places.cgroupPath,
      namespaces: namespaces.map((type) => ({ type })),
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      maskedPaths: maskedFiles.filter(exists),
      readonlyPaths,
      ...(spec.seccomp === 'default'
        ? { seccomp: defaultSeccomp(spec.capabilities, places.architecture) }
        : {}),
    },
  };
}

/** The process of a unit's command, or of another command in the unit. */
export function ociProcess(
  spec: Pick<UnitSpec, 'command' | 'environment' | 'user' | 'workingDirectory' | 'terminal' | 'capabilities'>,
  size?: { columns: number; rows: number },
): OciProcess {
  const capabilities = [...spec.capabilities];
  // As everywhere: a program of another user starts without capabilities, but may gain them from a setuid file.
  const held = spec.user.uid === 0 ? capabilities : [];
  return {
    terminal: spec.terminal,
    ...(size === undefined ? {} : { consoleSize: { height: size.rows, width: size.columns } }),
    user: spec.user,
    args: [...spec.command],
    env: Object.entries(spec.environment).map(([name, value]) => `${name}=${value}`),
    cwd: spec.workingDirectory,
    capabilities: { bounding: capabilities, effective: held, permitted: held },
    noNewPrivileges: false,
  };
}
