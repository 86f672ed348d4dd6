import { CriuSocket } from './criu-socket.ts';
import { CairnError } from '../errors.ts';
import { close, POLLIN, PollSet, setNonBlocking } from '../linux/libc.ts';
import { receiveMessage } from '../linux/socket.ts';
import { placePages, placeZeros, readMemoryEvent, wakeWaiters } from '../linux/userfaultfd.ts';
import type { LazyRanges } from './lazy-ranges.ts';

/** Name of the socket in the work directory to which `criu restore --lazy-pages` connects (criu/uffd.c). */
const socketName = 'lazy-pages.socket';
/** What CRIU sends instead of a PID when everything is restored and runs (criu/uffd.c: LAZY_PAGES_RESTORE_FINISHED). */
const restoreFinished = 0x52535446;
const pageSize = 4096;
/** Brought at a fault: the page and what follows it. */
const faultBytes = 64 * 1024;
/** The most that is brought at once while nobody waits. */
const burstBytes = 1024 * 1024;
/** How often memory is tried whose mapping is not there, although nothing was said of its end; 2 ms apart. */
const patience = 50;
/** Events of one process that are handled before others have their turn. */
const eventsAtOnce = 64;
/** The rest of the memory comes at least this often, however many wait for some of it. */
const backgroundMs = 10;
/** When what could not be placed is tried again. */
const retryMs = 2;

/** Gives the memory of a snapshot. */
export interface LazySource {
  /** What a restored process (PID in the images) does not have yet. */
  ranges(pid: number): LazyRanges;
  /** Reads pages from an address on, as many as follow on without a gap, at least one; returns how many. */
  read(pid: number, address: number, pages: number, into: Uint8Array): number;
}

export type LazyEvent =
  /** A watched descriptor can be read. */
  | { kind: 'ready'; fd: number }
  /** Memory was brought. */
  | { kind: 'pages'; bytes: number }
  /** All is over; complete: everything runs and has all its memory, or has ended since. */
  | { kind: 'finished'; complete: boolean };

interface LazyProcess {
  pid: number;
  fd: number;
  ranges: LazyRanges;
  burst: number;
  /** Pages for which a thread waits, and which could not be placed yet. */
  waiting: Set<number>;
  /** What was moved away, `start` and `end`: an event of its unmapping is still to come, which says nothing new. */
  moved: { start: number; end: number }[];
  /** Memory whose mapping is not there, and how often it has been tried. */
  missing: { address: number; tries: number } | undefined;
}

/**
 * Brings the memory of restored processes on demand, and the rest in the background: what `criu lazy-pages` does, in this thread. CRIU hands over
 * a userfaultfd for each process (criu/uffd.c: send_uffd): an int, the PID, and then the descriptor; of a zombie only the negative PID.
 *
 * Unlike `criu lazy-pages` it leaves memory that a program gives up meanwhile registered, so that no mapping becomes two.
 */
export class LazyServer implements Disposable {
  readonly #source: LazySource;
  readonly #socket: CriuSocket;
  readonly #poll = new PollSet();
  readonly #watched = new Set<number>();
  readonly #processes = new Map<number, LazyProcess>();
  readonly #buffer = new Uint8Array(new SharedArrayBuffer(burstBytes));
  #connection: number | undefined;
  /** The PID whose descriptor comes next. */
  #awaited: number | undefined;
  #restored = false;
  #lastBroughtMs = 0;
  #finished = false;

  /** Binds the socket in `directory`; from now on CRIU can be started. Throws system errors. */
  constructor(directory: string, source: LazySource) {
    this.#source = source;
    this.#socket = new CriuSocket(directory, socketName, this.#poll);
  }

  /** Reports when `fd` can be read (an eventfd that interrupts). The caller keeps owning it. */
  watch(fd: number): void {
    this.#watched.add(fd);
    this.#poll.set(fd, POLLIN);
  }

  /**
   * Waits until there is something to do, at most `timeoutMs` (-1: no limit), does it, and yields what happened. Throws what the source throws,
   * and `environment` `criu-protocol`.
   */
  *poll(timeoutMs: number): Generator<LazyEvent, void, void> {
    if (this.#finished) return;
    const ready = this.#poll.wait(this.#patienceMs(timeoutMs));
    for (const { fd } of ready) {
      if (this.#watched.has(fd)) yield { kind: 'ready', fd };
      else if (fd === this.#socket.fd) this.#accept();
      else if (fd === this.#connection) this.#receive(fd);
      else {
        const process = this.#processes.get(fd);
        if (process !== undefined) yield* this.#serve(process);
      }
    }
    for (const process of [...this.#processes.values()]) yield* this.#serveWaiting(process);
    const now = performance.now();
    if (this.#restored && (ready.length === 0 || now - this.#lastBroughtMs > backgroundMs)) {
      this.#lastBroughtMs = now;
      yield* this.#bringMore();
    }
    for (const process of [...this.#processes.values()])
      if (this.#restored && process.ranges.isEmpty && process.waiting.size === 0) this.#forget(process);
    const over = this.#connection === undefined && this.#socket.fd === undefined;
    if ((this.#restored && this.#processes.size === 0) || (over && !this.#restored)) {
      this.#finished = true;
      yield { kind: 'finished', complete: this.#restored };
    }
  }

  /** How long may be waited for events. */
  #patienceMs(timeoutMs: number): number {
    let patienceMs = timeoutMs;
    for (const { ranges, waiting, missing } of this.#processes.values()) {
      if (waiting.size === 0 && (ranges.isEmpty || !this.#restored)) continue;
      if (waiting.size === 0 && missing === undefined) return 0;
      patienceMs = retryMs;
    }
    return patienceMs;
  }

  #accept(): void {
    const fd = this.#socket.accept();
    if (fd === undefined) return;
    this.#connection = fd;
    setNonBlocking(fd, true);
    this.#poll.set(fd, POLLIN);
  }

  /** Takes what CRIU has sent. */
  #receive(connection: number): void {
    const bytes = new Uint8Array(new SharedArrayBuffer(4));
    for (;;) {
      // A descriptor comes with one byte, or so; the kernel does not join it with what follows.
      const message = receiveMessage(connection, bytes);
      if (message === undefined) return;
      const [fd, ...others] = message.descriptors;
      for (const other of others) close(other);
      if (message.length === 0) {
        this.#poll.delete(connection);
        close(connection);
        this.#connection = undefined;
        return;
      }
      if (this.#awaited !== undefined) {
        if (fd === undefined) throw unexpected('no descriptor after a PID');
        this.#add({ pid: this.#awaited, fd, ranges: this.#source.ranges(this.#awaited) });
        this.#awaited = undefined;
        continue;
      }
      if (fd !== undefined) {
        close(fd);
        throw unexpected('a descriptor without a PID');
      }
      if (message.length !== 4) throw unexpected(`${message.length} bytes instead of a PID`);
      const number = new DataView(bytes.buffer).getInt32(0, true);
      if (number === restoreFinished) this.#restored = true;
      else if (number > 0) this.#awaited = number;
    }
  }

  #add(process: Pick<LazyProcess, 'pid' | 'fd' | 'ranges'>): void {
    this.#processes.set(process.fd, {
      ...process,
      burst: faultBytes,
      waiting: new Set(),
      moved: [],
      missing: undefined,
    });
    this.#poll.set(process.fd, POLLIN);
  }

  #forget({ fd }: LazyProcess): void {
    this.#processes.delete(fd);
    this.#poll.delete(fd);
    close(fd);
  }

  /** Handles events of a process, some at a time. The kernel tells of faults first, and only then of what else has happened. */
  *#serve(process: LazyProcess): Generator<LazyEvent, void, void> {
    const { fd, ranges, moved } = process;
    for (let count = 0; count < eventsAtOnce && this.#processes.has(fd); count++) {
      const event = readMemoryEvent(fd);
      if (event === undefined) return;
      switch (event.kind) {
        case 'fault':
          process.burst = faultBytes;
          yield* this.#fault(process, event.address - (event.address % pageSize));
          break;
        case 'fork':
          this.#add({ pid: process.pid, fd: event.fd, ranges: ranges.clone() });
          break;
        case 'remap':
          ranges.move(event.from, event.to, event.length);
          moved.push({ start: event.from, end: event.from + event.length });
          break;
        case 'remove':
          ranges.drop(event.start, event.end);
          break;
        case 'unmap': {
          // Of what was moved away: by now something else may have been moved there.
          const known = moved.findIndex(({ start, end }) => start === event.start && end === event.end);
          if (known >= 0) moved.splice(known, 1);
          else ranges.drop(event.start, event.end);
        }
      }
    }
  }

  /** Tries again what could not be placed while mappings were being changed. */
  *#serveWaiting(process: LazyProcess): Generator<LazyEvent, void, void> {
    for (const address of [...process.waiting]) {
      if (!this.#processes.has(process.fd)) return;
      process.waiting.delete(address);
      yield* this.#fault(process, address);
    }
  }

  /** A thread waits for a page. It must not be woken before the page is there: it would fault at once again, and faults come before all other events. */
  *#fault(process: LazyProcess, address: number): Generator<LazyEvent, void, void> {
    if (process.ranges.at(address) !== undefined) yield* this.#bring(process, address, faultBytes);
    if (!this.#processes.has(process.fd)) return;
    if (process.ranges.at(address) !== undefined) {
      process.waiting.add(address);
      return;
    }
    // Given up, or never used; or brought just now.
    const { stopped } = placeZeros(process.fd, address, pageSize);
    if (stopped === 'ended') this.#forget(process);
    else if (stopped === 'changing') process.waiting.add(address);
    else if (stopped !== undefined) wakeWaiters(process.fd, address, pageSize);
  }

  /** One piece of what is still to come, of a process in turn. */
  *#bringMore(): Generator<LazyEvent, void, void> {
    for (const [fd, process] of this.#processes) {
      const next = process.ranges.last();
      if (next === undefined) continue;
      // The next time another one.
      this.#processes.delete(fd);
      this.#processes.set(fd, process);
      yield* this.#bring(process, Math.max(next.start, next.end - process.burst), process.burst);
      process.burst = Math.min(burstBytes, process.burst + faultBytes);
      return;
    }
  }

  /** Brings pages from an address on, at most `bytes`. */
  *#bring(process: LazyProcess, address: number, bytes: number): Generator<LazyEvent, void, void> {
    const range = process.ranges.at(address);
    if (range === undefined) return;
    const wanted = Math.min(bytes, range.end - address) / pageSize;
    const given = this.#source.read(process.pid, range.image, wanted, this.#buffer) * pageSize;
    let done = 0;
    for (let piece = given; done < given; ) {
      const at = address + done;
      const pages = this.#buffer.subarray(done, Math.min(given, done + piece));
      const { bytes: placed, stopped } = placePages(process.fd, at, pages);
      done += placed;
      if (placed > 0) process.missing = undefined;
      if (stopped === undefined) continue;
      if (stopped === 'ended') return this.#forget(process);
      // Events say what becomes of the rest.
      if (stopped === 'changing') break;
      if (stopped === 'present') {
        done += pageSize;
        wakeWaiters(process.fd, at, pageSize);
      } else if (piece > pageSize) piece = pageSize;
      else {
        // The end of the mapping, of which an event will tell; or the process never had it (a child, MADV_DONTFORK).
        if (done === 0 && this.#isHopeless(process, at)) done = given;
        break;
      }
    }
    process.ranges.drop(address, address + done);
    if (done > 0) yield { kind: 'pages', bytes: done };
  }

  /** Whether the mapping at an address has been missing so often that nothing more will be said of it. */
  #isHopeless(process: LazyProcess, address: number): boolean {
    const tries = process.missing?.address === address ? process.missing.tries + 1 : 1;
    process.missing = tries > patience ? undefined : { address, tries };
    return tries > patience;
  }

  /** Closes everything. Memory that has not been brought reads as zeros from now on: nobody may run any more who needs it. */
  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
    if (this.#connection !== undefined) close(this.#connection);
    this.#connection = undefined;
    for (const process of [...this.#processes.values()]) this.#forget(process);
    this.#finished = true;
  }
}

function unexpected(what: string): CairnError {
  return new CairnError('environment', 'criu-protocol', `CRIU sent ${what} for memory that comes later.`, {
    remedy: 'Use the CRIU version that `cairn doctor` asks for.',
  });
}
