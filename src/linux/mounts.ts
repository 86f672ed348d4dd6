/** The mounts of a process, and taking mounts away without touching those of others. */

import { readFileSync } from 'node:fs';
import { systemCode } from '../errors.ts';
import { MNT_DETACH, unmount } from './file.ts';

/** One line of /proc/PID/mountinfo (proc_pid_mountinfo(5)). */
export interface Mount {
  id: number;
  parentId: number;
  /** `major:minor` of the file system. */
  device: string;
  /** Path inside the file system that is the root of this mount. */
  root: string;
  mountPoint: string;
  /** Options of this mount (`rw`, `nosuid` …). */
  options: string[];
  type: string;
  source: string;
  /** Options of the file system. */
  superOptions: string[];
}

/** Parses the text of a mountinfo file; lines that do not have its form are left out. */
export function parseMounts(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const dash = fields.indexOf('-', 6);
    const [id, parentId, device, root, mountPoint, options] = fields;
    const [type, source, superOptions] = dash < 0 ? [] : fields.slice(dash + 1);
    if (root === undefined || mountPoint === undefined || type === undefined) continue;
    mounts.push({
      id: Number(id),
      parentId: Number(parentId),
      device: device ?? '',
      root: unescape(root),
      mountPoint: unescape(mountPoint),
      options: (options ?? '').split(','),
      type,
      source: unescape(source ?? ''),
      superOptions: (superOptions ?? '').split(','),
    });
  }
  return mounts;
}

/** Space, tab, newline and backslash are written as three octal digits. */
function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** The mounts that a process sees (default: this one), in the order in which they were made. */
export function mountsOf(pid: number | 'self' = 'self'): Mount[] {
  return parseMounts(readFileSync(`/proc/${pid}/mountinfo`, 'utf8'));
}

/** True if `path` is `directory` or lies below it. Both absolute and normal. */
export function isBelow(path: string, directory: string): boolean {
  if (directory === '/') return true;
  return path === directory || path.startsWith(`${directory}/`);
}

/** True if something is mounted exactly there. */
export function isMountPoint(path: string): boolean {
  return mountsOf().some((mount) => mount.mountPoint === path);
}

/**
 * Unmounts everything at and below a directory, the newest first. A mount that is still in use disappears from the
 * tree now and from the kernel with its last user. Returns how many mounts there were.
 */
export function unmountBelow(directory: string): number {
  if (directory === '/' || !directory.startsWith('/')) throw new RangeError(`refuse to unmount ${directory}`);
  const found = mountsOf().filter((mount) => isBelow(mount.mountPoint, directory));
  for (const mount of found.reverse()) {
    try {
      unmount(mount.mountPoint, MNT_DETACH);
    } catch (error) {
      // EINVAL, ENOENT: it went away together with the one that was on top of it.
      if (!['EINVAL', 'ENOENT'].includes(systemCode(error) ?? '')) throw error;
    }
  }
  return found.length;
}
