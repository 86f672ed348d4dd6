/** Pseudo terminals (pty(7)) of a devpts instance, and their window size. */

import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import type { Socket } from 'node:net';
import path from 'node:path';
import { PassThrough, type Readable, type Writable } from 'node:stream';
import { ReadStream } from 'node:tty';
import { ioctl } from '../linux/libc.ts';

// asm-generic/ioctls.h
const TIOCSWINSZ = 0x5414;
const TIOCGPTN = 0x80045430;
const TIOCSPTLCK = 0x40045431;

/** Window size in characters. */
export interface TerminalSize {
  columns: number;
  rows: number;
}

/** Sets the window size; the foreground process group of the terminal gets SIGWINCH if it changes. */
export function setTerminalSize(fd: number, size: TerminalSize): void {
  // struct winsize: rows, columns, two unused.
  ioctl(fd, TIOCSWINSZ, new Uint8Array(Uint16Array.of(size.rows, size.columns, 0, 0).buffer));
}

/** Number of the pseudo terminal of a master. */
export function terminalIndex(master: number): number {
  const index = new Int32Array(1);
  ioctl(master, TIOCGPTN, new Uint8Array(index.buffer));
  return index[0] ?? -1;
}

/** Opens the slave side number `index` of a mounted devpts without making it anyone's controlling terminal. */
export function openSlave(devpts: string, index: number): number {
  return openSync(path.join(devpts, String(index)), constants.O_RDWR | constants.O_NOCTTY);
}

/**
 * Makes a pair in a mounted devpts instance. In a fresh instance it is number 0, and the terminal that a restored program
 * finds has the number it knew.
 */
export function openTerminal(devpts: string): { master: number; slave: number; index: number } {
  const master = openSync(path.join(devpts, 'ptmx'), constants.O_RDWR | constants.O_NOCTTY);
  try {
    ioctl(master, TIOCSPTLCK, new Uint8Array(4));
    const index = terminalIndex(master);
    return { master, slave: openSlave(devpts, index), index };
  } catch (error) {
    closeSync(master);
    throw error;
  }
}

/** How CRIU names a terminal that is external to a dump: `tty[RDEV:DEV]`, hexadecimal. */
export function terminalKey(slave: number): string {
  const { rdev, dev } = fstatSync(slave);
  return `tty[${rdev.toString(16)}:${dev.toString(16)}]`;
}

/** Reads and writes a master. That every slave has been closed is the end of its output, not an error (EIO). */
export function openMaster(master: number): { input: Writable; output: Readable } {
  // A tty.ReadStream is a socket, writable too, though its type does not say so.
  const stream = new ReadStream(master) as unknown as Socket;
  const output = new PassThrough();
  stream.on('data', (bytes) => {
    if (output.write(bytes)) return;
    stream.pause();
    output.once('drain', () => stream.resume());
  });
  stream.on('error', () => {});
  stream.on('close', () => output.end());
  return { input: stream, output };
}
