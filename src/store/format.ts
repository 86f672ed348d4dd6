/** Numbers of the format at rest; `docs/format.md` describes what they mean. All integers are little endian. */

/** Version of pack files, manifests and the store itself. A reader refuses every other. */
export const formatVersion = 1;

/** Bytes of a chunk's name: keyed BLAKE3 of its content. */
export const chunkIdBytes = 32;
/** Largest chunk, bytes. Streams are cut where their addresses are multiples of this. */
export const maxChunkBytes = 64 * 1024;
/** Longest zero run of one chunk list entry, bytes. */
export const maxZeroRunBytes = 2 ** 31;
/** Content up to this many bytes lies in the manifest itself. */
export const inlineLimitBytes = 4096;

/** Chunks are compressed and encrypted together in segments of at most this many plain bytes. */
export const maxSegmentBytes = 256 * 1024;
/** Most chunks in one segment. */
export const maxSegmentChunks = 64;
/** A pack is closed and a new one begun when it has this many bytes. */
export const packLimitBytes = 256 * 1024 * 1024;

/** AES-256-GCM: tag and nonce, bytes. */
export const tagBytes = 16;
export const nonceBytes = 12;

export const packMagic = 'CAIRNPAK';
export const packHeaderBytes = 64;
export const packTrailerBytes = 32;

export const manifestMagic = 'CAIRNMAN';
/** Before the JSON header of a manifest: magic, version, length. */
export const manifestPreambleBytes = 16;
export const signatureBytes = 64;
/** A longer header is refused before it is read. */
export const maxManifestHeaderBytes = 64 * 1024;

export const indexMagic = 'CAIRNIDX';
