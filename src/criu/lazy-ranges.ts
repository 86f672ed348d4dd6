/** A run of memory that a restored process does not have yet. */
interface Range {
  start: number;
  end: number;
  /** Where `start` was when the snapshot was taken. */
  image: number;
}

/** Memory that is still to come, as the process has moved and given up parts of it since. Addresses in bytes, multiples of the page size. */
export class LazyRanges {
  #ranges: Range[];

  /** `[start, end] …`, ascending. */
  constructor(pairs: readonly number[] = []) {
    this.#ranges = [];
    for (let i = 0; i < pairs.length; i += 2) {
      const start = pairs[i] as number;
      this.#ranges.push({ start, end: pairs[i + 1] as number, image: start });
    }
  }

  get isEmpty(): boolean {
    return this.#ranges.length === 0;
  }

  get bytes(): number {
    return this.#ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  }

  clone(): LazyRanges {
    const copy = new LazyRanges();
    copy.#ranges = this.#ranges.map((range) => ({ ...range }));
    return copy;
  }

  /** What is to come from `address` on without a gap; `undefined` if nothing is to come there. */
  at(address: number): Readonly<Range> | undefined {
    const range = this.#ranges[this.#firstAfter(address)];
    if (range === undefined || range.start > address) return undefined;
    return { start: address, end: range.end, image: range.image + address - range.start };
  }

  /** The last of it: to take from the end moves nothing else. */
  last(): Readonly<Range> | undefined {
    return this.#ranges.at(-1);
  }

  /** Takes out what lies between the two addresses. */
  drop(start: number, end: number): void {
    this.#cut(start, end);
  }

  /** Moves what lies in a mapping that the process has moved. What was to come at its new place is no more. */
  move(from: number, to: number, length: number): void {
    const moved = this.#cut(from, from + length);
    this.#cut(to, to + length);
    for (const range of moved) {
      range.start += to - from;
      range.end += to - from;
    }
    this.#ranges.splice(this.#firstAfter(to), 0, ...moved);
  }

  /** Index of the first range that ends after `address`. */
  #firstAfter(address: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ranges[middle] as Range).end <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #cut(start: number, end: number): Range[] {
    const removed: Range[] = [];
    let at = this.#firstAfter(start);
    for (;;) {
      const range = this.#ranges[at];
      if (range === undefined || range.start >= end) return removed;
      const { start: first, end: last, image } = range;
      const from = Math.max(first, start);
      const to = Math.min(last, end);
      removed.push({ start: from, end: to, image: image + from - first });
      const left: Range[] = [];
      if (first < from) left.push({ start: first, end: from, image });
      if (to < last) left.push({ start: to, end: last, image: image + to - first });
      this.#ranges.splice(at, 1, ...left);
      at += first < from ? 1 : 0;
    }
  }
}
