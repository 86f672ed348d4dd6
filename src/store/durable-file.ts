import { randomBytes } from 'node:crypto';
import { constants, readdirSync, rmSync } from 'node:fs';
import { chmod, mkdir, open, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CairnError, messageOf, systemCode } from '../errors.ts';

/** Suffix of files that are being written; at open the only writer removes what a dead one left. */
export const unfinishedSuffix = '.tmp';

/** Removes what somebody who is dead has left of writing a file (`writeDurably`). */
export function removeUnfinished(path: string): void {
  const directory = dirname(path);
  for (const name of readdirSync(directory))
    if (name.startsWith(`.${basename(path)}.`) && name.endsWith(unfinishedSuffix))
      rmSync(join(directory, name), { force: true });
}

/** Creates a directory with mode 0700 (and its parents), durable; an existing one gets the mode. */
export async function ensureDirectory(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true, mode: 0o700 });
  await chmod(path, 0o700);
  if (first !== undefined) await syncDirectory(dirname(first));
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Writes a whole file so that after a crash the old one or the new one is there, never a part: temporary file with mode
 * 0600, fsync, rename, fsync of the directory. Throws `store-full` (temporary) when the space runs out.
 */
export async function writeDurably(
  path: string,
  parts: readonly Uint8Array[],
  step: (name: string) => void = () => {},
): Promise<void> {
  const temporary = join(
    dirname(path),
    `.${basename(path)}.${randomBytes(4).toString('hex')}${unfinishedSuffix}`,
  );
  try {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.chmod(0o600);
      for (const part of parts) await handle.writeFile(part);
      step('written');
      await handle.sync();
    } finally {
      await handle.close();
    }
    step('synced');
    await rename(temporary, path);
    step('renamed');
    await syncDirectory(dirname(path));
  } catch (error) {
    await unlink(temporary).catch(() => {});
    throw storeWriteError(path, error);
  }
}

/** The error for a write that failed: `store-full` if there is no space, `store-write-failed` otherwise. */
export function storeWriteError(path: string, error: unknown): unknown {
  if (error instanceof CairnError) return error;
  const code = systemCode(error);
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new CairnError('temporary', 'store-full', `cannot write ${path}: no space is left (${code})`, {
      remedy: 'remove snapshots (`cairn snapshots`) or give the file system of the store more space',
      cause: error,
    });
  if (code === undefined) return error;
  return new CairnError('environment', 'store-write-failed', `cannot write ${path}: ${messageOf(error)}`, {
    remedy: 'check the file system of the store',
    cause: error,
  });
}

export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false;
    throw error;
  }
}
