/**
 * OCI images (image-spec 1.1): a layout directory, or an archive of one (tar, also compressed; what `podman save
 * --format oci-archive`, `skopeo` and `docker save` write). An image is unpacked once and shared by all its units.
 */

import { createReadStream, existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream';
import { CairnError, messageOf } from '../errors.ts';
import { syncFileSystem } from '../linux/file.ts';
import { decompressed, unpackLayer, unpackPlainFiles, VerifiedStream } from './oci-layer.ts';

/** What an image says about the command to run in it. */
export interface ImageConfig {
  entrypoint: string[];
  command: string[];
  environment: Record<string, string>;
  /** As `resolveUser` takes it; empty for root. */
  user: string;
  workingDirectory: string;
}

/** An image that is unpacked. */
export interface LoadedImage {
  /** Digest of its configuration, which is what names an image: `sha256:…`. */
  digest: string;
  rootfs: string;
  config: ImageConfig;
}

/** A blob of the layout: where it lies and what it must be. */
interface Blob {
  file: string;
  digest: string | undefined;
}

interface ImageParts {
  config: Blob;
  layers: Blob[];
}

/** Larger JSON documents are no manifests. */
const longestDocument = 16 * 2 ** 20;

/**
 * Unpacks an image into `directory/ALGORITHM-DIGEST` unless it is there. `reference` chooses among several images: a tag or
 * name as in the annotation `org.opencontainers.image.ref.name`.
 *
 * Throws `image-missing`, `image-reference-unknown` (argument), `image-damaged`, `image-unsupported` (permanent).
 */
export async function loadImage(directory: string, source: string, reference?: string): Promise<LoadedImage> {
  const kind = await stat(source).catch((cause: unknown) => {
    throw new CairnError('argument', 'image-missing', `There is no image at ${source}: ${messageOf(cause)}`, {
      cause,
      remedy: 'Give the path of an image archive or layout: oci:PATH or oci:PATH@REFERENCE.',
    });
  });
  await mkdir(directory, { recursive: true, mode: 0o700 });
  if (kind.isDirectory()) return unpackImage(directory, source, reference);
  const layout = await mkdtemp(path.join(directory, '.archive-'));
  try {
    await unpackPlainFiles(createReadStream(source), layout).catch((cause: unknown) => {
      throw damaged(source, `it is no tar archive: ${messageOf(cause)}`, cause);
    });
    return await unpackImage(directory, layout, reference, source);
  } finally {
    await rm(layout, { recursive: true, force: true });
  }
}

async function unpackImage(
  directory: string,
  layout: string,
  reference: string | undefined,
  name: string = layout,
): Promise<LoadedImage> {
  const parts = await findParts(layout, reference, name);
  const configBytes = await readVerified(parts.config, name);
  const { config, diffIds, digest } = parseConfig(configBytes, name);
  if (diffIds.length !== parts.layers.length) {
    throw damaged(name, `it has ${parts.layers.length} layers, its configuration tells of ${diffIds.length}`);
  }
  const target = path.join(directory, digest.replace(':', '-'));
  const image = { digest, rootfs: path.join(target, 'rootfs'), config };
  if (existsSync(target)) return image;
  const temporary = await mkdtemp(path.join(directory, '.unpack-'));
  try {
    const rootfs = path.join(temporary, 'rootfs');
    await mkdir(rootfs, { mode: 0o755 });
    for (const [i, layer] of parts.layers.entries()) await unpackBlob(layer, diffIds[i], rootfs, name);
    await writeFile(path.join(temporary, 'config.json'), configBytes, { mode: 0o600 });
    const handle = await open(temporary);
    try {
      syncFileSystem(handle.fd);
    } finally {
      await handle.close();
    }
    await rename(temporary, target).catch((error: NodeJS.ErrnoException) => {
      // Someone else has unpacked the same image meanwhile.
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return image;
}

async function unpackBlob(
  layer: Blob,
  diffId: string | undefined,
  rootfs: string,
  name: string,
): Promise<void> {
  if (!existsSync(layer.file)) throw damaged(name, `the layer ${layer.digest ?? layer.file} is missing`);
  const blob = new VerifiedStream(layer.digest);
  const content = new VerifiedStream(diffId);
  try {
    // An error of the file shows when the blob is read.
    pipeline(createReadStream(layer.file), blob, () => {});
    await unpackLayer(decompressed(blob), content, rootfs);
    blob.verify();
    content.verify();
  } catch (cause) {
    if (cause instanceof CairnError) throw cause;
    throw damaged(name, `layer ${layer.digest ?? path.basename(layer.file)}: ${messageOf(cause)}`, cause);
  }
}

/** Finds configuration and layers of the wanted image in a layout. */
async function findParts(layout: string, reference: string | undefined, name: string): Promise<ImageParts> {
  if (existsSync(path.join(layout, 'index.json'))) {
    const index = await readDocument(path.join(layout, 'index.json'), name);
    return partsOfIndex(layout, index, reference, name, 0);
  }
  if (existsSync(path.join(layout, 'manifest.json'))) return dockerParts(layout, reference, name);
  throw new CairnError('argument', 'image-missing', `${name} is no OCI image: it has no index.json.`);
}

type Json = Record<string, unknown>;

async function partsOfIndex(
  layout: string,
  index: Json,
  reference: string | undefined,
  name: string,
  depth: number,
): Promise<ImageParts> {
  const manifests = (Array.isArray(index.manifests) ? index.manifests : []) as Json[];
  const chosen = choose(manifests, reference, name);
  const blob = blobOf(layout, chosen, name);
  const document = JSON.parse((await readVerified(blob, name)).toString('utf8')) as Json;
  if (Array.isArray(document.manifests)) {
    // An image for several platforms is an index in the index; more than that is not an image.
    if (depth > 2) throw damaged(name, 'its indexes are nested too deeply');
    return partsOfIndex(layout, document, undefined, name, depth + 1);
  }
  const layers = (Array.isArray(document.layers) ? document.layers : []) as Json[];
  return {
    config: blobOf(layout, (document.config ?? {}) as Json, name),
    layers: layers.map((layer) => blobOf(layout, layer, name)),
  };
}

/** The manifest of the wanted name, or the only one, or the one for this machine. */
function choose(manifests: readonly Json[], reference: string | undefined, name: string): Json {
  const refOf = (manifest: Json) =>
    String((manifest.annotations as Json | undefined)?.['org.opencontainers.image.ref.name'] ?? '');
  const named = reference === undefined ? manifests : manifests.filter((m) => isNamed(refOf(m), reference));
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  const fits = named.filter((manifest) => {
    const platform = manifest.platform as Json | undefined;
    return platform === undefined || (platform.os === 'linux' && platform.architecture === architecture);
  });
  const [first, ...others] = fits;
  if (first !== undefined && others.length === 0) return first;
  const known = manifests.map(refOf).filter((ref) => ref !== '');
  const what = reference === undefined ? 'one image' : `the image '${reference}'`;
  throw new CairnError(
    'argument',
    'image-reference-unknown',
    `${name} does not hold exactly ${what} for linux/${architecture}; it has ${known.join(', ') || 'none with a name'}.`,
    { remedy: 'Name the image with oci:PATH@REFERENCE.' },
  );
}

/** `latest`, `alpine:latest` and `docker.io/library/alpine:latest` may all mean the same. */
function isNamed(ref: string, reference: string): boolean {
  return ref === reference || ref.endsWith(`:${reference}`) || ref.endsWith(`/${reference}`);
}

function blobOf(layout: string, descriptor: Json, name: string): Blob {
  const digest = String(descriptor.digest ?? '');
  // Only this form: a digest becomes a path.
  const match = /^(sha256|sha512):([0-9a-f]{64,128})$/.exec(digest);
  if (match === null) throw damaged(name, `'${digest.slice(0, 100)}' is no digest`);
  return { file: path.join(layout, 'blobs', match[1] ?? '', match[2] ?? ''), digest };
}

/** The older form of `docker save`: no digests, but the configuration has those of the unpacked layers. */
async function dockerParts(layout: string, reference: string | undefined, name: string): Promise<ImageParts> {
  const list = (await readDocument(path.join(layout, 'manifest.json'), name)) as unknown as Json[];
  const tagsOf = (entry: Json) => (Array.isArray(entry.RepoTags) ? entry.RepoTags.map(String) : []);
  const found = list.filter(
    (entry) => reference === undefined || tagsOf(entry).some((tag) => isNamed(tag, reference)),
  );
  const [entry, ...others] = found;
  if (entry === undefined || others.length > 0) return choose([], reference, name) as never;
  const inside = (file: unknown): Blob => {
    const text = String(file);
    if (!/^[\w./-]+$/.test(text) || text.split('/').includes('..'))
      throw damaged(name, `it refers to ${text}`);
    return { file: path.join(layout, text), digest: undefined };
  };
  return { config: inside(entry.Config), layers: (entry.Layers as unknown[]).map(inside) };
}

async function readDocument(file: string, name: string): Promise<Json> {
  try {
    return JSON.parse((await readVerified({ file, digest: undefined }, name)).toString('utf8')) as Json;
  } catch (cause) {
    if (cause instanceof CairnError) throw cause;
    throw damaged(name, `${path.basename(file)}: ${messageOf(cause)}`, cause);
  }
}

async function readVerified(blob: Blob, name: string): Promise<Buffer> {
  const { size } = await stat(blob.file).catch((cause: unknown) => {
    throw damaged(name, `${blob.digest ?? path.basename(blob.file)} is missing`, cause);
  });
  if (size > longestDocument) throw damaged(name, `${path.basename(blob.file)} is too large for a document`);
  const bytes = await readFile(blob.file);
  const check = new VerifiedStream(blob.digest);
  check.update(bytes);
  try {
    check.verify();
  } catch (cause) {
    throw damaged(name, messageOf(cause), cause);
  }
  return bytes;
}

function parseConfig(
  bytes: Buffer,
  name: string,
): { config: ImageConfig; diffIds: string[]; digest: string } {
  let document: Json;
  try {
    document = JSON.parse(bytes.toString('utf8')) as Json;
  } catch (cause) {
    throw damaged(name, `its configuration: ${messageOf(cause)}`, cause);
  }
  if (document.os !== undefined && document.os !== 'linux') {
    throw new CairnError('permanent', 'image-unsupported', `${name} is an image for ${String(document.os)}.`);
  }
  const config = (document.config ?? {}) as Json;
  const texts = (value: unknown) => (Array.isArray(value) ? value.map(String) : []);
  const rootfs = (document.rootfs ?? {}) as Json;
  const digest = new VerifiedStream(undefined);
  digest.update(bytes);
  return {
    diffIds: texts(rootfs.diff_ids),
    digest: digest.digest(),
    config: {
      entrypoint: texts(config.Entrypoint),
      command: texts(config.Cmd),
      environment: Object.fromEntries(
        texts(config.Env).map((entry) => {
          const equals = entry.indexOf('=');
          return equals < 0 ? [entry, ''] : [entry.slice(0, equals), entry.slice(equals + 1)];
        }),
      ),
      user: String(config.User ?? ''),
      workingDirectory: String(config.WorkingDir ?? '') || '/',
    },
  };
}

function damaged(name: string, why: string, cause?: unknown): CairnError {
  return new CairnError('permanent', 'image-damaged', `The image ${name} is damaged: ${why}.`, { cause });
}

/** What to run in an image: a command given by the user replaces the image's, its entry point stays. */
export function commandOf(config: ImageConfig, given: readonly string[]): string[] {
  return [...config.entrypoint, ...(given.length > 0 ? given : config.command)];
}
