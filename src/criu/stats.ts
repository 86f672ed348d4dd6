/** `stats-dump` and `stats-restore`, which CRIU leaves in its work directory (CRIU images/stats.proto). */

import { decodeImage } from './image-file.ts';

/** Times in milliseconds. Of a lazy dump they mean nothing: CRIU starts counting anew when it begins to wait. */
export interface DumpStats {
  freezingMs: number;
  /** From the first stopped task until the memory was dumped; not the whole time a lazy dump keeps the tasks frozen. */
  frozenMs: number;
  memoryDumpMs: number;
  memoryWriteMs: number;
  pagesScanned: number;
  pagesWritten: number;
  pagesLazy: number;
  pagesSkipped: number;
  sharedPagesScanned: number;
  sharedPagesWritten: number;
}

/** Times in milliseconds. */
export interface RestoreStats {
  forkingMs: number;
  restoreMs: number;
  pagesCompared: number;
  pagesSkipped: number;
  pagesRestored: number;
}

/** Decodes `stats-dump`; `undefined` if it is a `stats-restore`. Throws `permanent` `image-damaged`. */
export function decodeDumpStats(image: Uint8Array): DumpStats | undefined {
  const dump = decodeImage(image, 'stats', 'stats-dump')[0]?.message(1);
  if (dump === undefined) return undefined;
  const count = (field: number) => dump.uint(field) ?? 0;
  return {
    freezingMs: count(1) / 1000,
    frozenMs: count(2) / 1000,
    memoryDumpMs: count(3) / 1000,
    memoryWriteMs: count(4) / 1000,
    pagesScanned: count(5),
    pagesSkipped: count(6),
    pagesWritten: count(7),
    pagesLazy: count(9),
    sharedPagesScanned: count(12),
    sharedPagesWritten: count(14),
  };
}

/** Decodes `stats-restore`; `undefined` if it is a `stats-dump`. Throws `permanent` `image-damaged`. */
export function decodeRestoreStats(image: Uint8Array): RestoreStats | undefined {
  const restore = decodeImage(image, 'stats', 'stats-restore')[0]?.message(2);
  if (restore === undefined) return undefined;
  const count = (field: number) => restore.uint(field) ?? 0;
  return {
    pagesCompared: count(1),
    pagesSkipped: count(2),
    forkingMs: count(3) / 1000,
    restoreMs: count(4) / 1000,
    pagesRestored: count(5),
  };
}
