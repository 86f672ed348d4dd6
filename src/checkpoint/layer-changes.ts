import type { LayerEntry } from '../store/manifest.ts';
import type { ScannedEntry } from './layer-scan.ts';

/**
 * How long a change of a file may leave its ctime as it was, in nanoseconds: the kernel's clock tick (10 ms at HZ=100), twice.
 * Kernels since 6.13 have finer times; older ones are covered.
 */
export const timestampGrainNs = 20_000_000n;

/** A file as it was when its content was read: enough to tell later, without reading, that it is still the same. */
export interface KnownFile {
  ino: number;
  size: number;
  mtimeNs: string;
  ctimeNs: string;
  /** When reading began, nanoseconds since 1970. */
  startedNs: string;
  content: NonNullable<LayerEntry['content']>;
}

/** Whether `entry` certainly still has the content that was read before; a doubt counts as changed. */
export function isUnchanged(entry: ScannedEntry, known: KnownFile): boolean {
  return (
    entry.ino === known.ino &&
    entry.size === known.size &&
    entry.mtimeNs === known.mtimeNs &&
    entry.ctimeNs === known.ctimeNs &&
    BigInt(known.startedNs) - BigInt(known.ctimeNs) > timestampGrainNs
  );
}

/**
 * The regular files of a scan that must be read: those not known, those that may have changed, and those in `mapped`, which some
 * process has mapped shared and writable (a write through a mapping changes a file without changing its times).
 */
export function filesToRead(
  entries: readonly ScannedEntry[],
  known: ReadonlyMap<string, KnownFile>,
  mapped: ReadonlySet<string>,
): string[] {
  const paths: string[] = [];
  for (const entry of entries) {
    if (entry.type !== 'file') continue;
    const before = known.get(entry.path);
    if (before === undefined || mapped.has(entry.path) || !isUnchanged(entry, before)) paths.push(entry.path);
  }
  return paths;
}
