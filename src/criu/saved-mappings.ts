/** The mappings of a process in `mm-PID.img`. */

import { CairnError } from '../errors.ts';
import { decodeImage, encodeImage } from './image-file.ts';
import type { ShortenedMapping } from './mapping-cover.ts';
import type { SavedMapping } from './messages.ts';
import { pageFlags, runFields } from './pagemap.ts';
import { decodeMessage, Message } from './protobuf.ts';

/** A mapping with pages of its own, which a page map lists. */
export interface PrivateMapping {
  start: number;
  end: number;
  /** Its pages may come after the restart. */
  lazy: boolean;
}

/** Bits of `status` (criu/include/image.h). */
const area = {
  regular: 1 << 0,
  vsyscall: 1 << 2,
  vdso: 1 << 3,
  filePrivate: 1 << 6,
  anonPrivate: 1 << 9,
  vvar: 1 << 12,
  shadowStack: 1 << 15,
  guard: 1 << 16,
};

/** Bits of `flags` (mmap(2)). */
const map = { private: 0x02, droppable: 0x08, anonymous: 0x20, locked: 0x2000, hugetlb: 0x40000 };

/**
 * Those of the mappings of `mm-PID.img` whose pages CRIU asks the kernel for, ascending. By CRIU's own rules: vma_entry_is_private and
 * vma_entry_can_be_lazy (criu/include/vma.h), generate_vma_iovs (criu/mem.c). What it saves whole without asking (the vDSO, rings of
 * asynchronous I/O) it lists in any case. Pure.
 */
export function privateMappings(mappings: readonly SavedMapping[]): PrivateMapping[] {
  return mappings
    .filter(({ status, flags }) => {
      if ((status & (area.vvar | area.guard)) !== 0 || (flags & map.droppable) !== 0) return false;
      if ((status & area.shadowStack) !== 0) return true;
      return (status & area.regular) !== 0 && (status & (area.anonPrivate | area.filePrivate)) !== 0;
    })
    .map(({ start, end, status, flags }) => ({
      start: Number(start),
      end: Number(end),
      lazy:
        (flags & map.private) !== 0 &&
        (flags & map.anonymous) !== 0 &&
        (flags & (map.locked | map.hugetlb)) === 0 &&
        (status & (area.vdso | area.vsyscall)) === 0,
    }))
    .sort((a, b) => a.start - b.start);
}

/** Field of an mm_entry that holds its mappings, and fields of each (CRIU images/mm.proto, vma.proto). */
const mappingsField = 14;
const field = { start: 1, end: 2, status: 7 };

/**
 * The image with the true ends of mappings of which CRIU has seen only the first page (`MappingCover`). Throws `image-damaged` (permanent) if one of
 * them is missing. Pure.
 */
export function withWholeMappings(
  image: Uint8Array,
  shortened: readonly ShortenedMapping[],
  name = 'mm.img',
): Uint8Array {
  const [message] = decodeImage(image, 'mm', name);
  const ends = new Map(shortened.map(({ start, end }) => [start, end]));
  const fields = (message?.fields ?? []).map((one) => {
    if (one.number !== mappingsField || !(one.value instanceof Uint8Array)) return one;
    const mapping = decodeMessage(one.value);
    const start = mapping.uint(field.start) ?? -1;
    const end = ends.get(start);
    if (end === undefined || ((mapping.uint(field.status) ?? 0) & area.guard) !== 0) return one;
    ends.delete(start);
    return { ...one, value: mapping.set(field.end, end).encode() };
  });
  const [missing] = ends.keys();
  if (missing !== undefined)
    throw new CairnError(
      'permanent',
      'image-damaged',
      `Tried to read CRIU image ${name}: the mapping at 0x${missing.toString(16)} is missing.`,
    );
  return encodeImage('mm', [new Message(fields)]);
}

const MADV_DONTFORK = 10;
const MADV_WIPEONFORK = 18;

/**
 * The runs of a page map with the same pages, but none that a child does not inherit is lazy: where memory comes later the kernel does not tell that a child begins without it. Pure.
 */
export function withoutLazyOwn(
  runs: Float64Array<ArrayBufferLike>,
  mappings: readonly SavedMapping[],
  pageSize = 4096,
): Float64Array<ArrayBufferLike> {
  const own = mappings.filter(
    ({ advice }) => (advice & ((1 << MADV_DONTFORK) | (1 << MADV_WIPEONFORK))) !== 0,
  );
  if (own.length === 0) return runs;
  const result: number[] = [];
  for (let i = 0; i < runs.length; i += runFields) {
    let start = runs[i] as number;
    const end = start + (runs[i + 1] as number) * pageSize;
    const flags = runs[i + 2] as number;
    const put = (to: number, as: number) => {
      if (to > start) result.push(start, (to - start) / pageSize, as);
      start = Math.max(start, to);
    };
    for (const mapping of own) {
      put(Math.min(end, Number(mapping.start)), flags);
      if (Number(mapping.end) > start) put(Math.min(end, Number(mapping.end)), flags & ~pageFlags.lazy);
    }
    put(end, flags);
  }
  return Float64Array.from(result);
}
