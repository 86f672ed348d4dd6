import { statSync } from 'node:fs';
import { readDescriptors } from '../linux/process-descriptors.ts';
import { readMaps } from '../linux/process-maps.ts';
import { unlessGone } from '../linux/process.ts';

/**
 * Whether one of the processes uses a file under a name that has been unlinked although the file has another one. CRIU gives those a
 * new name while it dumps (see `DumpHook`).
 */
export function usesLostNames(pids: readonly number[]): boolean {
  return pids.some((pid) => descriptorsLost(pid) || mappingsLost(pid));
}

function descriptorsLost(pid: number): boolean {
  return (readDescriptors(pid) ?? []).some(
    ({ fd, target }) =>
      target.startsWith('/') && target.endsWith(' (deleted)') && hasLinks(`/proc/${pid}/fd/${fd}`),
  );
}

function mappingsLost(pid: number): boolean {
  return (readMaps(pid) ?? []).some(
    ({ start, end, deleted, path }) =>
      deleted &&
      path.startsWith('/') &&
      hasLinks(`/proc/${pid}/map_files/${start.toString(16)}-${end.toString(16)}`),
  );
}

function hasLinks(path: string): boolean {
  return (unlessGone(() => statSync(path).nlink) ?? 0) > 0;
}
