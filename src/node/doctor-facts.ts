import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { arch, release } from 'node:os';
import path from 'node:path';
import { type Criu, type CriuCheck, checkCriu, findCriu } from '../criu/find.ts';
import { CairnError, systemCode } from '../errors.ts';
import { findProgram, findRuntime, type Runtime } from '../linux/find-program.ts';
import {
  type CapabilityName,
  type CgroupMode,
  capabilitiesOf,
  cgroupMode,
  distribution,
  effectiveCapabilityMask,
  fileSystemType,
  hasModule,
  hugePages,
  kernelConfig,
  knowsFileSystem,
  memoryBytes,
  spaceAt,
  sysctl,
} from '../linux/host.ts';
import { lastLines, runProgram } from '../linux/run-program.ts';

/** Something that was looked for, or why it is not usable. */
export type Found<T> =
  | { found: T }
  | { failure: { code: string; message: string; remedy: string; lines: string[] } };

export interface Place {
  path: string;
  type: string | undefined;
  freeBytes: number;
  totalBytes: number;
  freeInodes: number;
}

/** What is known about this host; everything that `diagnose` decides from. */
export interface DoctorFacts {
  root: boolean;
  distribution: string;
  architecture: string;
  nodeVersion: string;
  kernelRelease: string;
  /** `undefined` where the configuration of the kernel cannot be read. */
  kernelConfig: ReadonlyMap<string, string> | undefined;
  capabilities: readonly CapabilityName[];
  namespaces: readonly string[];
  overlay: boolean;
  /** `undefined` without root. */
  nftables: Found<true> | undefined;
  criu: Found<Criu>;
  /** `undefined` without root. */
  criuCheck: Found<CriuCheck> | undefined;
  runtime: Found<Runtime>;
  /** The programs of the system that Cairn runs, with where they are. */
  programs: Readonly<Record<string, string | undefined>>;
  sysctls: Readonly<Record<SysctlName, string | undefined>>;
  /** `/proc/sys` can be written by this process. */
  sysctlsWritable: boolean;
  cgroup: CgroupMode;
  cgroupWritable: boolean;
  systemRun: { type: string | undefined };
  state: Place;
  run: Place;
  hugePages: { total: number; free: number; sizeBytes: number };
  memory: { total: number; available: number };
  daemon: 'running' | 'stopped' | 'unknown';
}

export const sysctlNames = [
  'fs.pipe-max-size',
  'fs.pipe-user-pages-soft',
  'vm.unprivileged_userfaultfd',
  'kernel.io_uring_disabled',
  'kernel.ns_last_pid',
  'kernel.yama.ptrace_scope',
  'user.max_user_namespaces',
  'net.ipv4.ip_forward',
  'net.bridge.bridge-nf-call-iptables',
] as const;

export type SysctlName = (typeof sysctlNames)[number];

const namespaceNames = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'];
const programNames = ['ip', 'nft', 'nsenter', 'unshare', 'mount', 'umount', 'tar'];

/** Looks at this host. Changes nothing; without root some things stay unknown. Takes about a second as root. */
export async function collectDoctorFacts(places: { state: string; run: string }): Promise<DoctorFacts> {
  const root = process.getuid?.() === 0;
  const criu = await attempt(findCriu);
  const programs: Record<string, string | undefined> = {};
  for (const name of programNames) programs[name] = (await findProgram(name))?.path;
  return {
    root,
    distribution: distribution().name,
    architecture: arch(),
    nodeVersion: process.version,
    kernelRelease: release(),
    kernelConfig: kernelConfig(),
    capabilities: capabilitiesOf(effectiveCapabilityMask()),
    namespaces: namespaceNames.filter((name) => existsSync(`/proc/self/ns/${name}`)),
    overlay: knowsFileSystem('overlay') || hasModule('overlay'),
    nftables: root ? await attempt(() => checkNftables(programs.nft)) : undefined,
    criu,
    criuCheck: root && 'found' in criu ? await attempt(() => checkCriu(criu.found.path)) : undefined,
    runtime: await attempt(() => findRuntime('runc')),
    programs,
    sysctls: Object.fromEntries(sysctlNames.map((name) => [name, sysctl(name)])) as DoctorFacts['sysctls'],
    sysctlsWritable: isWritable('/proc/sys/fs/pipe-max-size'),
    cgroup: cgroupMode(),
    cgroupWritable: isWritable('/sys/fs/cgroup') && cgroupDirectories().every(isWritable),
    systemRun: { type: fileSystemType('/run') },
    state: { path: places.state, type: fileSystemType(places.state), ...spaceAt(places.state) },
    run: { path: places.run, type: fileSystemType(places.run), ...spaceAt(places.run) },
    hugePages: hugePages(),
    memory: memoryBytes(),
    daemon: await askDaemon(path.join(places.run, 'node.sock')),
  };
}

/** Where the cgroup hierarchies are mounted: the units' directories are made there. */
function cgroupDirectories(): string[] {
  const directories: string[] = [];
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [before, after] = line.split(' - ');
    const point = before?.split(' ')[4];
    if (point !== undefined && after?.startsWith('cgroup')) directories.push(point);
  }
  return directories;
}

async function checkNftables(nft: string | undefined): Promise<true> {
  if (nft === undefined) {
    throw new CairnError('environment', 'nft-missing', 'The program nft is not installed.', {
      remedy: 'sudo apt-get install nftables',
    });
  }
  const { code, stderr } = await runProgram(nft, ['list', 'tables']);
  if (code === 0) return true;
  throw new CairnError('environment', 'nft-broken', `\`${nft} list tables\` ended with code ${code}.`, {
    lines: lastLines(stderr),
    remedy: 'sudo modprobe nf_tables',
  });
}

async function attempt<T>(action: () => Promise<T>): Promise<Found<T>> {
  try {
    return { found: await action() };
  } catch (error) {
    if (!(error instanceof CairnError)) throw error;
    const { code, message, remedy, lines } = error;
    return { failure: { code, message, remedy: remedy ?? 'sudo npm run setup', lines: [...lines] } };
  }
}

function isWritable(file: string): boolean {
  try {
    accessSync(file, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Whether the daemon listens; `unknown` for those who may not look. */
function askDaemon(socketPath: string): Promise<DoctorFacts['daemon']> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    const end = (answer: DoctorFacts['daemon']) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(1000, () => end('unknown'));
    socket.once('connect', () => end('running'));
    socket.once('error', (error) => end(systemCode(error) === 'EACCES' ? 'unknown' : 'stopped'));
  });
}
