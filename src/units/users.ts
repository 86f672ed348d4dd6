/** Users by name, as the root file system of a unit knows them. */

import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { CairnError } from '../errors.ts';
import type { UnitSpec } from './spec.ts';

/** A user that was looked up. */
export interface ResolvedUser {
  user: UnitSpec['user'];
  /** Home directory; `/` if the root file system does not know the user. */
  home: string;
  name: string | undefined;
}

/**
 * Resolves `NAME`, `UID`, `NAME:GROUP` or `UID:GID` in the /etc/passwd and /etc/group of a root file system. Numbers need
 * not be known there. Additional groups are those of /etc/group that name the user.
 *
 * Throws `user-unknown` (argument).
 */
export function resolveUser(rootfs: string, text: string): ResolvedUser {
  return lookUpUser(readEtc(rootfs, 'passwd'), readEtc(rootfs, 'group'), text);
}

/** As `resolveUser`, from the texts of the two files (passwd(5), group(5)). */
export function lookUpUser(passwd: string, group: string, text: string): ResolvedUser {
  const [who = '', which, ...rest] = text.split(':');
  if (who === '' || which === '' || rest.length > 0)
    throw unknown(text, 'write NAME, UID, NAME:GROUP or UID:GID');
  const users = records(passwd);
  const groups = records(group);
  const uid = asId(who);
  const entry = users.find((fields) => (uid === undefined ? fields[0] === who : Number(fields[2]) === uid));
  if (entry === undefined && uid === undefined) throw unknown(who, 'its /etc/passwd has no such user');
  const name = entry?.[0];
  const gid = which === undefined ? Number(entry?.[3] ?? 0) : groupId(groups, which);
  const additionalGids = groups
    .filter((fields) => name !== undefined && (fields[3] ?? '').split(',').includes(name))
    .map((fields) => Number(fields[2]))
    .filter((id) => Number.isInteger(id) && id !== gid);
  return {
    user: { uid: uid ?? Number(entry?.[2]), gid, additionalGids: which === undefined ? additionalGids : [] },
    home: entry?.[5] || '/',
    name,
  };
}

function groupId(groups: string[][], which: string): number {
  const gid = asId(which) ?? groups.find((fields) => fields[0] === which)?.[2];
  if (gid === undefined) throw unknown(which, 'its /etc/group has no such group');
  return Number(gid);
}

function records(text: string): string[][] {
  return text.split('\n').map((line) => line.split(':'));
}

function asId(text: string): number | undefined {
  return /^\d{1,10}$/.test(text) && Number(text) < 4294967295 ? Number(text) : undefined;
}

function unknown(what: string, why: string): CairnError {
  return new CairnError('argument', 'user-unknown', `The unit cannot run as '${what}': ${why}.`);
}

const largestEtcFile = 16 * 1024 * 1024;

/** A file of /etc; empty if it is missing or a symbolic link, which might lead out of the root file system. */
function readEtc(rootfs: string, name: string): string {
  const etc = path.join(rootfs, 'etc');
  if (rootfs !== '/' && !lstatSync(etc, { throwIfNoEntry: false })?.isDirectory()) return '';
  let fd: number;
  try {
    fd = openSync(path.join(etc, name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return '';
  }
  try {
    // The unit may have put anything there; a FIFO would never end.
    const stat = fstatSync(fd);
    return stat.isFile() && stat.size <= largestEtcFile ? readFileSync(fd, 'utf8') : '';
  } finally {
    closeSync(fd);
  }
}
