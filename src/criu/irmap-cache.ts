/** The file in which CRIU looks up the paths of watched files that cannot be opened by their handle (criu/irmap.c). */

import { encodeImage } from './image-file.ts';
import { Message } from './protobuf.ts';

/** Name of the file in the work directory of a dump. */
export const irmapCacheName = 'irmap-cache';

/** A watched file by what the kernel tells of a watch, and its path in the unit. */
export interface WatchedFile {
  /** Device number as the kernel has it: major << 20 | minor. */
  device: number;
  inode: bigint;
  path: string;
}

/** CRIU takes an entry only if the path still leads to that device and inode when it looks. Pure. */
export function encodeIrmapCache(files: readonly WatchedFile[]): Uint8Array<ArrayBuffer> {
  const entries = files.map(({ device, inode, path }) =>
    new Message().set(1, device).set(2, inode).set(3, path),
  );
  return encodeImage('irmap-cache', entries);
}
