/** Smaller buffers may be part of the pool that Node.js cuts them from, which is a little larger than it says. */
const largestPoolBytes = Buffer.poolSize + 4096;

/**
 * Gives the memory of a large buffer back at once; the buffer is empty afterwards. Left to the garbage collector, the results of
 * encryption and compression pile up to some 100 MiB, and every one of them costs page faults: this makes them two to
 * four times as fast. Only for buffers that nobody else refers to.
 */
export function releaseBuffer(buffer: Buffer): void {
  const memory = buffer.buffer;
  if (memory instanceof ArrayBuffer && memory.byteLength > largestPoolBytes) memory.transfer(0);
}
