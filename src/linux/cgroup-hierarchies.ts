import { type Mount, mountsOf } from './mounts.ts';

/** A mounted cgroup file system. */
export interface Hierarchy {
  mountPoint: string;
  version: 1 | 2;
  /** Version 1 only: `memory`, `cpu`, `name=systemd` … */
  controllers: string[];
}

/** Finds the hierarchies among the mounts of this process; of several mounts of one hierarchy the first. */
export function findHierarchies(mounts: readonly Mount[] = mountsOf()): Hierarchy[] {
  const known = new Set<string>();
  const found: Hierarchy[] = [];
  for (const mount of mounts) {
    if (mount.type !== 'cgroup' && mount.type !== 'cgroup2') continue;
    // A bind mount of a subtree (inside a container) would show someone else's group as the root.
    if (mount.root !== '/' || known.has(mount.device)) continue;
    known.add(mount.device);
    const options = mount.superOptions.filter((o) => !['rw', 'ro', 'noprefix', 'clone_children'].includes(o));
    found.push({
      mountPoint: mount.mountPoint,
      version: mount.type === 'cgroup2' ? 2 : 1,
      controllers: mount.type === 'cgroup2' ? [] : options.filter((o) => !/^(release_agent|xattr)/.test(o)),
    });
  }
  return found;
}
