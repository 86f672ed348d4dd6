/** Memory mappings of a process: /proc/PID/maps and smaps. */

import { readFileSync } from 'node:fs';
import { unlessGone } from './process.ts';

/** One line of /proc/PID/maps. */
export interface Mapping {
  start: bigint;
  end: bigint;
  readable: boolean;
  writable: boolean;
  executable: boolean;
  shared: boolean;
  /** Offset in the file, in bytes. */
  offset: bigint;
  /** `major:minor` in hexadecimal, as written there; `00:00` for anonymous memory. */
  device: string;
  inode: number;
  /** File, `[heap]`, `[stack]`, `[vdso]` …; empty for anonymous memory. */
  path: string;
  /** The file has been unlinked; ` (deleted)` is taken off the path. */
  deleted: boolean;
}

const pattern = /^([0-9a-f]+)-([0-9a-f]+) (.)(.)(.)(.) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+)\s*(.*)$/s;

/** Parses the lines of /proc/PID/maps; lines of another form (those of smaps) are skipped. */
export function parseMaps(text: string): Mapping[] {
  const mappings: Mapping[] = [];
  for (const line of text.split('\n')) {
    const mapping = parseMapping(line);
    if (mapping) mappings.push(mapping);
  }
  return mappings;
}

function parseMapping(line: string): Mapping | undefined {
  const match = pattern.exec(line);
  if (match === null) return undefined;
  const [, start, end, r, w, x, s, offset, device = '', inode, name = ''] = match;
  const deleted = name.endsWith(' (deleted)');
  return {
    start: BigInt(`0x${start}`),
    end: BigInt(`0x${end}`),
    readable: r === 'r',
    writable: w === 'w',
    executable: x === 'x',
    shared: s === 's',
    offset: BigInt(`0x${offset}`),
    device,
    inode: Number(inode),
    path: unescapeOctal(deleted ? name.slice(0, -' (deleted)'.length) : name),
    deleted,
  };
}

/** The kernel writes a line break in a name as `\012`. */
function unescapeOctal(text: string): string {
  if (!text.includes('\\')) return text;
  return text.replace(/\\([0-3][0-7]{2})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** The mappings of a process, ascending; `undefined` if it is gone, empty for a kernel thread or a zombie. */
export function readMaps(pid: number): Mapping[] | undefined {
  const text = unlessGone(() => readFileSync(`/proc/${pid}/maps`, 'utf8'));
  return text === undefined ? undefined : parseMaps(text);
}

/** A mapping with what smaps adds. */
export interface MappingUsage extends Mapping {
  residentBytes: number;
  anonymousBytes: number;
  swappedBytes: number;
  /** Two-letter flags of VmFlags: `ht` hugetlb, `io` device memory, `pf` pure PFN … */
  flags: string[];
}

/** Mappings with their use of memory (/proc/PID/smaps: slow for large processes). */
export function readMapUsage(pid: number): MappingUsage[] | undefined {
  const text = unlessGone(() => readFileSync(`/proc/${pid}/smaps`, 'utf8'));
  if (text === undefined) return undefined;
  const usages: MappingUsage[] = [];
  for (const line of text.split('\n')) {
    const last = usages.at(-1);
    const mapping = parseMapping(line);
    if (mapping) usages.push({ ...mapping, residentBytes: 0, anonymousBytes: 0, swappedBytes: 0, flags: [] });
    else if (last) {
      const [name, value = ''] = line.split(/:\s*/);
      const bytes = Number.parseInt(value, 10) * 1024;
      if (name === 'Rss') last.residentBytes = bytes;
      else if (name === 'Anonymous') last.anonymousBytes = bytes;
      else if (name === 'Swap') last.swappedBytes = bytes;
      else if (name === 'VmFlags') last.flags = value.trim().split(' ');
    }
  }
  return usages;
}

/** Totals of a process's memory (/proc/PID/smaps_rollup), in bytes: what a checkpoint of it may have to save. */
export function readMemoryTotals(
  pid: number,
):
  | { resident: number; proportional: number; anonymous: number; shared: number; swapped: number }
  | undefined {
  const text = unlessGone(() => readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
  if (text === undefined) return undefined;
  const bytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) * 1024;
  return {
    resident: bytes('Rss'),
    proportional: bytes('Pss'),
    anonymous: bytes('Anonymous'),
    shared: bytes('Shared_Clean') + bytes('Shared_Dirty'),
    swapped: bytes('Swap'),
  };
}
