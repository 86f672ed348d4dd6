const ctrlP = 0x10;
const ctrlQ = 0x11;

/** Looks for the keys that leave a terminal without ending its program (Ctrl-P Ctrl-Q, as for docker) in what is typed. */
export class DetachKeys {
  #held = false;

  /** What is to be passed on of this piece, and whether the keys were found in it. */
  push(bytes: Uint8Array): { pass: Uint8Array; detached: boolean } {
    const pass: number[] = [];
    for (const byte of bytes) {
      if (this.#held) {
        if (byte === ctrlQ) return { pass: Uint8Array.from(pass), detached: true };
        pass.push(ctrlP);
        this.#held = false;
      }
      if (byte === ctrlP) this.#held = true;
      else pass.push(byte);
    }
    return { pass: Uint8Array.from(pass), detached: false };
  }
}
