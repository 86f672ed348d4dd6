import { writeSync } from 'node:fs';
import { Socket } from 'node:net';
import path from 'node:path';
import { close, pipe } from '../linux/libc.ts';

/**
 * Holds a dump at the stage `post-dump`: all images are written, and the names that CRIU gives unlinked files for the restore
 * (`link_remap.N`) still exist. They are gone when it goes on, so that is the moment to read the files of the unit.
 *
 * The script takes two pipes of CRIU: when this process dies, it reads an end of file, and the unit runs on.
 */
export class DumpHook implements Disposable {
  /** What CRIU is given as `--action-script`. */
  readonly actionScript: string = path.join(import.meta.dirname, 'dump-hook.sh');
  /** Resolves when CRIU has come there. */
  readonly reached: Promise<void>;
  readonly #question = pipe();
  readonly #answer = pipe();
  readonly #questions: Socket;
  #answered = false;
  #lent = false;

  constructor() {
    this.#questions = new Socket({ fd: this.#question.read, readable: true, writable: false });
    this.#questions.on('error', () => {});
    this.reached = new Promise((resolve) => this.#questions.once('data', () => resolve()));
  }

  /** Ends of the pipes that CRIU has to have as 5 and 6, in this order. */
  get descriptors(): [number, number] {
    return [this.#question.write, this.#answer.read];
  }

  /** CRIU has its ends: ours of them are closed, so that an end of file can come. */
  lent(): void {
    if (this.#lent) return;
    this.#lent = true;
    for (const fd of this.descriptors) close(fd);
  }

  /** Lets CRIU go on, or makes it give up, once. */
  answer(word: 'go' | 'stop'): void {
    if (this.#answered) return;
    this.#answered = true;
    try {
      writeSync(this.#answer.write, `${word}\n`);
    } catch {
      // CRIU has ended.
    }
  }

  [Symbol.dispose](): void {
    this.lent();
    this.#questions.destroy();
    close(this.#answer.write);
  }
}
