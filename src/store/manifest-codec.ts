import { ChunkList } from './chunk-list.ts';
import type { LayerEntry, LayerImage, SnapshotManifest, StoredStream, UnitImage } from './manifest.ts';

/**
 * The plain body of a manifest: u32 length of a JSON text, the text (UTF-8), a binary section. In the text every stream is
 * `[size, offset, kind]`: offset in the binary section, kind 0 for a chunk list (u32 count, lengths, names), 1 for `size`
 * bytes as they are.
 */
export function encodeManifestBody(manifest: SnapshotManifest): Buffer {
  const pieces: { at: number; stream: StoredStream }[] = [];
  let binaryBytes = 0;
  const place = (stream: StoredStream): EncodedStream => {
    const at = binaryBytes;
    const inline = stream.chunks instanceof Uint8Array;
    pieces.push({ at, stream });
    binaryBytes += stream.chunks instanceof Uint8Array ? stream.chunks.length : stream.chunks.serializedBytes;
    return [stream.size, at, inline ? 1 : 0];
  };
  const units = manifest.units.map((unit) => ({
    ...unit,
    images: unit.images.map((image) => ({ ...image, content: place(image.content) })),
    layers: unit.layers.map((layer) => ({
      ...layer,
      entries: layer.entries.map((entry) =>
        entry.content === undefined ? entry : { ...entry, content: place(entry.content) },
      ),
    })),
  }));
  const text = Buffer.from(JSON.stringify({ ...manifest, units }));
  const body = Buffer.allocUnsafe(4 + text.length + binaryBytes);
  body.writeUInt32LE(text.length, 0);
  text.copy(body, 4);
  const start = 4 + text.length;
  for (const { at, stream } of pieces) {
    if (stream.chunks instanceof Uint8Array) body.set(stream.chunks, start + at);
    else stream.chunks.serializeInto(body, start + at);
  }
  return body;
}

type EncodedStream = [size: number, offset: number, kind: number];

/**
 * Reads what `encodeManifestBody` wrote. The body was authenticated before, so only its shape is checked; throws `Error`
 * saying what is wrong.
 */
export function decodeManifestBody(body: Buffer): SnapshotManifest {
  const textBytes = body.readUInt32LE(0);
  if (4 + textBytes > body.length) throw new Error('its text is longer than its body');
  const raw: unknown = JSON.parse(body.toString('utf8', 4, 4 + textBytes));
  const binary = body.subarray(4 + textBytes);
  const manifest = record(raw, 'manifest');
  const job = record(manifest.job, 'job');
  text(job.id, 'job.id');
  text(job.name, 'job.name');
  text(manifest.createdAt, 'createdAt');
  record(manifest.timings, 'timings');
  record(manifest.host, 'host');
  if (typeof manifest.sequence !== 'number') throw new Error('sequence is not a number');
  const units = array(manifest.units, 'units').map((unit) => decodeUnit(record(unit, 'unit'), binary));
  return { ...(manifest as unknown as SnapshotManifest), units };
}

function decodeUnit(unit: Fields, binary: Buffer): UnitImage {
  const name = text(unit.unit, 'unit');
  record(unit.restore, `${name}.restore`);
  const images = array(unit.images, `${name}.images`).map((item) => {
    const image = record(item, `${name} image`);
    const title = text(image.name, `${name} image`);
    return { name: title, content: decodeStream(image.content, binary, `${name}/${title}`) };
  });
  const layers = array(unit.layers, `${name}.layers`).map((item): LayerImage => {
    const layer = record(item, `${name} layer`);
    const title = text(layer.name, `${name} layer`);
    const entries = array(layer.entries, `${name}:${title}`).map((entry) =>
      decodeEntry(record(entry, `${name}:${title}`), binary, `${name}:${title}`),
    );
    return { name: title as LayerImage['name'], entries };
  });
  return { ...(unit as unknown as UnitImage), images, layers };
}

function decodeEntry(entry: Fields, binary: Buffer, where: string): LayerEntry {
  const path = text(entry.path, `${where} path`);
  if (path.startsWith('/') || path.split('/').includes('..'))
    throw new Error(`${where} has the path ${path}`);
  if (entry.content === undefined) return entry as unknown as LayerEntry;
  return {
    ...(entry as unknown as LayerEntry),
    content: decodeStream(entry.content, binary, `${where}/${path}`),
  };
}

function decodeStream(value: unknown, binary: Buffer, where: string): StoredStream {
  const [size, offset, kind] = array(value, where);
  if (typeof size !== 'number' || typeof offset !== 'number' || offset < 0 || offset > binary.length)
    throw new Error(`${where} lies outside of the body`);
  if (kind === 1) {
    if (offset + size > binary.length) throw new Error(`${where} is longer than the body`);
    return { size, chunks: new Uint8Array(binary.subarray(offset, offset + size)) };
  }
  if (kind !== 0) throw new Error(`${where} is of kind ${String(kind)}`);
  const chunks = ChunkList.deserialize(binary, offset);
  if (chunks.size !== size) throw new Error(`${where} has ${chunks.size} bytes instead of ${size}`);
  return { size, chunks };
}

type Fields = Record<string, unknown>;

function record(value: unknown, name: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error(`${name} is not an object`);
  return value as Fields;
}

function array(value: unknown, name: string): unknown[] {
  if (!Array.isArray(value)) throw new Error(`${name} is not a list`);
  return value;
}

function text(value: unknown, name: string): string {
  if (typeof value !== 'string') throw new Error(`${name} is not a text`);
  return value;
}
