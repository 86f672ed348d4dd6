/** What an inotify descriptor watches: /proc/PID/fdinfo (proc_pid_fdinfo(5)). */

import { readFileSync } from 'node:fs';
import type { FileHandle } from './overlay.ts';
import { unlessGone } from './process.ts';

/** One watch. */
export interface Watch {
  /** Number of the watch. */
  watch: number;
  inode: bigint;
  /** Device number as the kernel has it: major << 20 | minor. */
  device: number;
  /** `undefined` where the kernel knows no handle for the file system. */
  handle: FileHandle | undefined;
}

/** The watches of an inotify descriptor; none if it is gone. */
export function readWatches(pid: number, fd: number): Watch[] {
  return parseWatches(unlessGone(() => readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8')) ?? '');
}

const line =
  /^inotify wd:([0-9a-f]+) ino:([0-9a-f]+) sdev:([0-9a-f]+) .*?(?:fhandle-bytes:[0-9a-f]+ fhandle-type:([0-9a-f]+) f_handle:([0-9a-f]+))?$/gm;

export function parseWatches(text: string): Watch[] {
  return [...text.matchAll(line)].map(([, watch = '', inode = '', device = '', type, handle = '']) => ({
    watch: Number.parseInt(watch, 16),
    inode: BigInt(`0x${inode}`),
    device: Number.parseInt(device, 16),
    handle:
      type === undefined ? undefined : { type: Number.parseInt(type, 16), bytes: Buffer.from(handle, 'hex') },
  }));
}
