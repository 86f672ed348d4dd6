/** Overlay file systems as the kernel shows them: their layers, and where the file of a handle lies in them. */

import { closeSync, constants, lstatSync, openSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import { libc, O_CLOEXEC } from './libc.ts';
import { isBelow, type Mount } from './mounts.ts';

/** Directories of the host that an overlay is made of. */
export interface OverlayLayers {
  upper: string;
  lower: string[];
}

/** The layers of an overlay by the options that mountinfo shows; `undefined` for other mounts and for those without an upper layer. */
export function overlayLayers({
  type,
  superOptions,
}: Pick<Mount, 'type' | 'superOptions'>): OverlayLayers | undefined {
  if (type !== 'overlay') return undefined;
  const option = (name: string): string | undefined =>
    superOptions.find((text) => text.startsWith(name))?.slice(name.length);
  const upper = option('upperdir=');
  const lower = option('lowerdir=');
  if (upper === undefined || lower === undefined) return undefined;
  return {
    upper: withoutBackslashes(fromOctal(upper)),
    // Colons that belong to a name have a backslash before them.
    lower: fromOctal(lower)
      .split(/(?<!\\):/)
      .filter((directory) => directory !== '')
      .map(withoutBackslashes),
  };
}

/** seq_file(9) writes blanks, commas and backslashes in octal. */
function fromOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

function withoutBackslashes(text: string): string {
  return text.replace(/\\(.)/g, '$1');
}

/** A file handle as fdinfo shows it (`fhandle-type`, `f_handle`; name_to_handle_at(2)). */
export interface FileHandle {
  type: number;
  bytes: Uint8Array<ArrayBufferLike>;
}

/** The handle of the real file that an overlay's handle stands for, and in which layer it is. */
export interface RealHandle extends FileHandle {
  inUpper: boolean;
}

/** `OVL_FILEID_V1`, `OVL_FH_MAGIC` and `OVL_FH_FLAG_PATH_UPPER` (fs/overlayfs/overlayfs.h). */
const overlayHandleType = 0xf8;
const magic = 0xfb;
const flagUpper = 4;
const O_PATH = 0o10000000;
/** Three bytes of padding, then version, magic, length, flags, type, 16 bytes of the identity of the file system. */
const padding = 3;
const headBytes = 21;

/** Decodes a handle that an overlay gave out; `undefined` if it is of another file system or of an unknown form. */
export function decodeOverlayHandle({ type, bytes }: FileHandle): RealHandle | undefined {
  if (type !== overlayHandleType) return undefined;
  const handle = bytes.subarray(padding);
  const [version, mark, length = 0, flags = 0, realType = 0] = handle;
  if (version !== 0 || mark !== magic || length <= headBytes || length > handle.length) return undefined;
  return { inUpper: (flags & flagUpper) !== 0, type: realType, bytes: handle.subarray(headBytes, length) };
}

/**
 * Where in an overlay the file of one of its handles is; `undefined` if it has been removed, or the file system below does not find
 * files by handle. The file is found without a search (open_by_handle_at(2), which needs CAP_DAC_READ_SEARCH).
 */
export function pathInOverlay(layers: OverlayLayers, handle: RealHandle): string | undefined {
  for (const layer of handle.inUpper ? [layers.upper] : layers.lower) {
    const real = pathOfHandle(layer, handle);
    if (real === undefined || !isBelow(real, layer)) continue;
    return path.join('/', path.relative(layer, real));
  }
  return undefined;
}

/** The path of a file by its handle; `directory` is any place on the same file system. */
function pathOfHandle(directory: string, handle: FileHandle): string | undefined {
  const request = Buffer.alloc(8 + handle.bytes.length);
  request.writeUInt32LE(handle.bytes.length, 0);
  request.writeInt32LE(handle.type, 4);
  request.set(handle.bytes, 8);
  let place = -1;
  let file = -1;
  try {
    place = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
    file = libc().openByHandleAt(place, request, O_PATH | O_CLOEXEC);
    if (file < 0) return undefined;
    const found = readlinkSync(`/proc/self/fd/${file}`);
    // A removed file has " (deleted)" behind its name.
    return lstatSync(found, { throwIfNoEntry: false }) === undefined ? undefined : found;
  } catch {
    // Not a directory that this process can reach.
    return undefined;
  } finally {
    if (file >= 0) closeSync(file);
    if (place >= 0) closeSync(place);
  }
}
