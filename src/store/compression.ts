import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { releaseBuffer } from './release-buffer.ts';

const pageBytes = 4096;
const samplesPerPage = 64;
/** Below this many samples the estimate says nothing; compressing so little costs nothing either. */
const fewestSamples = 512;
/** Random bytes show about 7.8 bits with 1024 samples; code, text and heaps show 4 to 7. */
const entropyLimitBits = 7.5;
/** Compressed bytes are kept only if they are at most this share of the plain ones. */
const worthwhileShare = 0.92;

const histogram = new Uint16Array(256);
const logTable = Float64Array.from({ length: 4096 }, (_, count) =>
  count === 0 ? 0 : count * Math.log2(count),
);

/**
 * Guesses from a sample (64 bytes of every 4 KiB) whether compression can pay: the entropy of the byte values. Costs about
 * 2 µs for 64 KiB. It overlooks repetitions of random data, on purpose: finding them costs as much as compressing.
 */
export function looksCompressible(bytes: Uint8Array, start: number, length: number): boolean {
  const step = length <= pageBytes ? Math.max(samplesPerPage, length >>> 4) : pageBytes;
  let samples = 0;
  for (let at = start; at < start + length; at += step) {
    const end = Math.min(at + samplesPerPage, start + length);
    for (let i = at; i < end; i++) {
      const value = bytes[i] ?? 0;
      histogram[value] = (histogram[value] ?? 0) + 1;
    }
    samples += end - at;
  }
  let sum = 0;
  for (let value = 0; value < 256; value++) {
    sum += logTable[Math.min(histogram[value] ?? 0, logTable.length - 1)] ?? 0;
    histogram[value] = 0;
  }
  return samples < fewestSamples || Math.log2(samples) - sum / samples < entropyLimitBits;
}

/** One zstd frame (level 1) of `bytes`, or `undefined` if that saves less than 8 %. */
export function compress(bytes: Uint8Array): Buffer | undefined {
  const frame = zstdCompressSync(bytes, {
    // Room for the worst case: otherwise Node.js compresses in steps of 16 KiB and joins them.
    chunkSize: bytes.length + (bytes.length >>> 7) + 512,
    pledgedSrcSize: bytes.length,
    params: { [constants.ZSTD_c_compressionLevel]: 1 },
  });
  if (frame.length <= bytes.length * worthwhileShare) return frame;
  releaseBuffer(frame);
  return undefined;
}

/** The plain bytes of a frame, of which there must be `plainLength`; `undefined` otherwise. */
export function decompress(frame: Uint8Array, plainLength: number): Buffer | undefined {
  try {
    const plain = zstdDecompressSync(frame, {
      chunkSize: Math.max(64, plainLength + 64),
      maxOutputLength: plainLength + 1,
    });
    return plain.length === plainLength ? plain : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Whether to try compression at all, learned from the last attempts: after each attempt that did not pay, twice as many
 * segments are skipped (at most 16) before the next.
 */
export class CompressionTrial {
  #failures = 0;
  #toSkip = 0;

  compress(bytes: Uint8Array): Buffer | undefined {
    if (this.#toSkip > 0) {
      this.#toSkip--;
      return undefined;
    }
    const frame = compress(bytes);
    this.#failures = frame === undefined ? Math.min(this.#failures + 1, 5) : 0;
    this.#toSkip = frame === undefined ? 2 ** (this.#failures - 1) : 0;
    return frame;
  }
}
