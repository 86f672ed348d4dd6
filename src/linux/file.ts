/** What Node.js lacks for files: device nodes, extended attributes, times in nanoseconds, shared blocks, mounts. */

import { constants } from 'node:os';
import { bytesOf, checked, ioctl, lastErrno, libc, SystemCallError } from './libc.ts';

/** Flags of mount(2). */
export const mountFlags = {
  rdonly: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  remount: 0x20,
  noatime: 0x400,
  nodiratime: 0x800,
  bind: 0x1000,
  move: 0x2000,
  rec: 0x4000,
  unbindable: 0x20000,
  private: 0x40000,
  slave: 0x80000,
  shared: 0x100000,
  relatime: 0x200000,
  strictatime: 0x1000000,
} as const;

/** mount(2): `flags` are `mountFlags` joined with |, `options` the text of the file system. */
export function mount(
  source: string | null,
  target: string,
  type: string | null,
  flags = 0,
  options: string | null = null,
): void {
  checked(libc().mount(source, target, type, flags, options), 'mount', target);
}

export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

/** umount2(2); never follows a symbolic link at `target`. */
export function unmount(target: string, flags = 0): void {
  checked(libc().umount2(target, flags | UMOUNT_NOFOLLOW), 'umount2', target);
}

/** Number of a device node as stat(2) shows it in `rdev`. */
export function deviceNumber(major: number, minor: number): number {
  // makedev(3): 12 + 20 bits in the low word, the rest of the major above 2^44 (no Linux device uses it).
  return ((minor & 0xff) | ((major & 0xfff) << 8)) + (minor >>> 8) * 2 ** 20;
}

/** Major and minor number of a device from `st_dev` or `st_rdev`. */
export function deviceParts(device: number): { major: number; minor: number } {
  const value = BigInt(device);
  const major = ((value >> 8n) & 0xfffn) | ((value >> 32n) & 0xfffff000n);
  const minor = (value & 0xffn) | ((value >> 12n) & 0xffffff00n);
  return { major: Number(major), minor: Number(minor) };
}

/** A path; as bytes if its name need not be valid UTF-8. */
export type FilePath = string | Buffer;

/** As the C library wants it: bytes end with a zero. */
function argument(path: FilePath): string | Buffer {
  return typeof path === 'string' ? path : Buffer.concat([path, Buffer.from([0])]);
}

/** Creates a device node, FIFO or socket: `mode` with the type bits (S_IFCHR 0o020000, S_IFBLK 0o060000, S_IFIFO 0o010000). */
export function makeNode(path: FilePath, mode: number, device = 0): void {
  checked(libc().mknod(argument(path), mode, device), 'mknod', String(path));
}

/** Names of the extended attributes of a file (a symbolic link itself); empty where the file system has none. */
export function listAttributes(path: FilePath): string[] {
  for (let capacity = 4096; ; capacity *= 4) {
    const buffer = Buffer.alloc(capacity);
    const length = libc().llistxattr(argument(path), buffer, buffer.length);
    if (length >= 0) return buffer.toString('utf8', 0, length).split('\0').slice(0, -1);
    const errno = lastErrno();
    if (errno === constants.errno.EOPNOTSUPP) return [];
    if (errno !== constants.errno.ERANGE) throw new SystemCallError(errno, 'llistxattr', String(path));
  }
}

/** Value of an extended attribute; `undefined` if the file does not have it. */
export function getAttribute(path: FilePath, name: string): Buffer | undefined {
  for (let capacity = 4096; ; capacity *= 4) {
    const buffer = Buffer.alloc(capacity);
    const length = libc().lgetxattr(argument(path), name, buffer, buffer.length);
    if (length >= 0) return buffer.subarray(0, length);
    const errno = lastErrno();
    if (errno === constants.errno.ENODATA || errno === constants.errno.EOPNOTSUPP) return undefined;
    if (errno !== constants.errno.ERANGE) throw new SystemCallError(errno, 'lgetxattr', String(path));
  }
}

export function setAttribute(path: FilePath, name: string, value: Uint8Array): void {
  checked(libc().lsetxattr(argument(path), name, value, value.byteLength, 0), 'lsetxattr', String(path));
}

/** Sets both times of a file, or of the symbolic link itself, in nanoseconds since 1970. */
export function setTimes(path: FilePath, accessNs: bigint, modifyNs: bigint): void {
  const AT_FDCWD = -100;
  const AT_SYMLINK_NOFOLLOW = 0x100;
  const times = new BigInt64Array([...timespec(accessNs), ...timespec(modifyNs)]);
  const bytes = new Uint8Array(times.buffer);
  checked(libc().utimensat(AT_FDCWD, argument(path), bytes, AT_SYMLINK_NOFOLLOW), 'utimensat', String(path));
}

function timespec(ns: bigint): [bigint, bigint] {
  const second = 1_000_000_000n;
  const rest = ((ns % second) + second) % second;
  return [(ns - rest) / second, rest];
}

/** Writes everything of the file system that holds `fd` to its disk. */
export function syncFileSystem(fd: number): void {
  checked(libc().syncfs(fd), 'syncfs');
}

const FICLONE = 0x40049409;
const FICLONERANGE = 0x4020940d;

/** Makes `target` share all blocks of `source` (FICLONE). Throws EOPNOTSUPP, EXDEV or EINVAL where that is impossible. */
export function cloneFile(target: number, source: number): void {
  ioctl(target, FICLONE, source);
}

/** Shares a range of blocks (FICLONERANGE); offsets and length in bytes, aligned to blocks; length 0 = to the end. */
export function cloneRange(
  target: number,
  targetOffset: number,
  source: number,
  offset: number,
  length: number,
): void {
  const range = BigUint64Array.of(BigInt(source), BigInt(offset), BigInt(length), BigInt(targetOffset));
  ioctl(target, FICLONERANGE, bytesOf(range));
}

/** copy_file_range(2): returns the bytes copied, 0 at the end of the source. */
export function copyRange(
  target: number,
  targetOffset: number,
  source: number,
  offset: number,
  length: number,
): number {
  const from = BigUint64Array.of(BigInt(offset));
  const to = BigUint64Array.of(BigInt(targetOffset));
  const count = libc().copyFileRange(source, bytesOf(from), target, bytesOf(to), length, 0);
  return checked(count, 'copy_file_range');
}
