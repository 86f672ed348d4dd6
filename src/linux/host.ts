import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { release } from 'node:os';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { systemCode } from '../errors.ts';

/** `fs.pipe-max-size` that dumps need where CAP_SYS_RESOURCE is missing: CRIU keeps references to all lazy pages in pipes. */
export const neededPipeMaxBytes = 2 ** 30;

/** A kernel setting by its dotted name, as text without the line end; `undefined` when this kernel has none of that name. */
export function sysctl(name: string): string | undefined {
  return readText(`/proc/sys/${name.replaceAll('.', '/')}`)?.trim();
}

/** Capability names by bit number; source: include/uapi/linux/capability.h. */
export const capabilityNames = [
  ...['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_DAC_READ_SEARCH', 'CAP_FOWNER', 'CAP_FSETID', 'CAP_KILL'],
  ...['CAP_SETGID', 'CAP_SETUID', 'CAP_SETPCAP', 'CAP_LINUX_IMMUTABLE', 'CAP_NET_BIND_SERVICE'],
  ...['CAP_NET_BROADCAST', 'CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_IPC_LOCK', 'CAP_IPC_OWNER', 'CAP_SYS_MODULE'],
  ...['CAP_SYS_RAWIO', 'CAP_SYS_CHROOT', 'CAP_SYS_PTRACE', 'CAP_SYS_PACCT', 'CAP_SYS_ADMIN', 'CAP_SYS_BOOT'],
  ...['CAP_SYS_NICE', 'CAP_SYS_RESOURCE', 'CAP_SYS_TIME', 'CAP_SYS_TTY_CONFIG', 'CAP_MKNOD', 'CAP_LEASE'],
  ...['CAP_AUDIT_WRITE', 'CAP_AUDIT_CONTROL', 'CAP_SETFCAP', 'CAP_MAC_OVERRIDE', 'CAP_MAC_ADMIN'],
  ...['CAP_SYSLOG', 'CAP_WAKE_ALARM', 'CAP_BLOCK_SUSPEND', 'CAP_AUDIT_READ', 'CAP_PERFMON', 'CAP_BPF'],
  'CAP_CHECKPOINT_RESTORE',
] as const;

export type CapabilityName = (typeof capabilityNames)[number];

/** The names in a capability mask as /proc/PID/status shows it (`CapEff: 000001ff…`). */
export function capabilitiesOf(mask: bigint): CapabilityName[] {
  return capabilityNames.filter((_, bit) => (mask & (1n << BigInt(bit))) !== 0n);
}

/** The effective capabilities of this process, as a mask. */
export function effectiveCapabilityMask(): bigint {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readText('/proc/self/status') ?? '')?.[1];
  return mask === undefined ? 0n : BigInt(`0x${mask}`);
}

/** Whether this process has a capability in its effective set. */
export function hasCapability(name: CapabilityName): boolean {
  return capabilitiesOf(effectiveCapabilityMask()).includes(name);
}

/** A line of /proc/self/mountinfo, as far as host checks need it. */
interface Mount {
  point: string;
  type: string;
  options: string;
}

function mounts(): Mount[] {
  const list: Mount[] = [];
  for (const line of (readText('/proc/self/mountinfo') ?? '').split('\n')) {
    const [before, after] = line.split(' - ');
    const point = before?.split(' ')[4];
    const [type, , options] = after?.split(' ') ?? [];
    if (point === undefined || type === undefined) continue;
    // Blanks and the like are written in octal.
    const name = point.replaceAll(/\\([0-7]{3})/g, (_, octal) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    list.push({ point: name, type, options: options ?? '' });
  }
  return list;
}

export type CgroupMode = 'v2' | 'v1' | 'hybrid' | 'none';

/**
 * How cgroups are mounted: `v2` (unified), `v1`, `hybrid` (v1 controllers, and a cgroup2 hierarchy without any), `none`.
 */
export function cgroupMode(): CgroupMode {
  const types = new Map(mounts().map(({ point, type }) => [point, type]));
  if (types.get('/sys/fs/cgroup') === 'cgroup2') return 'v2';
  const all = new Set(types.values());
  if (all.has('cgroup')) return all.has('cgroup2') ? 'hybrid' : 'v1';
  return all.has('cgroup2') ? 'v2' : 'none';
}

/** The file system type that holds a path or its nearest existing parent (`ext4`, `tmpfs`, `overlay` …). */
export function fileSystemType(file: string): string | undefined {
  const target = nearestExisting(file);
  let best: Mount | undefined;
  for (const mount of mounts()) {
    const below = mount.point === '/' ? '/' : `${mount.point}/`;
    // The last one wins among mounts on the same point: it hides the others.
    if (
      (target === mount.point || target.startsWith(below)) &&
      mount.point.length >= (best?.point.length ?? 0)
    ) {
      best = mount;
    }
  }
  return best?.type;
}

/** Space on the file system that holds a path (or will hold it: its nearest existing parent), in bytes. */
export function spaceAt(file: string): { freeBytes: number; totalBytes: number; freeInodes: number } {
  const at = statfsSync(nearestExisting(file));
  return { freeBytes: at.bavail * at.bsize, totalBytes: at.blocks * at.bsize, freeInodes: at.ffree };
}

function nearestExisting(file: string): string {
  let target = path.resolve(file);
  while (!existsSync(target) && target !== '/') target = path.dirname(target);
  return target;
}

/**
 * The build configuration of the running kernel: option name without `CONFIG_` to `y`, `m` or a value. From
 * /proc/config.gz or /boot/config-RELEASE; `undefined` when neither can be read.
 */
export function kernelConfig(): Map<string, string> | undefined {
  let text: string | undefined;
  try {
    text = gunzipSync(readFileSync('/proc/config.gz')).toString('utf8');
  } catch (error) {
    if (systemCode(error) === undefined) throw error;
    text = readText(`/boot/config-${release()}`);
  }
  return text === undefined ? undefined : parseKernelConfig(text);
}

/** Reads the lines `CONFIG_NAME=value`; what is not set is left out. */
export function parseKernelConfig(text: string): Map<string, string> {
  const config = new Map<string, string>();
  for (const [, name, value] of text.matchAll(/^CONFIG_(\w+)=(.*)$/gm)) {
    if (name !== undefined && value !== undefined) config.set(name, value);
  }
  return config;
}

/** Whether the kernel knows a file system type now (a module that would be loaded on demand does not count). */
export function knowsFileSystem(type: string): boolean {
  const lines = (readText('/proc/filesystems') ?? '').split('\n');
  return lines.some((line) => line.split('\t')[1] === type);
}

/** Whether a module of this name could be loaded (or is built in), by the list that belongs to the running kernel. */
export function hasModule(name: string): boolean {
  if (existsSync(`/sys/module/${name}`)) return true;
  for (const list of ['modules.dep', 'modules.builtin']) {
    const text = readText(`/lib/modules/${release()}/${list}`);
    if (text?.split('\n').some((line) => line.includes(`/${name}.ko`))) return true;
  }
  return false;
}

/** Huge pages of the default size: how many there are and how large one is, in bytes. */
export function hugePages(): { total: number; free: number; sizeBytes: number } {
  const text = readText('/proc/meminfo') ?? '';
  const number = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  return {
    total: number('HugePages_Total'),
    free: number('HugePages_Free'),
    sizeBytes: number('Hugepagesize') * 1024,
  };
}

/** Main memory in bytes, as the kernel counts it. */
export function memoryBytes(): { total: number; available: number } {
  const text = readText('/proc/meminfo') ?? '';
  const number = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0) * 1024;
  return { total: number('MemTotal'), available: number('MemAvailable') };
}

/** Distribution, as `/etc/os-release` names it. */
export interface Distribution {
  /** `debian`, `ubuntu` … */
  id: string;
  /** Distributions it derives from. */
  like: readonly string[];
  /** `12`, `24.04`; `undefined` for testing and unstable. */
  version: string | undefined;
  name: string;
}

/** The distribution of this host. */
export function distribution(): Distribution {
  return parseOsRelease(readText('/etc/os-release') ?? readText('/usr/lib/os-release') ?? '');
}

/** Reads os-release(5). */
export function parseOsRelease(text: string): Distribution {
  const values = new Map<string, string>();
  for (const [, name, value] of text.matchAll(/^([A-Z_]+)=(.*)$/gm)) {
    if (name !== undefined && value !== undefined) values.set(name, value.replaceAll(/^["']|["']$/g, ''));
  }
  return {
    id: values.get('ID') ?? 'linux',
    like: (values.get('ID_LIKE') ?? '').split(' ').filter((word) => word !== ''),
    version: values.get('VERSION_ID'),
    name: values.get('PRETTY_NAME') ?? values.get('NAME') ?? 'Linux',
  };
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
