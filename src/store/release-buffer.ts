/** Smaller buffers may be part of the pool that Node.js cuts them from. */
const ownedBytes = 32 * 1024;

/**
 * Gives the memory of a large buffer back at once; the buffer is empty afterwards. Left to the garbage collector, the results of
 * encryption and compression pile up to some 100 MiB, and every one of them costs page faults: this makes them two to
 * four times as fast. Only for buffers that nobody else refers to.
 */
export function releaseBuffer(buffer: Buffer): void {
  const memory = buffer.buffer;
  if (buffer.byteOffset === 0 && memory instanceof ArrayBuffer && memory.byteLength >= ownedBytes)
    memory.transfer(0);
}
