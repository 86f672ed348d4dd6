import { CairnError } from '../errors.ts';
import { decodeImage, pagemapId, pagesId } from '../criu/image-file.ts';
import { decodePagemap } from '../criu/pagemap.ts';
import { repairTimers } from '../criu/timerfd-repair.ts';
import { inlineLimitBytes } from '../store/format.ts';
import type { ArrivedMappings, ReceivedImage } from './capture-protocol.ts';
import type { StreamSink } from './layer-read.ts';

/** Images that are kept as bytes while they arrive; a larger one goes into the store piece by piece. */
const bufferedBytes = 64 * 1024;
const blockBytes = 64 * 1024;
/** The table of unlinked files. */
const remaps = 'remap-fpath.img';
/** Of its entries: the file has another name, and gets a new one for the restore (`link_remap.N`). */
const linkedRemap = 0;
/** The table of open files, which is repaired as a whole. */
const openFiles = 'files.img';

/** Code of the error for a dump that did not hold although it had to; see `DumpHook`. */
export const linksNotHeld = 'links-not-held';

/** A page map that has arrived: of a process (PID inside the unit), or of shared memory. */
export interface ArrivedPagemap {
  pid: number;
  /** `[address, pages, flags] …` */
  runs: Float64Array<ArrayBufferLike>;
  pagesId: number;
}

/**
 * Takes the images of a dump as they arrive, several at once, and decides what to do with each.
 *
 * Memory of processes is not taken from CRIU: its page maps say which pages there are, and Cairn reads all of them itself
 * from the frozen process. So `pages-N.img` is thrown away where N belongs to a process; for shared memory it is kept. Which
 * of the two it is follows from the order: CRIU opens a pages file right after its page map.
 */
export class ImageCollector {
  readonly #openSink: () => StreamSink;
  readonly #onPagemap: (pagemap: ArrivedPagemap) => void;
  readonly #onMappings: (arrived: ArrivedMappings) => void;
  readonly #open = new Map<number, OpenImage>();
  readonly #done: ReceivedImage[] = [];
  /** The page map that waits for its pages file. */
  #lastPagemap: string | undefined;
  /** pages_id that each discarded file has, to be confirmed by the page map itself. */
  readonly #discarded = new Set<number>();
  readonly #ofProcesses = new Set<number>();
  #linkedRemaps = false;

  constructor(
    openSink: () => StreamSink,
    onPagemap: (pagemap: ArrivedPagemap) => void,
    onMappings: (arrived: ArrivedMappings) => void,
  ) {
    this.#openSink = openSink;
    this.#onPagemap = onPagemap;
    this.#onMappings = onMappings;
  }

  get openImages(): number {
    return this.#open.size;
  }

  open(stream: number, name: string): void {
    const pages = pagesId(name);
    let image: OpenImage;
    if (pages !== undefined && isProcessPagemap(this.#lastPagemap)) {
      this.#discarded.add(pages);
      image = { kind: 'discard', name };
    } else if (isProcessPagemap(name)) image = { kind: 'pagemap', name, pieces: [] };
    else if (name === openFiles || name === remaps || mappingsOf(name) !== undefined)
      image = { kind: 'whole', name, pieces: [] };
    else image = { kind: 'keep', name, pieces: [], bytes: 0, sink: undefined };
    if (pages !== undefined) this.#lastPagemap = undefined;
    else if (pagemapId(name) !== undefined) this.#lastPagemap = name;
    this.#open.set(stream, image);
  }

  data(stream: number, bytes: Uint8Array): void {
    const image = this.#expect(stream);
    if (image.kind === 'discard') return;
    image.pieces.push(Buffer.from(bytes));
    if (image.kind !== 'keep') return;
    image.bytes += bytes.byteLength;
    if (image.bytes <= bufferedBytes && image.sink === undefined) return;
    image.sink ??= this.#openSink();
    this.#drain(image, image.sink, false);
  }

  end(stream: number): void {
    const image = this.#expect(stream);
    this.#open.delete(stream);
    if (image.kind === 'discard') return;
    if (image.kind === 'pagemap') {
      this.#arrived(image.name, Buffer.concat(image.pieces));
      return;
    }
    if (image.kind === 'whole') {
      const whole = Buffer.concat(image.pieces);
      if (image.name === remaps) this.#look(whole);
      const pid = mappingsOf(image.name);
      if (pid !== undefined) this.#onMappings({ pid, image: new Uint8Array(whole) });
      const kept = image.name === openFiles ? Buffer.from(repairTimers(whole)) : whole;
      this.#finish({
        kind: 'keep',
        name: image.name,
        pieces: [kept],
        bytes: kept.length,
        sink: undefined,
      });
      return;
    }
    this.#finish(image);
  }

  #look(image: Buffer): void {
    // The type is the third field and absent if it is the first value.
    this.#linkedRemaps ||= decodeImage(image, 'remap-fpath').some(
      (entry) => (entry.uint(3) ?? linkedRemap) === linkedRemap,
    );
  }

  #finish(image: KeptImage): void {
    if (image.sink === undefined) {
      const all = Buffer.concat(image.pieces);
      if (all.length <= inlineLimitBytes) {
        this.#done.push({ name: image.name, content: { size: all.length, inline: new Uint8Array(all) } });
        return;
      }
      image.sink = this.#openSink();
    }
    this.#drain(image, image.sink, true);
    this.#done.push({ name: image.name, content: image.sink.end() });
  }

  /**
   * All images that are complete. `held`: CRIU stopped at `post-dump`. Throws `links-not-held` (temporary) if it had to and did not, and
   * `image-order` (permanent) if pages were thrown away that no process page map named.
   */
  finish(held: boolean): ReceivedImage[] {
    if (this.#linkedRemaps && !held)
      throw new CairnError(
        'temporary',
        linksNotHeld,
        'a file was unlinked that has another name, just before the job was frozen',
      );
    for (const id of this.#discarded)
      if (!this.#ofProcesses.has(id))
        throw new CairnError(
          'permanent',
          'image-order',
          `CRIU wrote pages-${id}.img out of the expected order`,
          {
            remedy: 'please report this with the version of CRIU',
          },
        );
    return this.#done;
  }

  #arrived(name: string, bytes: Buffer): void {
    const { pagesId: id, runs } = decodePagemap(bytes, name);
    this.#ofProcesses.add(id);
    this.#onPagemap({ pid: pagemapId(name)?.id ?? 0, runs, pagesId: id });
  }

  /** Passes on whole blocks, and at the end the rest. */
  #drain(image: KeptImage, sink: StreamSink, all: boolean): void {
    const held = Buffer.concat(image.pieces);
    const whole = all ? held.length : held.length - (held.length % blockBytes);
    if (whole > 0) sink.push(held.subarray(0, whole));
    image.pieces.length = 0;
    if (whole < held.length) image.pieces.push(Buffer.from(held.subarray(whole)));
  }

  #expect(stream: number): OpenImage {
    const image = this.#open.get(stream);
    if (image === undefined) throw new Error(`image stream ${stream} is not open`);
    return image;
  }
}

type KeptImage = {
  kind: 'keep';
  name: string;
  pieces: Buffer[];
  bytes: number;
  sink: StreamSink | undefined;
};
type OpenImage =
  | KeptImage
  | { kind: 'pagemap'; name: string; pieces: Buffer[] }
  | { kind: 'whole'; name: string; pieces: Buffer[] }
  | { kind: 'discard'; name: string };

/** PID of the process whose mappings are in an image of this name. */
function mappingsOf(name: string): number | undefined {
  const pid = /^mm-(\d+)\.img$/.exec(name)?.[1];
  return pid === undefined ? undefined : Number(pid);
}

function isProcessPagemap(name: string | undefined): boolean {
  return name !== undefined && pagemapId(name)?.kind === 'process';
}
