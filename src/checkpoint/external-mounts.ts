import type { Mount } from '../linux/mounts.ts';

/** A mount that CRIU does not save: it is named by `key` and bound again from `source` on the restore. */
export interface ExternalMount {
  /** Mount point inside the unit, which is also the key. */
  key: string;
  /**
   * Where it comes from: a bind mount of the unit's bundle (its source then follows from the bundle of the unit that is
   * restored), or a path on the host (device nodes, and /dev/null over what is masked).
   */
  source: { kind: 'bundle' } | { kind: 'host'; path: string };
}

/**
 * Which mounts of a unit are external. Pure.
 *
 * `mounts`: mount table of the unit's first process. `bound`: mount points that the bundle binds from the host. Besides those,
 * every mount that shows only a part of a file system (its root is not `/`) is one, except for the read-only remounts of parts of
 * /proc, which CRIU rebuilds from the /proc it makes.
 */
export function externalMounts(mounts: readonly Mount[], bound: ReadonlySet<string>): ExternalMount[] {
  const proc = mounts.find((mount) => mount.mountPoint === '/proc');
  const found: ExternalMount[] = [];
  for (const mount of mounts) {
    const { mountPoint, root } = mount;
    if (mountPoint === '/') continue;
    if (bound.has(mountPoint)) found.push({ key: mountPoint, source: { kind: 'bundle' } });
    else if (root !== '/' && !(mount.type === 'proc' && mount.device === proc?.device))
      found.push({ key: mountPoint, source: { kind: 'host', path: hostPath(mount) } });
  }
  return found;
}

/** Device nodes that the runtime binds lie in the host's devtmpfs under the same name. */
function hostPath(mount: Mount): string {
  return mount.type === 'devtmpfs' ? `/dev${mount.root}` : mount.root;
}
