import { closeSync, openSync, readFileSync, unlinkSync, writeSync } from 'node:fs';
import path from 'node:path';
import { systemCode } from '../errors.ts';
import { WriteLease } from '../linux/lease.ts';
import { unlessGone } from '../linux/process.ts';
import { awaitRings } from './asynchronous-io.ts';
import type { Cover } from './covered-command.ts';

/** A mapping of which CRIU has seen only the first page. */
export interface ShortenedMapping {
  start: number;
  /** Where it really ends. */
  end: number;
}

/** Mappings that are shorter are shown as they are. */
const longBytes = 256 * 1024;
const shownBytes = 4096;

/**
 * Stands in for `/proc/PID/smaps` of a process in front of one CRIU: it says the same, except that long anonymous mappings are one page short.
 *
 * What CRIU does about memory while a process is frozen takes time for each page of its private mappings, used or not: it sets up a list with an
 * entry for each, copies that into the process, and puts references to the pages into pipes (criu/mem.c). Cairn reads the memory itself, and
 * knows which pages there are, so all this is for nothing. With mappings of one page it takes no time; their true ends are put into
 * `mm-PID.img` afterwards (`withWholeMappings`).
 *
 * The file has a lease: CRIU waits at its open, at a moment when the process is stopped, until it has been written, and until requests of
 * asynchronous I/O have completed. If this daemon dies, CRIU reads
 * an empty file, and gives up.
 */
export class MappingCover implements Disposable {
  readonly cover: Cover;
  readonly #lease: WriteLease;
  #served = false;

  private constructor(cover: Cover) {
    this.cover = cover;
    this.#lease = new WriteLease(cover.fd);
  }

  /** Makes the file in `directory`; `undefined` where there can be no lease. */
  static create(directory: string, pid: number): MappingCover | undefined {
    const file = path.join(directory, `smaps-${pid}`);
    const fd = openSync(file, 'wx', 0o600);
    try {
      return new MappingCover({ pid, file, fd });
    } catch (error) {
      closeSync(fd);
      unlinkSync(file);
      if (['EAGAIN', 'EINVAL', 'EACCES'].includes(systemCode(error) ?? '')) return undefined;
      throw error;
    }
  }

  get served(): boolean {
    return this.#served;
  }

  /** If CRIU waits for it: lets it go on, and returns what was shortened. Throws `asynchronous-io` (temporary); see `awaitRings`. */
  serve(): ShortenedMapping[] | undefined {
    if (this.#served || !this.#lease.wanted) return undefined;
    const { pid, fd } = this.cover;
    const smaps = unlessGone(() => readFileSync(`/proc/${pid}/smaps`, 'utf8')) ?? '';
    awaitRings(pid, smaps);
    const shown = shortenMappings(smaps);
    writeSync(fd, shown.text);
    this.#served = true;
    this.#lease.release();
    return shown.shortened;
  }

  [Symbol.dispose](): void {
    closeSync(this.cover.fd);
  }
}

const head = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) [0-9a-f]+ [0-9a-f:]+ (\d+)\s*(.*)$/;
const anonymous = /^($|\[heap\]$|\[anon:)/;
const flagsLine = 'VmFlags:';

/** What CRIU reads of `/proc/PID/smaps`, with long anonymous private mappings cut to their first page. Pure. */
export function shortenMappings(smaps: string): { text: string; shortened: ShortenedMapping[] } {
  const shortened: ShortenedMapping[] = [];
  let text = '';
  let last: RegExpExecArray | null = null;
  for (const line of smaps.split('\n')) {
    const match = head.exec(line);
    if (match !== null) last = match;
    else if (line.startsWith(flagsLine) && last !== null) {
      const [whole, from = '', to = '', permissions = '', inode, name = ''] = last;
      const start = Number.parseInt(from, 16);
      const end = Number.parseInt(to, 16);
      // CRIU may move the beginning of one that grows downwards.
      const grows = line.slice(flagsLine.length).split(' ').includes('gd');
      if (
        end - start >= longBytes &&
        permissions.endsWith('p') &&
        inode === '0' &&
        anonymous.test(name) &&
        !grows
      ) {
        shortened.push({ start, end });
        text += `${from}-${(start + shownBytes).toString(16)}${whole.slice(from.length + 1 + to.length)}\n`;
      } else text += `${whole}\n`;
      text += `${line}\n`;
      last = null;
    }
  }
  return { text, shortened };
}
