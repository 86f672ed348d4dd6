/**
 * Which chunks the store has: a hash table in shared memory that all threads look into at once, without locks.
 *
 * Open addressing with linear probing. A slot is five words: its state and the first 128 bits of the chunk's name (which
 * is a keyed hash: nobody without the key can make two names collide). The state tells who may rely on the chunk:
 *
 *     empty → claimed (its key is being written) → pending (a snapshot that is being taken has it) → row of the index
 *
 * A pending slot counts only for the session (snapshot) that made it: if that snapshot is given up, nobody else has taken
 * the chunk as known, and nothing needs to be undone. Two sessions may therefore have a slot each for the same chunk.
 * A distrusted row (its pack turned out damaged) can be found, but is not known: the next snapshot stores the chunk again.
 */

const headerWords = 16;
const slotWords = 5;
const capacityWord = 0;
const usedWord = 1;

const empty = 0;
const claimed = 1;
const firstRow = 2;
const distrusted = 0x40000000;
const dead = 0x7fffffff;

/** Above this share of used slots a chunk is stored without being entered: it is only not found again by others. */
const fullShare = 0.9;
const wantedShare = 0.6;
const patience = 100_000_000;

/** What `claim` says about a chunk. */
export const claimResult = { known: 0, added: 1, tableFull: 2 } as const;

export class ChunkTable {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #mask: number;
  readonly #limit: number;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#words = new Int32Array(memory);
    const capacity = this.#words[capacityWord] ?? 0;
    this.#mask = capacity - 1;
    this.#limit = Math.floor(capacity * fullShare);
  }

  /** A table in which `chunks` chunks fit comfortably: 20 bytes for each slot, between 1.7 and 3.4 slots for each chunk. */
  static create(chunks: number): ChunkTable {
    const capacity = capacityFor(chunks);
    const memory = new SharedArrayBuffer((headerWords + capacity * slotWords) * 4);
    new Int32Array(memory)[capacityWord] = capacity;
    return new ChunkTable(memory);
  }

  get capacity(): number {
    return this.#mask + 1;
  }

  /** Used slots, those of snapshots that were given up included. */
  get used(): number {
    return Atomics.load(this.#words, usedWord);
  }

  /** Whether `more` chunks can be added without probing becoming slow. */
  hasRoomFor(more: number): boolean {
    return this.used + more <= this.capacity * (wantedShare + 0.1);
  }

  /**
   * Finds the chunk whose name begins with the four words of `key`, or enters it as pending for `session` (1, 2, …).
   * Safe to call from several threads at once. Only one of them is told `added`.
   */
  claim(key: Int32Array, session: number): number {
    const words = this.#words;
    const [k0, k1, k2, k3] = [key[0] ?? 0, key[1] ?? 0, key[2] ?? 0, key[3] ?? 0];
    let slot = k0 & this.#mask;
    for (;;) {
      const at = headerWords + slot * slotWords;
      let state = Atomics.load(words, at);
      if (state === empty) {
        if (this.used >= this.#limit) return claimResult.tableFull;
        state = Atomics.compareExchange(words, at, empty, claimed);
        if (state === empty) {
          words[at + 1] = k0;
          words[at + 2] = k1;
          words[at + 3] = k2;
          words[at + 4] = k3;
          Atomics.store(words, at, -session);
          Atomics.add(words, usedWord, 1);
          return claimResult.added;
        }
      }
      if (state === claimed) state = this.#settled(at);
      if (
        words[at + 1] === k0 &&
        words[at + 2] === k1 &&
        words[at + 3] === k2 &&
        words[at + 4] === k3 &&
        (state === -session || (state >= firstRow && state < distrusted))
      )
        return claimResult.known;
      slot = (slot + 1) & this.#mask;
    }
  }

  /** Whether `claim` would find the chunk; enters nothing. */
  has(key: Int32Array, session: number): boolean {
    return this.#find(key, (state) => state === -session || isTrusted(state)) >= 0;
  }

  /** Row of the chunk in the index, or -1; a distrusted one only if there is no other. */
  rowOf(key: Int32Array): number {
    const row = this.trustedRowOf(key);
    if (row >= 0) return row;
    const at = this.#find(key, (state) => state >= distrusted && state !== dead);
    return at < 0 ? -1 : (this.#words[at] ?? 0) - distrusted - firstRow;
  }

  /** Row of the chunk in the index, or -1. */
  trustedRowOf(key: Int32Array): number {
    const at = this.#find(key, isTrusted);
    return at < 0 ? -1 : (this.#words[at] ?? 0) - firstRow;
  }

  /**
   * Gives the chunk a row: turns the slot that `session` made into it, or enters it. Returns false, and changes nothing, if
   * it has a row already. The table must have room. For the thread that owns the index.
   */
  setRow(key: Int32Array, row: number, session = 0): boolean {
    if (this.trustedRowOf(key) >= 0) return false;
    const words = this.#words;
    const pending = session === 0 ? -1 : this.#find(key, (state) => state === -session);
    if (pending >= 0) {
      Atomics.store(words, pending, row + firstRow);
      return true;
    }
    let slot = (key[0] ?? 0) & this.#mask;
    for (let probes = 0; probes <= this.#mask; probes++) {
      const at = headerWords + slot * slotWords;
      if (Atomics.compareExchange(words, at, empty, claimed) === empty) {
        for (let i = 0; i < 4; i++) words[at + 1 + i] = key[i] ?? 0;
        Atomics.store(words, at, row + firstRow);
        Atomics.add(words, usedWord, 1);
        return true;
      }
      slot = (slot + 1) & this.#mask;
    }
    throw new RangeError('the chunk table is full');
  }

  /** The chunk in this row is damaged: it is still found, but not known to `claim`. */
  distrust(key: Int32Array, row: number): void {
    const at = this.#find(key, (state) => state === row + firstRow);
    if (at >= 0) Atomics.store(this.#words, at, row + firstRow + distrusted);
  }

  /** Calls `visit` with every chunk that has a row; `key` is reused. */
  forEach(visit: (key: Int32Array, row: number, trusted: boolean) => void): void {
    const words = this.#words;
    const key = new Int32Array(4);
    for (let at = headerWords; at < words.length; at += slotWords) {
      const state = words[at] ?? 0;
      if (state < firstRow || state === dead) continue;
      for (let i = 0; i < 4; i++) key[i] = words[at + 1 + i] ?? 0;
      visit(key, (state & ~distrusted) - firstRow, state < distrusted);
    }
  }

  #find(key: Int32Array, matches: (state: number) => boolean): number {
    const words = this.#words;
    let slot = (key[0] ?? 0) & this.#mask;
    for (let probes = 0; probes <= this.#mask; probes++) {
      const at = headerWords + slot * slotWords;
      let state = Atomics.load(words, at);
      if (state === empty) return -1;
      if (state === claimed) state = this.#settled(at);
      if (
        matches(state) &&
        words[at + 1] === key[0] &&
        words[at + 2] === key[1] &&
        words[at + 3] === key[2] &&
        words[at + 4] === key[3]
      )
        return at;
      slot = (slot + 1) & this.#mask;
    }
    return -1;
  }

  /** Waits for another thread to finish the few stores between `claimed` and `pending`. */
  #settled(at: number): number {
    for (let i = 0; i < patience; i++) {
      const state = Atomics.load(this.#words, at);
      if (state !== claimed) return state;
    }
    // The thread was ended right between: nobody gets this slot any more, and it matches nothing.
    Atomics.compareExchange(this.#words, at, claimed, dead);
    return Atomics.load(this.#words, at);
  }
}

function isTrusted(state: number): boolean {
  return state >= firstRow && state < distrusted;
}

function capacityFor(chunks: number): number {
  let capacity = 1024;
  while (capacity * wantedShare < chunks) capacity *= 2;
  return capacity;
}
