/** Timers of timerfd that CRIU would bring back other than they were. */

import { encodeRecord, nextRecord, recordsStart } from './image-file.ts';
import { decodeMessage, type Message } from './protobuf.ts';

/** `fd_types.TIMERFD` and the field of `file_entry` for it (images/fdinfo.proto). */
const timerfd = { type: 17, field: 12 };
/** Fields of `timerfd_entry` (images/timerfd.proto). */
const [clock, ticks, flags, seconds, nanoseconds, intervalSeconds, intervalNanoseconds] = [
  4, 5, 6, 7, 8, 9, 10,
];
const TFD_TIMER_ABSTIME = 1;
const CLOCK_MONOTONIC = 1;
const CLOCK_BOOTTIME = 7;

/**
 * Repairs the table of open files (`files.img`) of a dump, in which the time of a timer is what remained of it:
 *
 * - A periodic timer whose expiry was not read yet does not run: the kernel starts it anew with the read, and until then nothing
 *   remains. CRIU sets exactly that on a restore, which means "off". It gets its interval; what was not read stays to be read.
 * - Of a timer that was set to a point in time CRIU adds what remains to whole seconds of the clock (criu/pie/restorer.c), so that it
 *   fires up to a second early, and at once if it was off. It is set to what remains instead; only one that runs and follows
 *   the wall clock is left as it is.
 *
 * Pure; returns the image itself if nothing is to be done. Throws `image-damaged` (permanent).
 */
export function repairTimers(image: Uint8Array<ArrayBufferLike>): Uint8Array<ArrayBufferLike> {
  const name = 'files.img';
  const pieces: Uint8Array[] = [];
  let kept = 0;
  for (let at = recordsStart(image, 'files', name); ; ) {
    const record = nextRecord(image, at, name);
    if (record === undefined) break;
    const repaired = repairedEntry(decodeMessage(record.bytes));
    if (repaired !== undefined) {
      pieces.push(image.subarray(kept, at), ...encodeRecord(repaired));
      kept = record.next;
    }
    at = record.next;
  }
  return pieces.length === 0 ? image : Buffer.concat([...pieces, image.subarray(kept)]);
}

function repairedEntry(entry: Message): Message | undefined {
  if (entry.uint(1) !== timerfd.type) return undefined;
  const timer = entry.message(timerfd.field);
  if (timer === undefined) return undefined;
  const isZero = (...fields: number[]): boolean =>
    fields.every((field) => (timer.uint64(field) ?? 0n) === 0n);
  const waitsForRead =
    !isZero(ticks) && isZero(seconds, nanoseconds) && !isZero(intervalSeconds, intervalNanoseconds);
  if (waitsForRead)
    timer
      .set(seconds, timer.uint64(intervalSeconds) ?? 0n)
      .set(nanoseconds, timer.uint64(intervalNanoseconds) ?? 0n);
  const set = timer.uint(flags) ?? 0;
  const steady = [CLOCK_MONOTONIC, CLOCK_BOOTTIME].includes(timer.uint(clock) ?? 0);
  const isMisplaced = (set & TFD_TIMER_ABSTIME) !== 0 && (steady || isZero(seconds, nanoseconds));
  if (isMisplaced) timer.set(flags, set & ~TFD_TIMER_ABSTIME);
  return waitsForRead || isMisplaced ? entry.set(timerfd.field, timer.encode()) : undefined;
}
