/**
 * The mounts of a unit that lead out of it, which CRIU does not save but must be told of: on a dump that they are external,
 * on a restore what to mount in their place.
 */

import path from 'node:path';
import { isBelow, type Mount } from '../linux/mounts.ts';

/** A mount that comes from outside. */
export interface ExternalMount {
  /** Where the unit sees it; it is also the key between dump and restore. */
  mountPoint: string;
  /** What is mounted there, as a path of the host. */
  source: string;
}

/** What external mounts are recognised by. */
export interface BindMounts {
  /** The bind mounts of the OCI configuration. */
  binds: readonly { destination: string; source: string }[];
  /** Mounted devpts of the unit. */
  pts: string;
  /** The mounts of the host: a bind whose destination is a symbolic link appears elsewhere and is known by its content. */
  host: readonly Mount[];
}

/**
 * Sorts the mounts of a unit (`mountsOf` its first process) into those from outside; the others are its own, and CRIU
 * saves them. Bind mounts come from the configuration; device nodes, the console and masked files are added by the OCI
 * runtime.
 */
export function externalMounts(mounts: readonly Mount[], known: BindMounts): ExternalMount[] {
  // The longest first: a bind may lie in another one.
  const binds = known.binds.toSorted((a, b) => b.destination.length - a.destination.length);
  const found: ExternalMount[] = [];
  for (const mount of mounts) {
    const { mountPoint, root } = mount;
    const bind = binds.find(({ destination }) => isBelow(mountPoint, destination));
    if (bind !== undefined) {
      found.push({ mountPoint, source: path.join(bind.source, path.relative(bind.destination, mountPoint)) });
    } else if (mountPoint === '/dev/console' && mount.type === 'devpts') {
      found.push({ mountPoint, source: path.join(known.pts, root) });
    } else if (root !== '/' && isBelow(mountPoint, '/dev')) {
      found.push({ mountPoint, source: path.join('/dev', root) });
    } else if (root === '/null' && isBelow(mountPoint, '/proc')) {
      found.push({ mountPoint, source: '/dev/null' });
    } else if (mountPoint !== '/') {
      const same = binds.find(({ source }) => isSamePlace(mount, placeOf(source, known.host)));
      if (same !== undefined) found.push({ mountPoint, source: same.source });
    }
  }
  return found;
}

/** The file system in which a path of the host lies, and where in it. */
function placeOf(file: string, mounts: readonly Mount[]): Pick<Mount, 'device' | 'root'> | undefined {
  // The last of the longest: a later mount covers an earlier one on the same place.
  let best: Mount | undefined;
  for (const mount of mounts) {
    if (!isBelow(file, mount.mountPoint)) continue;
    if (best === undefined || mount.mountPoint.length >= best.mountPoint.length) best = mount;
  }
  return best && { device: best.device, root: path.join(best.root, path.relative(best.mountPoint, file)) };
}

function isSamePlace(mount: Mount, place: Pick<Mount, 'device' | 'root'> | undefined): boolean {
  return place !== undefined && mount.device === place.device && mount.root === place.root;
}

/** Arguments of `--external` for a dump. */
export function dumpExternals(mounts: readonly ExternalMount[]): string[] {
  return mounts.map(({ mountPoint }) => `mnt[${mountPoint}]:${mountPoint}`);
}

/** Arguments of `--external` for a restore. */
export function restoreExternals(mounts: readonly ExternalMount[]): string[] {
  return mounts.map(({ mountPoint, source }) => `mnt[${mountPoint}]:${source}`);
}
