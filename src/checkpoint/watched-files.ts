import { type BigIntStats, lstatSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { encodeIrmapCache, irmapCacheName, type WatchedFile } from '../criu/irmap-cache.ts';
import { deviceParts } from '../linux/file.ts';
import { type Mount, mountsOf } from '../linux/mounts.ts';
import { decodeOverlayHandle, overlayLayers, pathInOverlay } from '../linux/overlay.ts';
import { readDescriptors } from '../linux/process-descriptors.ts';
import { readTree, unlessGone } from '../linux/process.ts';
import { readWatches, type Watch } from '../linux/watches.ts';

/** What becomes of a watch: CRIU needs to be told the path, finds the file by itself, or it cannot be saved. */
export type WatchFate =
  | { kind: 'told'; file: WatchedFile }
  | { kind: 'found' }
  | { kind: 'lost'; reason: string };

/** File systems whose files CRIU cannot open by handle; what is mounted itself has a path all the same. */
const withoutHandles = ['proc', 'devpts', 'devtmpfs'];

/**
 * Finds the files behind the watches of inotify. CRIU opens them by their handles, which an overlay does not allow; but the handle
 * of an overlay has that of the real file in it, and its path says where the overlay shows it.
 */
export class WatchFinder {
  readonly #rootPid: number;
  #known: readonly Mount[] | undefined;

  /** `rootPid`: the first process of the unit. */
  constructor(rootPid: number) {
    this.#rootPid = rootPid;
  }

  /** What becomes of the watches of a descriptor. */
  fates(pid: number, fd: number): WatchFate[] {
    return readWatches(pid, fd).map((watch) => this.#fate(watch));
  }

  #fate({ device, inode, handle }: Watch): WatchFate {
    if (handle === undefined)
      return {
        kind: 'lost',
        reason: 'this kernel does not tell which file is watched (Linux 6.6 and newer do)',
      };
    const mounts = this.#mounts().filter((mount) => kernelDevice(mount.device) === device);
    const told = (file: string): WatchFate => ({ kind: 'told', file: { device, inode, path: file } });
    const real = decodeOverlayHandle(handle);
    const root = mounts.findLast(({ mountPoint }) => mountPoint === '/');
    const layers = root && overlayLayers(root);
    if (layers !== undefined && real !== undefined) {
      const found = pathInOverlay(layers, real);
      if (found !== undefined && this.#leadsTo(found, device, inode)) return told(found);
      return { kind: 'lost', reason: 'a watched file has been removed, or cannot be found by its inode' };
    }
    const itself = mounts.find(({ mountPoint }) => this.#leadsTo(mountPoint, device, inode));
    if (itself !== undefined) return told(itself.mountPoint);
    const type = mounts.map((mount) => mount.type).find((one) => withoutHandles.includes(one));
    if (type === undefined) return { kind: 'found' };
    return { kind: 'lost', reason: `a watch of a file of ${type} cannot be saved` };
  }

  /** The same comparison that CRIU makes. */
  #leadsTo(file: string, device: number, inode: bigint): boolean {
    let stat: BigIntStats;
    try {
      stat = lstatSync(path.join(`/proc/${this.#rootPid}/root`, file), { bigint: true });
    } catch {
      return false;
    }
    const { major, minor } = deviceParts(Number(stat.dev));
    return stat.ino === inode && kernelDevice(`${major}:${minor}`) === device;
  }

  #mounts(): readonly Mount[] {
    this.#known ??= unlessGone(() => mountsOf(this.#rootPid)) ?? [];
    return this.#known;
  }
}

function kernelDevice(device: string): number {
  const [major = 0, minor = 0] = device.split(':').map(Number);
  return major * 2 ** 20 + minor;
}

/** Whether a descriptor is one of inotify, by what /proc/PID/fd calls it. */
export function isInotify(target: string): boolean {
  return /^anon_inode:\[?inotify\]?$/.test(target);
}

/** Tells CRIU, in the work directory of a dump, the paths of the files that the processes of a unit watch. */
export function tellWatchedFiles(directory: string, rootPid: number): void {
  const finder = new WatchFinder(rootPid);
  const files: WatchedFile[] = [];
  for (const pid of readTree(rootPid))
    for (const { fd, target } of readDescriptors(pid) ?? [])
      if (isInotify(target))
        for (const fate of finder.fates(pid, fd)) if (fate.kind === 'told') files.push(fate.file);
  if (files.length === 0) return;
  writeFileSync(path.join(directory, irmapCacheName), encodeIrmapCache(files), { mode: 0o600 });
}
