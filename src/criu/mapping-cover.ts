import { closeSync, ftruncateSync, openSync, readFileSync, unlinkSync, writeSync } from 'node:fs';
import path from 'node:path';
import { systemCode } from '../errors.ts';
import { WriteLease } from '../linux/lease.ts';
import { isStopped, unlessGone } from '../linux/process.ts';
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
  readonly #shortens: boolean;
  #served = false;

  private constructor(cover: Cover, shortens: boolean) {
    this.cover = cover;
    this.#shortens = shortens;
    this.#lease = new WriteLease(cover.fd);
  }

  /** Makes the file in `directory`; `undefined` where there can be no lease. `shortens`: false where nobody lists the pages instead of CRIU. */
  static create(directory: string, pid: number, shortens = true): MappingCover | undefined {
    const file = path.join(directory, `smaps-${pid}`);
    const fd = openSync(file, 'wx', 0o600);
    try {
      return new MappingCover({ pid, file, fd }, shortens);
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
    const { pid, fd } = this.cover;
    // Somebody else may be looking at the file.
    if (this.#served || !this.#lease.wanted || !isStopped(pid)) return undefined;
    const smaps = unlessGone(() => readFileSync(`/proc/${pid}/smaps`, 'utf8')) ?? '';
    awaitRings(pid, smaps);
    const shown = this.#shortens ? shortenMappings(smaps) : { text: smaps, shortened: [] };
    this.#served = true;
    try {
      const bytes = Buffer.from(shown.text);
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
    } catch (error) {
      // With an empty file CRIU gives up; with half of it, it would not.
      ftruncateSync(fd);
      throw error;
    } finally {
      this.#lease.release();
    }
    return shown.shortened;
  }

  [Symbol.dispose](): void {
    closeSync(this.cover.fd);
  }
}

const head = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) [0-9a-f]+ [0-9a-f:]+ (\d+)\s*(.*)$/s;
const anonymous = /^($|\[heap\]$|\[anon:)/;
const anyHead = /^[0-9a-f]+-[0-9a-f]+ /;
const flagsLine = 'VmFlags:';

/**
 * What CRIU reads of `/proc/PID/smaps`, with long anonymous private mappings cut to their first page. Names may hold anything but line breaks. Pure.
 */
export function shortenMappings(smaps: string): { text: string; shortened: ShortenedMapping[] } {
  const shortened: ShortenedMapping[] = [];
  let text = '';
  let mapping = '';
  for (const line of smaps.split('\n')) {
    if (anyHead.test(line)) {
      if (mapping !== '') text += `${mapping}\n`;
      mapping = line;
    } else if (line.startsWith(flagsLine)) {
      const cut = cutOf(mapping, line.slice(flagsLine.length).split(' '));
      if (cut !== undefined) shortened.push(cut.mapping);
      text += `${cut?.line ?? mapping}\n${line}\n`;
      mapping = '';
    }
  }
  if (mapping !== '') text += `${mapping}\n`;
  return { text, shortened };
}

/** A mapping that is to be shown shorter, and its line then. */
function cutOf(
  line: string,
  flags: readonly string[],
): { mapping: ShortenedMapping; line: string } | undefined {
  const match = head.exec(line);
  if (match === null) return undefined;
  const [, from = '', to = '', permissions = '', inode, name = ''] = match;
  const start = Number.parseInt(from, 16);
  const end = Number.parseInt(to, 16);
  const suitable = permissions.endsWith('p') && inode === '0' && anonymous.test(name);
  // CRIU may move the beginning of one that grows downwards.
  if (!suitable || end - start < longBytes || flags.includes('gd')) return undefined;
  const rest = line.slice(from.length + 1 + to.length);
  return { mapping: { start, end }, line: `${from}-${(start + shownBytes).toString(16)}${rest}` };
}
