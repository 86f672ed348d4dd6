/** The mappings of a process in `mm-PID.img`. */

import { decodeImage, encodeImage } from './image-file.ts';
import type { SavedMapping } from './messages.ts';
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
const vma = { start: 1, end: 2, offset: 3, sharedId: 4, protection: 5, flags: 6, status: 7, fd: 8 };
/** -1 as a sint64. */
const noDescriptor = 1;

/**
 * The image with other guard pages (MADV_GUARD_INSTALL; `[start, end] …`), which CRIU keeps as mappings of a kind of their own at the end
 * (criu/mem.c: collect_madv_guards). `undefined` if that changes nothing. Pure.
 */
export function withGuards(
  image: Uint8Array,
  guards: readonly number[],
  name = 'mm.img',
): Uint8Array | undefined {
  const [message] = decodeImage(image, 'mm', name);
  if (message === undefined) return undefined;
  const isGuard = (bytes: Uint8Array) => ((decodeMessage(bytes).uint(vma.status) ?? 0) & area.guard) !== 0;
  const others = message.fields.filter(
    ({ number, value }) => number !== mappingsField || !(value instanceof Uint8Array) || !isGuard(value),
  );
  if (others.length === message.fields.length && guards.length === 0) return undefined;
  const changed = new Message(others);
  for (let i = 0; i < guards.length; i += 2)
    changed.add(
      mappingsField,
      new Message()
        .set(vma.start, guards[i] as number)
        .set(vma.end, guards[i + 1] as number)
        .set(vma.offset, 0)
        .set(vma.sharedId, 0)
        .set(vma.protection, 0)
        .set(vma.flags, 0)
        .set(vma.status, area.guard)
        .set(vma.fd, noDescriptor)
        .encode(),
    );
  return encodeImage('mm', [changed]);
}
