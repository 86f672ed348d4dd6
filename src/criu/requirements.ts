import { atLeast } from '../linux/version.ts';

/** The oldest CRIU that Cairn works with. */
export const minimumCriu = '4.2';

/** The version that Cairn is developed and tested with. */
export const provenCriu = '4.2.1';

/** Why an older CRIU will not do; the first rule that applies is told. */
const rules: readonly { below: string; kernel: string; reason: string }[] = [
  {
    below: '3.18',
    kernel: '6.13',
    reason:
      'it stops at the memory layout of this kernel ("Unexpected rt vDSO area bounds", kernels from 6.13)',
  },
  {
    below: '4.2',
    kernel: '6.16',
    reason: 'it cannot dump internet sockets on this kernel (SO_PASSCRED is refused for them from 6.16)',
  },
  {
    // `--stream`, `--lazy-pages` and `--ps-socket` in one dump are proven on 4.2.1 only; the page counts in pagemap images changed
    // in 4.2, and guard pages are known from 4.2 on.
    below: minimumCriu,
    kernel: '0',
    reason: 'Cairn reads memory by the page map format that came with 4.2',
  },
];

/**
 * Whether a CRIU version can work on a kernel at all: `undefined`, or the reason why not.
 *
 * `criu check` does not decide this: 4.1.1 passes it on kernels where it cannot dump a socket.
 */
export function whyCriuTooOld(version: string, kernelRelease: string): string | undefined {
  for (const { below, kernel, reason } of rules) {
    if (!atLeast(version, below) && atLeast(kernelRelease, kernel)) return reason;
  }
  return undefined;
}
