import { type CriuFeature, criuFeatures } from '../criu/find.ts';
import type { CapabilityName } from '../linux/host.ts';
import { neededPipeMaxBytes } from '../linux/host.ts';
import { atLeast } from '../linux/version.ts';
import type { DoctorFacts, Found, Place, SysctlName } from './doctor-facts.ts';

/**
 * - `ok`: as it should be;
 * - `warn`: jobs can be checkpointed, something is slower or not possible;
 * - `fail`: jobs cannot be checkpointed on this host before it is mended;
 * - `unknown`: could not be tested, for example without root.
 */
export type CheckStatus = 'ok' | 'warn' | 'fail' | 'unknown';

/** One line of `cairn doctor`. */
export interface Check {
  /** Stable name in kebab case. */
  name: string;
  status: CheckStatus;
  /** What was found. */
  finding: string;
  /** What follows from it; only where something does. */
  why?: string;
  /** The command that mends it, or what else to do. */
  remedy?: string;
}

/** What `cairn doctor` says. */
export interface Diagnosis {
  /** Jobs can be checkpointed: nothing failed, and everything that decides it was tested. */
  usable: boolean;
  checks: Check[];
}

/** Decides from the facts what this host can and cannot do. */
export function diagnose(facts: DoctorFacts): Diagnosis {
  const checks = [
    ...processChecks(facts),
    ...kernelChecks(facts),
    ...criuChecks(facts),
    ...settingChecks(facts),
    ...placeChecks(facts),
  ];
  return { usable: checks.every(({ status }) => status === 'ok' || status === 'warn'), checks };
}

function ok(name: string, finding: string): Check {
  return { name, status: 'ok', finding };
}

function problem(status: CheckStatus, name: string, finding: string, why: string, remedy?: string): Check {
  return { name, status, finding, why, ...(remedy === undefined ? {} : { remedy }) };
}

// What runc, CRIU and Cairn itself cannot do without; what a default container engine takes away is among them.
const neededCapabilities: readonly CapabilityName[] = [
  ...(['CAP_SYS_ADMIN', 'CAP_SYS_PTRACE', 'CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_DAC_OVERRIDE'] as const),
  ...(['CAP_CHOWN', 'CAP_SETUID', 'CAP_SETGID', 'CAP_SETPCAP', 'CAP_MKNOD', 'CAP_KILL'] as const),
  ...(['CAP_SYS_CHROOT', 'CAP_FOWNER', 'CAP_SETFCAP'] as const),
];

function processChecks(facts: DoctorFacts): Check[] {
  const checks = [ok('host', `${facts.distribution}, ${facts.architecture}`)];
  checks.push(
    atLeast(facts.nodeVersion.slice(1), '24')
      ? ok('node', `Node.js ${facts.nodeVersion}`)
      : problem(
          'fail',
          'node',
          `Node.js ${facts.nodeVersion}`,
          'Cairn needs 24 or newer',
          'sudo npm run setup',
        ),
  );
  if (!facts.root) {
    const why = 'CRIU, nftables and capabilities can be tested as root only';
    checks.push(problem('unknown', 'root', 'not running as root', why, 'sudo ./cairn doctor'));
    return checks;
  }
  const missing = neededCapabilities.filter((name) => !facts.capabilities.includes(name));
  if (missing.length > 0) {
    const why = 'namespaces, mounts, addresses and dumps need them';
    const remedy =
      'Run on the host itself, or give the container these capabilities (for example --privileged).';
    checks.push(problem('fail', 'capabilities', `root lacks ${missing.join(' ')}`, why, remedy));
  } else if (!facts.capabilities.includes('CAP_SYS_RESOURCE')) {
    const why =
      'CRIU cannot read or raise resource limits of other users: Cairn gives each job a user namespace, where it can; ' +
      'large dumps depend on fs.pipe-max-size';
    checks.push(problem('warn', 'capabilities', 'root lacks CAP_SYS_RESOURCE', why));
  } else {
    checks.push(ok('capabilities', 'all that is needed, CAP_SYS_RESOURCE too'));
  }
  return checks;
}

const allNamespaces = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'];

function kernelChecks(facts: DoctorFacts): Check[] {
  const checks: Check[] = [];
  const { kernelRelease } = facts;
  // Time namespaces came in 5.6, restoring without CAP_SYS_ADMIN and the calls it brought in 5.9.
  checks.push(
    atLeast(kernelRelease, '5.9')
      ? ok('kernel', kernelRelease)
      : problem('fail', 'kernel', kernelRelease, 'Cairn needs Linux 5.9 or newer', 'Install a newer kernel.'),
  );
  const config = facts.kernelConfig?.get('CHECKPOINT_RESTORE');
  const enabled = facts.sysctls['kernel.ns_last_pid'] !== undefined || config === 'y';
  checks.push(
    enabled
      ? ok('checkpoint-restore', 'CONFIG_CHECKPOINT_RESTORE is on')
      : problem(
          'fail',
          'checkpoint-restore',
          'CONFIG_CHECKPOINT_RESTORE is off',
          'no program can be saved or brought back by this kernel',
          'Use a distribution kernel, or build this one with CONFIG_CHECKPOINT_RESTORE=y.',
        ),
  );
  const missing = allNamespaces.filter((name) => !facts.namespaces.includes(name));
  const userLimit = facts.sysctls['user.max_user_namespaces'];
  if (missing.length > 0) {
    const why = 'each job runs in its own namespaces';
    checks.push(problem('fail', 'namespaces', `the kernel has no ${missing.join(' and ')} namespaces`, why));
  } else if (userLimit === '0') {
    const why = 'each job runs in its own user namespace';
    const remedy = 'sudo sysctl user.max_user_namespaces=15000';
    checks.push(problem('fail', 'namespaces', 'user.max_user_namespaces is 0', why, remedy));
  } else {
    checks.push(ok('namespaces', 'all kinds, time and user namespaces too'));
  }
  checks.push(
    facts.overlay
      ? ok('overlayfs', 'known to the kernel')
      : problem(
          'fail',
          'overlayfs',
          'not known to the kernel',
          'the writable layer of a job needs it',
          'sudo modprobe overlay',
        ),
  );
  if (facts.nftables !== undefined) {
    checks.push(
      foundCheck(
        'nftables',
        facts.nftables,
        () => 'works',
        'the network of a job is locked with it during a checkpoint',
      ),
    );
  }
  checks.push(cgroupCheck(facts));
  return checks;
}

function cgroupCheck(facts: DoctorFacts): Check {
  const finding = facts.cgroup === 'none' ? 'not mounted' : `version ${facts.cgroup}`;
  const why = 'each job has its own cgroup';
  if (facts.cgroup === 'none') {
    return problem('fail', 'cgroup', finding, why, 'sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup');
  }
  if (facts.root && !facts.cgroupWritable) {
    const remedy = 'Run on the host itself, or start the container with a writable /sys/fs/cgroup.';
    return problem('fail', 'cgroup', `${finding}, not writable`, why, remedy);
  }
  return ok('cgroup', finding);
}

function foundCheck<T>(name: string, thing: Found<T>, tell: (found: T) => string, why: string): Check {
  if ('found' in thing) return ok(name, tell(thing.found));
  const { message, lines, remedy } = thing.failure;
  return problem('fail', name, [message, ...lines].join('\n'), why, remedy);
}

/** Features that only make something faster or possible for rare programs; what CRIU cannot do without fails `criu check`. */
const featureImportance: Readonly<Partial<Record<CriuFeature, 'fail' | 'ok'>>> = {
  timens: 'fail',
  userns: 'fail',
  network_lock_nftables: 'fail',
  // Cairn does not use it; told because other tools do.
  mem_dirty_track: 'ok',
};

function criuChecks(facts: DoctorFacts): Check[] {
  const checks: Check[] = [];
  checks.push(
    foundCheck(
      'criu',
      facts.criu,
      (criu) => `${criu.version} (${criu.path}${criu.prefix ? ", Cairn's own" : ''})`,
      'CRIU saves and restores the processes',
    ),
  );
  if (facts.criuCheck !== undefined) {
    const why = 'CRIU does not work on this kernel';
    checks.push(foundCheck('criu-check', facts.criuCheck, () => 'passed', why));
    if ('found' in facts.criuCheck) {
      for (const [name, there] of Object.entries(facts.criuCheck.found.features) as [
        CriuFeature,
        boolean,
      ][]) {
        const label = `feature-${name.replaceAll('_', '-')}`;
        if (there) checks.push(ok(label, criuFeatures[name]));
        else {
          const status = featureImportance[name] ?? 'warn';
          checks.push(problem(status, label, 'not on this host', `needed for: ${criuFeatures[name]}`));
        }
      }
    }
  }
  const why = 'it makes the containers that jobs run in';
  checks.push(foundCheck('runtime', facts.runtime, (r) => `${r.name} ${r.version} (${r.path})`, why));
  const missing = Object.entries(facts.programs).filter(([, where]) => where === undefined);
  const names = missing.map(([name]) => name).join(' ');
  checks.push(
    missing.length === 0
      ? ok('programs', Object.keys(facts.programs).join(' '))
      : problem('fail', 'programs', `missing: ${names}`, 'Cairn runs them', 'sudo npm run setup'),
  );
  return checks;
}

function settingChecks(facts: DoctorFacts): Check[] {
  const checks: Check[] = [];
  const setting = (name: SysctlName) => facts.sysctls[name];

  const pipe = Number(setting('fs.pipe-max-size'));
  if (pipe >= neededPipeMaxBytes) checks.push(ok('pipe-max-size', `fs.pipe-max-size is ${pipe}`));
  else if (facts.capabilities.includes('CAP_SYS_RESOURCE')) {
    checks.push(ok('pipe-max-size', `fs.pipe-max-size is ${pipe}; no limit for CAP_SYS_RESOURCE`));
  } else {
    const why = 'CRIU keeps references to all private memory of a job in pipes; large jobs cannot be dumped';
    const remedy = `sudo sysctl fs.pipe-max-size=${neededPipeMaxBytes}`;
    checks.push(problem('fail', 'pipe-max-size', `fs.pipe-max-size is ${pipe}`, why, remedy));
  }

  const pages = setting('fs.pipe-user-pages-soft');
  if (pages === undefined || pages === '0') {
    checks.push(ok('pipe-user-pages', 'no limit for the pipes of a user together'));
  } else {
    // A restore runs in the user namespace of the job, where the capabilities of root on the host do not count.
    const why =
      'dumps use it up with large pipes; a restart at the same time may then fail to give a pipe of the job its size';
    const remedy = 'sudo sysctl fs.pipe-user-pages-soft=0';
    checks.push(problem('warn', 'pipe-user-pages', `fs.pipe-user-pages-soft is ${pages}`, why, remedy));
  }

  const uffd = setting('vm.unprivileged_userfaultfd');
  if (uffd === undefined) {
    const why = 'restart --lazy is not possible: the kernel has no userfaultfd';
    checks.push(problem('warn', 'userfaultfd', 'vm.unprivileged_userfaultfd is not there', why));
  } else if (uffd === '0' && facts.root && !facts.sysctlsWritable) {
    const why = 'restart --lazy needs it at 1 for the moment of a restore, and it cannot be written here';
    const remedy = 'sudo sysctl vm.unprivileged_userfaultfd=1 (on the host)';
    checks.push(problem('warn', 'userfaultfd', 'vm.unprivileged_userfaultfd is 0', why, remedy));
  } else {
    const note = uffd === '0' ? '; Cairn sets it to 1 only while a restart --lazy restores' : '';
    checks.push(ok('userfaultfd', `vm.unprivileged_userfaultfd is ${uffd}${note}`));
  }

  const uring = setting('kernel.io_uring_disabled');
  const uringNote =
    uring === '2' ? 'off for every program' : 'jobs may not use it by default: CRIU cannot save it';
  checks.push(
    ok(
      'io-uring',
      `${uring === undefined ? 'no setting' : `kernel.io_uring_disabled is ${uring}`}; ${uringNote}`,
    ),
  );

  if (setting('kernel.yama.ptrace_scope') === '3') {
    const why = 'no process can be attached to, which every dump does';
    const remedy = 'Boot without kernel.yama.ptrace_scope=3 (it cannot be lowered while the system runs).';
    checks.push(problem('fail', 'ptrace', 'kernel.yama.ptrace_scope is 3', why, remedy));
  }

  const forward = setting('net.ipv4.ip_forward');
  if (forward !== '1' && facts.root && !facts.sysctlsWritable) {
    const why = 'jobs cannot reach other hosts, and Cairn cannot set it here';
    const remedy = 'sudo sysctl net.ipv4.ip_forward=1 (on the host)';
    checks.push(
      problem('warn', 'ip-forward', `net.ipv4.ip_forward is ${forward ?? 'not there'}`, why, remedy),
    );
  } else {
    const note = forward === '1' ? '' : '; Cairn sets it to 1 when the first job with an address starts';
    checks.push(ok('ip-forward', `net.ipv4.ip_forward is ${forward}${note}`));
  }
  if (setting('net.bridge.bridge-nf-call-iptables') === '1') {
    checks.push(
      problem(
        'warn',
        'bridge-nf',
        'net.bridge.bridge-nf-call-iptables is 1',
        "traffic between jobs passes the host's forward rules and is dropped where they say so",
        'sudo sysctl net.bridge.bridge-nf-call-iptables=0 (unless a container engine here needs it)',
      ),
    );
  }
  return checks;
}

const gib = 2 ** 30;

function placeChecks(facts: DoctorFacts): Check[] {
  const checks = [
    placeCheck('state-space', facts.state, 2 * gib),
    placeCheck('run-space', facts.run, 64 * 2 ** 20),
  ];
  checks.push(
    facts.systemRun.type === 'tmpfs'
      ? ok('run-tmpfs', '/run is a tmpfs')
      : problem(
          'warn',
          'run-tmpfs',
          `/run is ${facts.systemRun.type ?? 'unknown'}, not tmpfs`,
          'CRIU keeps what it knows about the kernel only on a tmpfs: each checkpoint and restart takes about 40 ms longer',
          'Usual on a booted system; give a container or virtual machine a tmpfs on /run when it starts.',
        ),
  );
  const { total, available } = facts.memory;
  checks.push(ok('memory', `${size(available)} of ${size(total)} available`));
  const { total: pages, free, sizeBytes } = facts.hugePages;
  const huge =
    pages === 0
      ? `none reserved (size ${size(sizeBytes)})`
      : `${free} of ${pages} free, ${size(sizeBytes)} each`;
  checks.push(ok('huge-pages', huge));
  const daemons = {
    running: 'running',
    stopped: 'not running; start it: sudo ./cairn node',
    unknown: 'only root can see whether it runs',
  };
  checks.push(ok('daemon', daemons[facts.daemon]));
  return checks;
}

/** A store that cannot hold a checkpoint fails each of them; below the wanted space a large job may. */
function placeCheck(name: string, place: Place, wantedBytes: number): Check {
  const finding = `${place.path}: ${size(place.freeBytes)} free (${place.type ?? 'unknown file system'})`;
  const remedy = `Free space, or use another place: cairn node --${name.split('-')[0]} DIRECTORY`;
  if (place.freeBytes < wantedBytes / 32 || place.freeInodes === 0) {
    return problem('fail', name, finding, 'there is no room for a checkpoint', remedy);
  }
  if (place.freeBytes < wantedBytes) {
    return problem('warn', name, finding, 'large jobs may not fit', remedy);
  }
  return ok(name, finding);
}

/** Bytes for people: binary units, one digit behind the point below ten. */
function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}
