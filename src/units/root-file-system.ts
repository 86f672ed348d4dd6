/**
 * The root file system of a unit: an overlay whose lower layer is the host's root, a directory or an unpacked image, and
 * whose upper layer is the unit's own. With it come the two file systems that the host makes for the unit: the tmpfs of
 * /dev/shm and the devpts of /dev/pts.
 */

import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  statSync,
  rmSync,
} from 'node:fs';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { CairnError, messageOf } from '../errors.ts';
import { mount, mountFlags, setAttribute } from '../linux/file.ts';
import { isBelow, isMountPoint, type Mount, mountsOf, unmountBelow } from '../linux/mounts.ts';
import type { UnitPaths } from './paths.ts';
import type { UnitSpec } from './spec.ts';

/** File systems on disks and servers: what is mounted from them below the host's root is part of the host's files. */
const diskTypes = new Set(
  `ext2 ext3 ext4 xfs btrfs f2fs jfs reiserfs bcachefs zfs vfat exfat ntfs3 erofs squashfs nfs nfs4 cifs smb3 ceph 9p virtiofs
  lustre gpfs beegfs beegfs_nodev orangefs ocfs2 gfs2 fuse.glusterfs fuse.sshfs`.split(/\s+/),
);

/** Directories of the host that look empty in a unit, with their mode. */
function emptiedDirectories(hidden: readonly string[]): [string, number][] {
  const fixed: [string, number][] = [
    ['/tmp', 0o1777],
    ['/var/tmp', 0o1777],
    ['/run', 0o755],
    ['/dev', 0o755],
    ['/var/lib/cairn', 0o700],
  ];
  // What lies in an emptied directory is hidden with it.
  const others = hidden.filter((directory) => !fixed.some(([above]) => isBelow(directory, above)));
  return [...fixed, ...others.map((directory): [string, number] => [directory, 0o700])];
}

/**
 * Mount points of other disk file systems of the host that a unit on the host's root shall see. Left out are the root
 * itself and what lies in a directory that is emptied or belongs to the kernel.
 */
export function visibleHostMounts(mounts: readonly Mount[], hidden: readonly string[]): string[] {
  const invisible = ['/proc', '/sys', ...emptiedDirectories(hidden).map(([directory]) => directory)];
  const points = mounts
    .filter((m) => diskTypes.has(m.type) && m.mountPoint !== '/')
    .map((m) => m.mountPoint)
    .filter((point) => !invisible.some((directory) => isBelow(point, directory)));
  return [...new Set(points)].sort();
}

/**
 * Directories that must not be seen and that lie on one of the visible mounts: the upper layer cannot cover them there,
 * so an empty directory has to be mounted over them. (Of a host with a file system of its own for /var a unit sees no
 * /var/tmp, and can write nothing to /var.)
 */
export function coveredDirectories(visible: readonly string[], hidden: readonly string[]): string[] {
  const directories = emptiedDirectories(hidden).map(([directory]) => directory);
  return directories.filter((directory) => visible.some((mount) => isBelow(directory, mount)));
}

/**
 * Prepares the upper layer of a unit on the host's root: the directories that must not be seen are covered with opaque
 * ones; those that the layer has already are left as they are. Not while the layer is mounted.
 */
export function coverHostDirectories(upper: string, hidden: readonly string[]): void {
  for (const [directory, mode] of emptiedDirectories(hidden)) {
    const real = realDirectory(directory);
    if (real === undefined) continue;
    const covered = makeLike(upper, real);
    if (covered === undefined) continue;
    chmodSync(covered, mode);
    // trusted.overlay.opaque=y hides what the lower layers have here (Documentation/filesystems/overlayfs.rst).
    setAttribute(covered, 'trusted.overlay.opaque', Buffer.from('y'));
  }
}

/** The path of a directory without symbolic links; `undefined` if the host does not have it. */
function realDirectory(directory: string): string | undefined {
  try {
    const real = realpathSync(directory);
    return lstatSync(real).isDirectory() && real !== '/' ? real : undefined;
  } catch {
    return undefined;
  }
}

/** Gives an empty upper layer the owner and mode of the lower one's root: the root of an overlay has those of its upper layer. */
export function copyRootAttributes(lower: string, upper: string): void {
  if (readdirSync(upper).length > 0) return;
  const { mode, uid, gid } = statSync(lower);
  chownSync(upper, uid, gid);
  chmodSync(upper, mode & 0o7777);
}

/**
 * Makes the directory below `upper`, its ancestors with the owner and mode they have on the host. `undefined` if it is there already, or if
 * the unit has put something else in the place of an ancestor, which hides that of the host too and may be a symbolic link.
 */
function makeLike(upper: string, directory: string): string | undefined {
  let host = '/';
  let made = upper;
  let isNew = false;
  for (const name of directory.split('/').filter((part) => part !== '')) {
    host = path.join(host, name);
    made = path.join(made, name);
    const present = lstatOf(made);
    isNew = present === undefined;
    if (present !== undefined) {
      if (!present.isDirectory()) return undefined;
      continue;
    }
    const { mode, uid, gid } = lstatSync(host);
    mkdirSync(made);
    chownSync(made, uid, gid);
    chmodSync(made, mode & 0o7777);
  }
  return isNew ? made : undefined;
}

function lstatOf(file: string) {
  return lstatSync(file, { throwIfNoEntry: false });
}

/**
 * Mounts overlay, shm and pts of a unit; what is mounted already stays. `lower` is the lower layer's directory.
 *
 * Throws `root-mount-failed` (environment) with the reason of the kernel.
 */
export function mountRootFileSystem(paths: UnitPaths, lower: string, shmBytes: number | undefined): void {
  for (const directory of [paths.upper, paths.work, paths.rootfs, paths.pts]) {
    mkdirSync(directory, { recursive: true });
  }
  const { nosuid, nodev, noexec } = mountFlags;
  mountOnce(
    'overlay',
    paths.rootfs,
    `lowerdir=${escaped(lower, true)},upperdir=${escaped(paths.upper)},workdir=${escaped(paths.work)}`,
    // The device nodes of a unit are mounts of their own; those that an image or a snapshot brings are of no use.
    nodev,
  );
  mountShm(paths, shmBytes);
  mountOnce('devpts', paths.pts, 'newinstance,ptmxmode=0666,mode=0620,gid=5', nosuid | noexec);
}

/** Mounts the tmpfs that is /dev/shm of a unit: a restore fills it before the rest is mounted. */
export function mountShm(paths: UnitPaths, bytes: number | undefined): void {
  mkdirSync(paths.shm, { recursive: true });
  const { nosuid, nodev, noexec } = mountFlags;
  const size = bytes === undefined ? 'size=50%' : `size=${bytes}`;
  mountOnce('tmpfs', paths.shm, `mode=1777,${size}`, nosuid | nodev | noexec);
}

function mountOnce(type: string, target: string, options: string, flags: number): void {
  if (isMountPoint(target)) return;
  try {
    mount(type, target, type, flags, options);
    // Nothing that others mount below may appear here, and CRIU needs a root that is not shared.
    mount(null, target, null, mountFlags.private);
  } catch (cause) {
    throw new CairnError(
      'environment',
      'root-mount-failed',
      `Cannot mount ${type} on ${target}: ${messageOf(cause)}`,
      {
        cause,
        ...(type === 'overlay'
          ? { remedy: 'Put --state on a file system that overlayfs accepts as an upper layer.' }
          : {}),
      },
    );
  }
}

/** Overlay options separate with commas, its lower layers with colons. */
function escaped(directory: string, colons = false): string {
  const text = directory.replaceAll('\\', '\\\\').replaceAll(',', '\\,');
  return colons ? text.replaceAll(':', '\\:') : text;
}

/** Unmounts what `mountRootFileSystem` mounted. */
export function unmountRootFileSystem(paths: UnitPaths): void {
  unmountBelow(paths.run);
}

/** How a unit knows itself and its surroundings. */
export interface UnitIdentity {
  hostname: string;
  /** IPv4 address on the bridge. */
  address: string | undefined;
}

/**
 * Writes /etc/hosts, /etc/hostname and /etc/resolv.conf in a mounted root file system. A root file system without a
 * real /etc directory is left alone: following a symbolic link of an image could lead out of it.
 */
export function writeNetworkFiles(rootfs: string, identity: UnitIdentity): void {
  const etc = path.join(rootfs, 'etc');
  if (lstatOf(etc) === undefined) mkdirSync(etc);
  if (!lstatSync(etc).isDirectory()) return;
  const own = identity.address ?? '127.0.1.1';
  replaceFile(path.join(etc, 'hostname'), `${identity.hostname}\n`);
  replaceFile(
    path.join(etc, 'hosts'),
    [
      '127.0.0.1 localhost',
      '::1 localhost ip6-localhost ip6-loopback',
      `${own} ${identity.hostname}`,
      '',
    ].join('\n'),
  );
  const resolver = hostResolver();
  if (resolver !== undefined) replaceFile(path.join(etc, 'resolv.conf'), resolver);
}

function replaceFile(file: string, text: string): void {
  if (lstatOf(file)?.isDirectory()) return;
  rmSync(file, { force: true });
  writeFileSync(file, text, { flag: 'wx', mode: 0o644 });
}

/** The host's resolv.conf; the one behind a resolver on the host's loopback, which a unit cannot reach. */
function hostResolver(): string | undefined {
  for (const file of ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf']) {
    try {
      const text = readFileSync(file, 'utf8');
      if (!/^\s*nameserver\s+127\./m.test(text)) return text;
    } catch {
      // Not on this host.
    }
  }
  return undefined;
}

/** What a unit on the host's root sees as mounts of their own, and what of that has to be covered again. */
export function hostMountsFor(
  spec: UnitSpec,
  hidden: readonly string[],
): { visible: string[]; covered: string[] } {
  if (spec.rootFileSystem.kind !== 'host') return { visible: [], covered: [] };
  const visible = visibleHostMounts(mountsOf(), hidden);
  return { visible, covered: coveredDirectories(visible, hidden).filter((file) => existsSync(file)) };
}
