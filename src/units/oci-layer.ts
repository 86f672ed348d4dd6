/** Layers of OCI images: compressed tar archives with whiteouts (image-spec, "Image Layer Filesystem Changeset"). */

import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { chmod, lchown, link, lstat, mkdir, readdir, readlink, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { type Readable, Transform, type TransformCallback } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { extract, type Header } from 'tar-stream';
import { makeNode, setAttribute, setTimes } from '../linux/file.ts';

/** Passes bytes on and tells afterwards whether they had the digest (`sha256:HEX`) that they were to have. */
export class VerifiedStream extends Transform {
  readonly #expected: string | undefined;
  readonly #algorithm: string;
  readonly #hash;

  constructor(expected: string | undefined) {
    super();
    this.#expected = expected;
    this.#algorithm = expected?.split(':')[0] ?? 'sha256';
    this.#hash = createHash(this.#algorithm);
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  override _transform(bytes: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#hash.update(bytes);
    done(null, bytes);
  }

  /** The digest of all that has passed; once. */
  digest(): string {
    return `${this.#algorithm}:${this.#hash.digest('hex')}`;
  }

  /** Throws if it is not the expected digest. */
  verify(): void {
    const found = this.digest();
    if (this.#expected !== undefined && found !== this.#expected) {
      throw new Error(`the digest is ${found} and should be ${this.#expected}`);
    }
  }
}

/** Undoes gzip or zstd, recognised by the first bytes; anything else passes as it is. */
export async function* decompressed(source: Readable): AsyncGenerator<Buffer> {
  const pieces = source[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let first = Buffer.alloc(0);
  let next = await pieces.next();
  while (!next.done && first.length < 4) {
    first = Buffer.concat([first, next.value]);
    if (first.length < 4) next = await pieces.next();
  }
  const whole = async function* () {
    yield first;
    for (let piece = await pieces.next(); !piece.done; piece = await pieces.next()) yield piece.value;
  };
  if (first[0] === 0x1f && first[1] === 0x8b) yield* throughStream(whole(), createGunzip());
  else if (first.length >= 4 && first.readUInt32LE(0) === 0xfd2fb528) {
    yield* throughStream(whole(), createZstdDecompress());
  } else yield* whole();
}

async function* throughStream(source: AsyncIterable<Buffer>, transform: Transform): AsyncGenerator<Buffer> {
  const done = pipeline(source, transform);
  // Errors show when the transform is read, or nobody is interested any more.
  done.catch(() => {});
  transform.on('error', () => {});
  yield* transform as AsyncIterable<Buffer>;
  await done;
}

/** Writes the plain files of an archive into a directory; for an archived layout, which has nothing else of interest. */
export async function unpackPlainFiles(source: Readable, directory: string): Promise<void> {
  await eachEntry(decompressed(source), undefined, async (header, content) => {
    const name = relativeName(header.name);
    if (header.type !== 'file' || name === '') return skip(content);
    const file = path.join(directory, name);
    await mkdir(path.dirname(file), { recursive: true });
    await pipeline(content, createWriteStream(file, { flags: 'wx', mode: 0o600 }));
  });
}

/** Applies a layer to a root file system; `content` sees the uncompressed bytes. Throws on names that lead outside. */
export async function unpackLayer(
  source: AsyncIterable<Buffer>,
  content: VerifiedStream,
  rootfs: string,
): Promise<void> {
  const layer = new Layer(rootfs);
  await eachEntry(source, content, (header, body) => layer.apply(header, body));
  await layer.finish();
}

async function eachEntry(
  source: AsyncIterable<Buffer>,
  through: Transform | undefined,
  act: (header: Header, content: Readable) => Promise<void>,
): Promise<void> {
  const tar = extract();
  // Its own asynchronous iterator never ends if the loop is left by an error.
  tar.on('entry', (header, content, next) => {
    // When the archive breaks off, its current entry tells so too, perhaps after everyone has left.
    content.on('error', () => {});
    act(header, content as unknown as Readable).then(() => next(), next);
  });
  // The types of its streams are not those of Node.js, the streams are.
  const end = tar as unknown as NodeJS.WritableStream;
  await (through === undefined ? pipeline(source, end) : pipeline(source, through, end));
}

async function skip(content: Readable): Promise<void> {
  for await (const _ of content) {
    // Read to the next entry.
  }
}

/** The name without leading `./` and `/`. Throws on one with `..`. */
function relativeName(name: string): string {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) throw new Error(`it has an entry '${name}' that leads out of the image`);
  return parts.join('/');
}

const whiteout = '.wh.';
const opaqueWhiteout = '.wh..wh..opq';

/** Only these: `trusted.overlay.*` of a layer would change how the overlay of a unit works. */
const keptAttributes = /^SCHILY\.xattr\.(security\.capability|user\..+)$/;

const S_IFIFO = 0o010000;

/** One layer being applied. */
class Layer {
  readonly #rootfs: string;
  /** What this layer has brought: whiteouts concern only what was there before. */
  readonly #own = new Set<string>();
  /** Times of directories are set at the end, since every new entry changes them. */
  readonly #directoryTimes = new Map<string, bigint>();

  constructor(rootfs: string) {
    this.#rootfs = rootfs;
  }

  async apply(header: Header, content: Readable): Promise<void> {
    const name = relativeName(header.name);
    const base = path.basename(name);
    if (base.startsWith(whiteout)) {
      await this.#whiteOut(path.dirname(name), base);
      return skip(content);
    }
    const file = name === '' ? this.#rootfs : path.join(await this.#directory(path.dirname(name)), base);
    this.#own.add(file);
    await this.#make(file, header, content);
    await skip(content);
  }

  async #make(file: string, header: Header, content: Readable): Promise<void> {
    const { uid, gid, mode } = header;
    const there = await lstat(file).catch(() => undefined);
    const isDirectory = header.type === 'directory';
    if (there !== undefined && !(isDirectory && there.isDirectory())) {
      await rm(file, { recursive: true, force: true });
    }
    switch (header.type) {
      case 'directory':
        await mkdir(file, { recursive: true });
        break;
      case 'file':
      case 'contiguous-file':
        await pipeline(content, createWriteStream(file, { flags: 'wx', mode: 0o600 }));
        break;
      case 'symlink':
        await symlink(header.linkname, file);
        break;
      case 'link': {
        const target = relativeName(header.linkname);
        await link(path.join(await this.#directory(path.dirname(target)), path.basename(target)), file);
        // It shares owner, mode and times with its target.
        return;
      }
      case 'fifo':
        makeNode(file, S_IFIFO | 0o600);
        break;
      default:
        // Device nodes would be of no use: a unit's root is mounted without devices.
        this.#own.delete(file);
        return;
    }
    await lchown(file, uid, gid);
    if (header.type !== 'symlink') await chmod(file, mode & 0o7777);
    for (const [key, value] of Object.entries((header.pax ?? {}) as Record<string, string>)) {
      const attribute = keptAttributes.exec(key)?.[1];
      // The library decodes values as text; one in which that lost bytes is better missing than wrong.
      if (attribute !== undefined && !value.includes('\ufffd'))
        setAttribute(file, attribute, Buffer.from(value));
    }
    const time = BigInt(Math.round(header.mtime.getTime() * 1000)) * 1000n;
    if (isDirectory) this.#directoryTimes.set(file, time);
    else setTimes(file, time, time);
  }

  async #whiteOut(parent: string, base: string): Promise<void> {
    const directory = await this.#directory(parent === '.' ? '' : parent);
    const names = base === opaqueWhiteout ? await readdir(directory) : [base.slice(whiteout.length)];
    for (const name of names) {
      // A name cannot be empty or `..`: `.wh...` would otherwise remove the parent.
      if (name === '' || name === '.' || name === '..') throw new Error(`it has a whiteout '${base}'`);
      const file = path.join(directory, name);
      if (!this.#own.has(file)) await rm(file, { recursive: true, force: true });
    }
  }

  /**
   * The directory of that name in the root file system, made if missing. Symbolic links of the image are followed as they
   * would be in the unit, that is, without ever leaving the root file system.
   */
  async #directory(name: string): Promise<string> {
    const waiting = name.split('/').filter((part) => part !== '' && part !== '.');
    let inside: string[] = [];
    for (let links = 0; ; ) {
      const part = waiting.shift();
      if (part === undefined) return path.join(this.#rootfs, ...inside);
      if (part === '..') {
        inside = inside.slice(0, -1);
        continue;
      }
      const candidate = path.join(this.#rootfs, ...inside, part);
      const there = await lstat(candidate).catch(() => undefined);
      if (there?.isSymbolicLink()) {
        links += 1;
        if (links > 40) throw new Error(`it has a loop of symbolic links at '${name}'`);
        const target = await readlink(candidate);
        if (target.startsWith('/')) inside = [];
        waiting.unshift(...target.split('/').filter((p) => p !== '' && p !== '.'));
        continue;
      }
      if (there === undefined) await mkdir(candidate, { mode: 0o755 });
      else if (!there.isDirectory()) throw new Error(`'${name}' lies below something that is no directory`);
      inside.push(part);
    }
  }

  async finish(): Promise<void> {
    for (const [directory, time] of this.#directoryTimes) {
      if ((await lstat(directory).catch(() => undefined))?.isDirectory()) setTimes(directory, time, time);
    }
  }
}
