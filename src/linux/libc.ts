/**
 * The C library, called through koffi. The only file that loads it; it is loaded on the first call, so that a command
 * line that needs no system call starts without it.
 *
 * Wrappers throw an error with `code` (`ENOENT` …), `errno` and `syscall`, like those of Node.js. What Node.js has itself
 * (`fs.lchownSync`, `fs.fsyncSync`, `process.kill` …) is not here. Sockets are in `socket.ts`, memory of other processes in
 * `memory.ts`.
 */

import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';

/** Bytes that a system call may read or write; on shared memory too. Kept alive by the caller during the call. */
export type Bytes = Uint8Array<ArrayBufferLike>;

/** A system call that failed: `code` as in Node.js, `errno` positive. */
export class SystemCallError extends Error {
  override readonly name = 'SystemCallError';
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(errno: number, syscall: string, subject?: string) {
    const [code, text] = errorNames().get(errno) ?? [`ERRNO_${errno}`, 'unknown error'];
    super(`${code}: ${text}, ${syscall}${subject === undefined ? '' : ` '${subject}'`}`);
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

let names: Map<number, [string, string]> | undefined;

function errorNames(): Map<number, [string, string]> {
  if (names === undefined) {
    names = new Map();
    for (const [code, errno] of Object.entries(constants.errno)) names.set(errno, [code, code]);
    for (const [errno, entry] of getSystemErrorMap()) if (errno > -4000) names.set(-errno, entry);
  }
  return names;
}

type Value = number | bigint | string | null | Bytes;
type Native = (...values: Value[]) => number;

type Koffi = typeof import('koffi');
let koffi: Koffi | undefined;

function loadKoffi(): Koffi {
  koffi ??= createRequire(import.meta.url)('koffi') as Koffi;
  return koffi;
}

function bindAll() {
  const library = loadKoffi().load('libc.so.6');
  // koffi returns 64-bit integers as numbers while they are safe, which lengths and error codes always are.
  const call = (name: string, args: string[], result = 'int32'): Native =>
    library.func(name, result, args) as unknown as Native;
  const [int, uint, long, size, pointer, text] = [
    'int32',
    'uint32',
    'int64',
    'uint64',
    'void *',
    'const char *',
  ];
  return {
    read: call('read', [int, pointer, size], long),
    write: call('write', [int, pointer, size], long),
    pread: call('pread', [int, pointer, size, long], long),
    pwrite: call('pwrite', [int, pointer, size, long], long),
    writev: call('writev', [int, pointer, int], long),
    close: call('close', [int]),
    dup2: call('dup2', [int, int]),
    pipe2: call('pipe2', [pointer, int]),
    poll: call('poll', [pointer, size, int]),
    fcntl: call('fcntl', [int, int, long]),
    ioctl: call('ioctl', [int, size, pointer]),
    ioctlValue: call('ioctl', [int, size, long]),
    eventfd: call('eventfd', [uint, int]),
    prctl: call('prctl', [int, size, size, size, size]),
    prctlText: call('prctl', [int, text, size, size, size]),
    waitpid: call('waitpid', [int, pointer, int]),
    ptrace: call('ptrace', [long, int, size, size], long),
    socket: call('socket', [int, int, int]),
    socketpair: call('socketpair', [int, int, int, pointer]),
    bind: call('bind', [int, pointer, uint]),
    listen: call('listen', [int, int]),
    accept4: call('accept4', [int, pointer, pointer, int]),
    connect: call('connect', [int, pointer, uint]),
    shutdown: call('shutdown', [int, int]),
    getsockopt: call('getsockopt', [int, int, int, pointer, pointer]),
    setsockopt: call('setsockopt', [int, int, int, pointer, uint]),
    recvmsg: call('recvmsg', [int, pointer, int], long),
    sendmsg: call('sendmsg', [int, pointer, int], long),
    processVmReadv: call('process_vm_readv', [int, pointer, size, pointer, size, size], long),
    madvise: call('madvise', [size, size, int]),
    mallocTrim: call('malloc_trim', [size]),
    copyFileRange: call('copy_file_range', [int, pointer, int, pointer, size, uint], long),
    mount: call('mount', [text, text, text, size, text]),
    umount2: call('umount2', [text, int]),
    unshare: call('unshare', [int]),
    setns: call('setns', [int, int]),
    mknod: call('mknod', [text, uint, size]),
    lsetxattr: call('lsetxattr', [text, text, pointer, size, int]),
    lgetxattr: call('lgetxattr', [text, text, pointer, size], long),
    llistxattr: call('llistxattr', [text, pointer, size], long),
    utimensat: call('utimensat', [int, text, pointer, int]),
    syncfs: call('syncfs', [int]),
    flock: call('flock', [int, int]),
    openByHandleAt: call('open_by_handle_at', [int, pointer, int]),
    syscall: call('syscall', [long, long, long, long, long, long], long),
  };
}

/** A function that the running program or a library it is linked with exports; types as koffi names them. */
export function programFunction(name: string, args: string[], result = 'int32'): Native {
  return loadKoffi().load(null).func(name, result, args) as unknown as Native;
}

let bound: ReturnType<typeof bindAll> | undefined;

/** The bound functions, raw: -1 means failure, `lastErrno()` right after tells which. For the files of this room only. */
export function libc(): ReturnType<typeof bindAll> {
  bound ??= bindAll();
  return bound;
}

/** `errno` of the last call of this thread. */
export function lastErrno(): number {
  return loadKoffi().errno();
}

/** Address of the first byte of a view. The caller must keep the view referenced while the kernel may use it. */
export function addressOf(bytes: Bytes | BigUint64Array<ArrayBufferLike>): bigint {
  return loadKoffi().address(bytes);
}

/** Throws the error of the call if `result` says that it failed; returns the result otherwise. */
export function checked(result: number, syscall: string, subject?: string): number {
  if (result < 0) throw new SystemCallError(lastErrno(), syscall, subject);
  return result;
}

const { EAGAIN, EINTR } = constants.errno;

/** Repeats while a signal interrupts; `undefined` if the call would have to wait (EAGAIN). */
function transfer(operation: () => number, syscall: string): number | undefined {
  for (;;) {
    const result = operation();
    if (result >= 0) return result;
    const errno = lastErrno();
    if (errno === EAGAIN) return undefined;
    if (errno !== EINTR) throw new SystemCallError(errno, syscall);
  }
}

/** Reads into `into`; 0 at the end of the file, `undefined` if a non-blocking descriptor has nothing. */
export function read(fd: number, into: Bytes): number | undefined {
  return transfer(() => libc().read(fd, into, into.byteLength), 'read');
}

/** Writes from `from`, perhaps only its beginning; `undefined` if a non-blocking descriptor takes nothing. */
export function write(fd: number, from: Bytes): number | undefined {
  return transfer(() => libc().write(fd, from, from.byteLength), 'write');
}

/** Reads at `position` (bytes) into `into`; 0 at the end of the file. */
export function pread(fd: number, into: Bytes, position: number | bigint): number {
  return transfer(() => libc().pread(fd, into, into.byteLength, position), 'pread') ?? 0;
}

/** Writes at `position` (bytes), perhaps only the beginning of `from`. */
export function pwrite(fd: number, from: Bytes, position: number | bigint): number {
  return transfer(() => libc().pwrite(fd, from, from.byteLength, position), 'pwrite') ?? 0;
}

/** Writes several pieces in one call (at most 1024), perhaps only their beginning; `undefined` as for `write`. */
export function writev(fd: number, pieces: readonly Bytes[]): number | undefined {
  const vector = new BigUint64Array(pieces.length * 2);
  pieces.forEach((piece, i) => {
    vector[2 * i] = addressOf(piece);
    vector[2 * i + 1] = BigInt(piece.byteLength);
  });
  return transfer(() => libc().writev(fd, bytesOf(vector), pieces.length), 'writev');
}

/** Reads exactly `into.byteLength` bytes from a blocking descriptor; fewer only at the end of the file. */
export function readFully(fd: number, into: Bytes): number {
  let done = 0;
  while (done < into.byteLength) {
    const n = read(fd, into.subarray(done));
    if (n === undefined) waitFor(fd, POLLIN);
    else if (n === 0) break;
    else done += n;
  }
  return done;
}

/** Writes all of `from` to a blocking descriptor (waits on a non-blocking one). */
export function writeFully(fd: number, from: Bytes): void {
  let done = 0;
  while (done < from.byteLength) {
    const n = write(fd, from.subarray(done));
    if (n === undefined) waitFor(fd, POLLOUT);
    else done += n;
  }
}

function waitFor(fd: number, events: number): void {
  const entry = new PollSet();
  entry.set(fd, events);
  entry.wait(-1);
}

/** The bytes of a vector of 64-bit integers. */
export function bytesOf(vector: BigUint64Array<ArrayBufferLike>): Bytes {
  return new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
}

export const POLLIN = 1;
export const POLLOUT = 4;
export const POLLERR = 8;
export const POLLHUP = 16;
export const POLLNVAL = 32;

/** A set of descriptors to wait for with poll(2). */
export class PollSet {
  readonly #events = new Map<number, number>();
  #table = new Int32Array(0);
  #dirty = true;

  get size(): number {
    return this.#events.size;
  }

  /** Waits for `events` (POLLIN | POLLOUT) of `fd`; 0 reports only errors and hang-up. */
  set(fd: number, events: number): void {
    if (this.#events.get(fd) === events) return;
    this.#events.set(fd, events);
    this.#dirty = true;
  }

  delete(fd: number): void {
    if (this.#events.delete(fd)) this.#dirty = true;
  }

  /**
   * Blocks the thread until something is ready or `timeoutMs` have passed (-1: no limit, 0: only look). Returns what is ready,
   * nothing after the time or a signal.
   */
  wait(timeoutMs: number): { fd: number; events: number }[] {
    if (this.#dirty) {
      this.#table = new Int32Array(this.#events.size * 2);
      let i = 0;
      for (const [fd, events] of this.#events) {
        this.#table[i++] = fd;
        this.#table[i++] = events;
      }
      this.#dirty = false;
    }
    const table = this.#table;
    for (let i = 1; i < table.length; i += 2) table[i] = (table[i] ?? 0) & 0xffff;
    const bytes = new Uint8Array(table.buffer);
    const count = libc().poll(bytes, this.#events.size, Math.ceil(timeoutMs));
    if (count < 0) {
      const errno = lastErrno();
      if (errno === EINTR) return [];
      throw new SystemCallError(errno, 'poll');
    }
    const ready: { fd: number; events: number }[] = [];
    for (let i = 0; i < table.length && ready.length < count; i += 2) {
      const events = (table[i + 1] ?? 0) >>> 16;
      if (events !== 0) ready.push({ fd: table[i] ?? -1, events });
    }
    return ready;
  }
}

/** Closes a descriptor. EINTR counts as closed, as Linux defines it. */
export function close(fd: number): void {
  if (libc().close(fd) < 0 && lastErrno() !== EINTR) throw new SystemCallError(lastErrno(), 'close');
}

/** Makes `to` a copy of `from`; what `to` was before is closed. */
export function duplicateTo(from: number, to: number): void {
  checked(libc().dup2(from, to), 'dup2');
}

export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;

/** A pipe; close-on-exec unless `flags` say otherwise (O_NONBLOCK, O_CLOEXEC; 0 for neither). */
export function pipe(flags: number = O_CLOEXEC): { read: number; write: number } {
  const pair = new Int32Array(2);
  checked(libc().pipe2(new Uint8Array(pair.buffer), flags), 'pipe2');
  return { read: pair[0] ?? -1, write: pair[1] ?? -1 };
}

/** A counter that wakes a poll: `signalEventfd` from any thread. Close-on-exec, non-blocking. */
export function eventfd(initial = 0): number {
  return checked(libc().eventfd(initial, O_CLOEXEC | O_NONBLOCK), 'eventfd');
}

/** Wakes whoever polls the eventfd. */
export function signalEventfd(fd: number): void {
  write(fd, bytesOf(BigUint64Array.of(1n)));
}

/** Sets the eventfd back to 0 and returns what it was. */
export function drainEventfd(fd: number): bigint {
  const value = new BigUint64Array(1);
  return read(fd, bytesOf(value)) === undefined ? 0n : (value[0] ?? 0n);
}

export const F_GETFD = 1;
export const F_SETFD = 2;
export const F_GETFL = 3;
export const F_SETFL = 4;
export const F_DUPFD_CLOEXEC = 1030;
export const F_SETPIPE_SZ = 1031;
export const F_GETPIPE_SZ = 1032;
export const FD_CLOEXEC = 1;

export function fcntl(fd: number, command: number, argument = 0): number {
  return checked(libc().fcntl(fd, command, argument), 'fcntl');
}

/** Asks for a pipe of `bytes`; keeps the size it has if that is not allowed. Returns the size it has now. */
export function setPipeSize(fd: number, bytes: number): number {
  const result = libc().fcntl(fd, F_SETPIPE_SZ, bytes);
  return result >= 0 ? result : fcntl(fd, F_GETPIPE_SZ);
}

export function setNonBlocking(fd: number, on: boolean): void {
  const flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

/** ioctl with a structure that the kernel reads and writes, or with a plain value. */
export function ioctl(fd: number, request: number, argument: Bytes | number | bigint = 0): number {
  const result =
    typeof argument === 'object'
      ? libc().ioctl(fd, request, argument)
      : libc().ioctlValue(fd, request, argument);
  return checked(result, 'ioctl');
}

/** Takes a shared lock on an open file for as long as it stays open (flock(2)); waits while somebody has an exclusive one. */
export function shareLockFile(fd: number): void {
  const shared = 1;
  checked(libc().flock(fd, shared), 'flock');
}

/** Takes an exclusive lock on an open file for as long as it stays open (flock(2)); false if somebody else has it. */
export function tryLockFile(fd: number): boolean {
  const [exclusive, nonBlocking] = [2, 4];
  if (libc().flock(fd, exclusive | nonBlocking) >= 0) return true;
  const errno = lastErrno();
  if (errno === EAGAIN) return false;
  throw new SystemCallError(errno, 'flock');
}
