/** What the setup is for; each includes the ones before it. */
export const purposes = ['run', 'demo', 'test'] as const;
export type Purpose = (typeof purposes)[number];

/** Something that a Debian or Ubuntu package provides, and how to see that it is there already, from whatever source. */
export interface Requirement {
  package: string;
  purpose: Purpose;
  /** Why Cairn wants it. */
  why: string;
  /** Programs in PATH or the sbin directories: all must be there. */
  programs?: readonly string[];
  /** Files (glob patterns): each must match something. */
  files?: readonly string[];
  /** Services that the package would start and enable; the setup leaves them off when it installed the package itself. */
  services?: readonly string[];
}

export const requirements: readonly Requirement[] = [
  { package: 'iproute2', purpose: 'run', why: 'addresses of jobs', programs: ['ip'] },
  { package: 'nftables', purpose: 'run', why: 'network lock, published ports', programs: ['nft'] },
  { package: 'util-linux', purpose: 'run', why: 'namespaces', programs: ['nsenter', 'unshare'] },
  { package: 'mount', purpose: 'run', why: 'file systems of jobs', programs: ['mount', 'umount'] },
  {
    package: 'redis-server',
    purpose: 'demo',
    why: 'the service that the demo saves and brings back',
    programs: ['redis-server'],
    services: ['redis-server'],
  },
  { package: 'redis-tools', purpose: 'demo', why: 'its client', programs: ['redis-cli'] },
  {
    package: 'postgresql',
    purpose: 'test',
    why: 'a database under load',
    files: ['/usr/lib/postgresql/*/bin/postgres', '/usr/lib/postgresql/*/bin/pgbench'],
    services: ['postgresql'],
  },
  {
    package: 'nginx',
    purpose: 'test',
    why: 'a download in progress',
    programs: ['nginx'],
    services: ['nginx'],
  },
  {
    package: 'default-jdk-headless',
    purpose: 'test',
    why: 'a Java program',
    programs: ['java', 'javac'],
  },
  { package: 'python3', purpose: 'test', why: 'Python programs', programs: ['python3'] },
  {
    package: 'python3-numpy',
    purpose: 'test',
    why: 'a Python program with numpy',
    files: ['/usr/lib/python3/dist-packages/numpy/__init__.py'],
  },
  { package: 'sqlite3', purpose: 'test', why: 'SQLite in a write loop', programs: ['sqlite3'] },
  { package: 'gcc', purpose: 'test', why: 'the probe programs', programs: ['gcc'] },
  {
    package: 'libc6-dev',
    purpose: 'test',
    why: 'the probe programs',
    files: ['/usr/include/stdio.h', '/usr/lib/*-linux-gnu/libc.a'],
  },
  {
    package: 'busybox-static',
    purpose: 'test',
    why: 'a small OCI image',
    files: ['/usr/share/doc/busybox-static'],
  },
  { package: 'tmux', purpose: 'test', why: 'interactive terminals', programs: ['tmux'] },
  { package: 'curl', purpose: 'test', why: 'a client from outside', programs: ['curl'] },
  { package: 'procps', purpose: 'test', why: 'looking at processes', programs: ['ps'] },
  {
    package: 'e2fsprogs',
    purpose: 'test',
    why: 'a small file system that runs full',
    programs: ['mkfs.ext4'],
  },
];

/** The requirements of a purpose and of all before it. */
export function requirementsFor(purpose: Purpose): Requirement[] {
  const rank = purposes.indexOf(purpose);
  return requirements.filter((requirement) => purposes.indexOf(requirement.purpose) <= rank);
}
