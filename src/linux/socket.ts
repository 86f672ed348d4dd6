/** Unix sockets with descriptors in their messages, which Node.js does not have. */

import { closeSync, constants as fsConstants, openSync, unlinkSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { constants } from 'node:os';
import {
  addressOf,
  type Bytes,
  checked,
  lastErrno,
  libc,
  O_CLOEXEC,
  O_NONBLOCK,
  SystemCallError,
} from './libc.ts';

const AF_UNIX = 1;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const MSG_CTRUNC = 8;

export const SOCK_STREAM = 1;
export const SOCK_SEQPACKET = 5;

const { EAGAIN, EINTR } = constants.errno;

/** The longest path a socket address holds; longer ones are reached through their directory's descriptor. */
const longestPath = 107;

function address(path: string): Buffer {
  const bytes = Buffer.alloc(110);
  bytes.writeUInt16LE(AF_UNIX, 0);
  bytes.write(path, 2);
  return bytes;
}

function withAddress(path: string, action: (address: Buffer) => number): number {
  if (Buffer.byteLength(path) <= longestPath) return action(address(path));
  const directory = openSync(dirname(path), fsConstants.O_DIRECTORY | fsConstants.O_RDONLY);
  try {
    return action(address(`/proc/self/fd/${directory}/${basename(path)}`));
  } finally {
    closeSync(directory);
  }
}

/** Two connected sockets, close-on-exec. */
export function socketPair(type: number = SOCK_STREAM): [number, number] {
  const pair = new Int32Array(2);
  checked(libc().socketpair(AF_UNIX, type | O_CLOEXEC, 0, new Uint8Array(pair.buffer)), 'socketpair');
  return [pair[0] ?? -1, pair[1] ?? -1];
}

/** A listening unix socket at `path`; a socket left there is replaced. Close-on-exec, non-blocking. */
export function listenUnix(path: string, backlog = 8, type: number = SOCK_STREAM): number {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const fd = checked(libc().socket(AF_UNIX, type | O_CLOEXEC | O_NONBLOCK, 0), 'socket');
  try {
    checked(
      withAddress(path, (to) => libc().bind(fd, to, to.length)),
      'bind',
      path,
    );
    checked(libc().listen(fd, backlog), 'listen', path);
    return fd;
  } catch (error) {
    libc().close(fd);
    throw error;
  }
}

/** Accepts a connection (close-on-exec, blocking); `undefined` if none waits on a non-blocking listener. */
export function acceptUnix(listener: number): number | undefined {
  for (;;) {
    const fd = libc().accept4(listener, null, null, O_CLOEXEC);
    if (fd >= 0) return fd;
    const errno = lastErrno();
    if (errno === EAGAIN) return undefined;
    if (errno !== EINTR) throw new SystemCallError(errno, 'accept4');
  }
}

/** Connects to the unix socket at `path`. Close-on-exec, blocking. */
export function connectUnix(path: string, type: number = SOCK_STREAM): number {
  const fd = checked(libc().socket(AF_UNIX, type | O_CLOEXEC, 0), 'socket');
  try {
    checked(
      withAddress(path, (to) => libc().connect(fd, to, to.length)),
      'connect',
      path,
    );
    return fd;
  } catch (error) {
    libc().close(fd);
    throw error;
  }
}

/** Says that nothing more will be written (the peer reads the end of file), or read. */
export function shutdownSocket(fd: number, how: 'read' | 'write' | 'both'): void {
  checked(libc().shutdown(fd, { read: 0, write: 1, both: 2 }[how]), 'shutdown');
}

/** Who is at the other end of a connected unix socket (SO_PEERCRED), as it was when it connected. */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  const SO_PEERCRED = 17;
  const values = new Int32Array(3);
  const length = Uint32Array.of(12);
  checked(
    libc().getsockopt(
      fd,
      SOL_SOCKET,
      SO_PEERCRED,
      new Uint8Array(values.buffer),
      new Uint8Array(length.buffer),
    ),
    'getsockopt',
  );
  return { pid: values[0] ?? 0, uid: (values[1] ?? 0) >>> 0, gid: (values[2] ?? 0) >>> 0 };
}

/** Sets the send and receive buffer (bytes; the kernel caps it) of a socket. */
export function setSocketBuffers(fd: number, bytes: number): void {
  for (const option of [7, 8]) {
    const value = new Uint8Array(Int32Array.of(bytes).buffer);
    checked(libc().setsockopt(fd, SOL_SOCKET, option, value, 4), 'setsockopt');
  }
}

// struct msghdr on 64-bit Linux: name, namelen, iov, iovlen, control, controllen, flags (eight bytes each).
const words = 7;

function message(
  data: Bytes,
  control: Bytes | undefined,
): { header: BigUint64Array<ArrayBuffer>; iov: BigUint64Array } {
  const iov = BigUint64Array.of(addressOf(data), BigInt(data.byteLength));
  const header = new BigUint64Array(words);
  header[2] = addressOf(iov);
  header[3] = 1n;
  if (control !== undefined) {
    header[4] = addressOf(control);
    header[5] = BigInt(control.byteLength);
  }
  return { header, iov };
}

/** Sends `data` (at least one byte) with descriptors; returns the bytes sent, `undefined` if it would have to wait. */
export function sendMessage(
  fd: number,
  data: Bytes,
  descriptors: readonly number[] = [],
): number | undefined {
  let control: Buffer | undefined;
  if (descriptors.length > 0) {
    control = Buffer.alloc(16 + Math.ceil(descriptors.length / 2) * 8);
    control.writeBigUInt64LE(BigInt(16 + descriptors.length * 4), 0);
    control.writeInt32LE(SOL_SOCKET, 8);
    control.writeInt32LE(SCM_RIGHTS, 12);
    for (const [i, descriptor] of descriptors.entries()) control.writeInt32LE(descriptor, 16 + 4 * i);
  }
  const { header, iov } = message(data, control);
  for (;;) {
    const sent = libc().sendmsg(fd, new Uint8Array(header.buffer), MSG_NOSIGNAL);
    if (sent >= 0) return keep(sent, iov, control, data);
    const errno = lastErrno();
    if (errno === EAGAIN) return undefined;
    if (errno !== EINTR) throw new SystemCallError(errno, 'sendmsg');
  }
}

/**
 * Receives into `into`; descriptors (at most 64 per message) come close-on-exec and belong to the caller. 0 bytes: the peer
 * has closed. `undefined` if a non-blocking socket (or `dontWait`) has nothing.
 */
export function receiveMessage(
  fd: number,
  into: Bytes,
  dontWait = false,
): { length: number; descriptors: number[] } | undefined {
  const MSG_DONTWAIT = 0x40;
  const control = Buffer.alloc(16 + 64 * 4);
  const { header, iov } = message(into, control);
  for (;;) {
    header[5] = BigInt(control.length);
    const flags = MSG_CMSG_CLOEXEC | (dontWait ? MSG_DONTWAIT : 0);
    const length = libc().recvmsg(fd, new Uint8Array(header.buffer), flags);
    if (length >= 0) {
      const descriptors = parseRights(control, Number(header[5]));
      if ((Number(header[6]) & MSG_CTRUNC) !== 0) {
        for (const descriptor of descriptors) libc().close(descriptor);
        throw new Error('recvmsg: more than 64 descriptors in one message');
      }
      return keep({ length, descriptors }, iov, control, into);
    }
    const errno = lastErrno();
    if (errno === EAGAIN) return undefined;
    if (errno !== EINTR) throw new SystemCallError(errno, 'recvmsg');
  }
}

function parseRights(control: Buffer, length: number): number[] {
  const descriptors: number[] = [];
  for (let at = 0; at + 16 <= length; ) {
    const size = Number(control.readBigUInt64LE(at));
    if (size < 16) break;
    if (control.readInt32LE(at + 8) === SOL_SOCKET && control.readInt32LE(at + 12) === SCM_RIGHTS) {
      for (let i = at + 16; i + 4 <= at + size; i += 4) descriptors.push(control.readInt32LE(i));
    }
    at += Math.ceil(size / 8) * 8;
  }
  return descriptors;
}

/** Returns `value`; its further arguments stay referenced up to here, so that no buffer is collected during the call. */
function keep<T>(value: T, ..._alive: unknown[]): T {
  return value;
}

/** Domain (AF_…), type (SOCK_…) and protocol of a socket. */
export function socketKind(fd: number): { domain: number; type: number; protocol: number } {
  const SO_TYPE = 3;
  const SO_PROTOCOL = 38;
  const SO_DOMAIN = 39;
  return {
    domain: socketOption(fd, SO_DOMAIN),
    type: socketOption(fd, SO_TYPE),
    protocol: socketOption(fd, SO_PROTOCOL),
  };
}

/** Takes a TCP socket out of repair mode (TCP_REPAIR of linux/tcp.h); says whether it was in it. */
export function endTcpRepair(fd: number): boolean {
  const TCP_REPAIR = 19;
  const mode = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(4);
  checked(libc().getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, mode, length), 'getsockopt');
  if (mode.readInt32LE() !== 1) return false;
  checked(libc().setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, Buffer.alloc(4), 4), 'setsockopt');
  return true;
}

/** In `socketKind`. */
export const IPPROTO_TCP = 6;

function socketOption(fd: number, option: number): number {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(4);
  checked(libc().getsockopt(fd, 1, option, value, length), 'getsockopt');
  return value.readInt32LE();
}
