import { CairnError } from '../errors.ts';
import { readMemory } from '../linux/memory.ts';
import { disksAreQuiet } from '../linux/quiet-disks.ts';

/** How the ring of io_setup(2) is called in the list of mappings. */
export const asynchronousRing = '/[aio]';

/** Longer than an I/O scheduler holds a request back while it waits for the next one (BFQ: 8 ms). */
const calmMs = 12;
const timeoutMs = 1000;
const ringMapping = /^([0-9a-f]+)-[0-9a-f]+ .* \/\[aio\]/gm;
/** Offset of the tail in the ring (linux/aio.c: struct aio_ring). */
const tailOffset = 12n;

/**
 * Waits until the requests of asynchronous I/O of a stopped process have completed. CRIU saves the ring with what has completed, and does not wait
 * (criu/pie/parasite.c: parasite_check_aios); what completes later is lost, and the program waits for it forever.
 *
 * The kernel does not tell how many requests there are. So: no block device has any under way, and no ring has moved, for 12 ms. Requests that wait for
 * something else than a disk are not seen (IOCB_CMD_POLL, network file systems, the `io.max` of a control group). Blocks the thread; throws `asynchronous-io` (temporary)
 * after 1 s.
 */
export function awaitRings(pid: number, smaps: string): void {
  const rings = [...smaps.matchAll(ringMapping)].map((match) => BigInt(`0x${match[1]}`));
  if (rings.length === 0) return;
  const deadline = performance.now() + timeoutMs;
  let before = '';
  let since = Number.POSITIVE_INFINITY;
  for (;;) {
    const now = disksAreQuiet() ? rings.map((ring) => tailOf(pid, ring)).join() : '';
    if (now === '' || now !== before) since = performance.now();
    else if (performance.now() - since >= calmMs) return;
    before = now;
    if (performance.now() > deadline)
      throw new CairnError(
        'temporary',
        'asynchronous-io',
        `process ${pid} of the host uses asynchronous I/O (io_setup), and disks did not come to rest within ${timeoutMs} ms`,
        {
          remedy:
            'try again when less is written, or switch it off in the program (MySQL: innodb_use_native_aio=0)',
        },
      );
    Atomics.wait(sleeper, 0, 0, 1);
  }
}

const sleeper = new Int32Array(new SharedArrayBuffer(4));

function tailOf(pid: number, ring: bigint): number {
  const tail = new Uint32Array(new SharedArrayBuffer(4));
  readMemory(pid, new Uint8Array(tail.buffer), BigUint64Array.of(ring + tailOffset, 4n), 1);
  return tail[0] as number;
}
