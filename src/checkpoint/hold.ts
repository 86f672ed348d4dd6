import { statSync } from 'node:fs';
import { asynchronousRing } from '../criu/asynchronous-io.ts';
import { readDescriptors } from '../linux/process-descriptors.ts';
import { readMaps } from '../linux/process-maps.ts';
import { unlessGone } from '../linux/process.ts';

/**
 * Whether a dump of these processes has to hold at `post-dump` (see `DumpHook`) until the layers are read, because
 *
 * - one uses a file under a name that has been unlinked although the file has another one: CRIU gives those a name only then; or
 * - one has a ring for asynchronous I/O: requests complete while it is frozen, and files must not be older than the ring.
 */
export function hasToHold(pids: readonly number[]): boolean {
  return pids.some((pid) => descriptorsLost(pid) || mappingsHold(pid));
}

function descriptorsLost(pid: number): boolean {
  return (readDescriptors(pid) ?? []).some(
    ({ fd, target }) =>
      target.startsWith('/') && target.endsWith(' (deleted)') && hasLinks(`/proc/${pid}/fd/${fd}`),
  );
}

function mappingsHold(pid: number): boolean {
  return (readMaps(pid) ?? []).some(
    ({ start, end, deleted, path }) =>
      path === asynchronousRing ||
      (deleted &&
        path.startsWith('/') &&
        hasLinks(`/proc/${pid}/map_files/${start.toString(16)}-${end.toString(16)}`)),
  );
}

function hasLinks(path: string): boolean {
  return (unlessGone(() => statSync(path).nlink) ?? 0) > 0;
}

/** Whether a process has a ring for asynchronous I/O. */
export function hasRing(pid: number): boolean {
  return (readMaps(pid) ?? []).some(({ path }) => path === asynchronousRing);
}
