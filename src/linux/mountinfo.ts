/** Mounts as a process sees them: /proc/PID/mountinfo. */

import { readFileSync } from 'node:fs';
import { unescapeOctal } from './process-maps.ts';
import { unlessGone } from './process.ts';

export interface MountEntry {
  id: number;
  parentId: number;
  /** `major:minor`. */
  device: string;
  /** The directory of the file system that is mounted: `/` unless it is a bind mount of a part. */
  root: string;
  /** Where, as the process's root directory sees it. */
  mountPoint: string;
  /** Options of the mount (`ro`, `nosuid` …). */
  options: string[];
  /** Propagation: `shared:1`, `master:2`, `propagate_from:3`, `unbindable`. */
  propagation: string[];
  type: string;
  source: string;
  /** Options of the file system (`size=65536k`, `lowerdir=…`). */
  superOptions: string[];
}

export function parseMountInfo(text: string): MountEntry[] {
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const fields = line.split(' ');
      const dash = fields.indexOf('-', 6);
      const [id, parentId, device = '', root = '', mountPoint = '', options = ''] = fields;
      return {
        id: Number(id),
        parentId: Number(parentId),
        device,
        root: unescapeOctal(root),
        mountPoint: unescapeOctal(mountPoint),
        options: options.split(','),
        propagation: fields.slice(6, dash),
        type: fields[dash + 1] ?? '',
        source: unescapeOctal(fields[dash + 2] ?? ''),
        superOptions: (fields[dash + 3] ?? '').split(','),
      };
    });
}

/** The mounts of a process in mount order; `undefined` if it is gone. */
export function readMountInfo(pid: number | 'self'): MountEntry[] | undefined {
  const text = unlessGone(() => readFileSync(`/proc/${pid}/mountinfo`, 'utf8'));
  return text === undefined ? undefined : parseMountInfo(text);
}
