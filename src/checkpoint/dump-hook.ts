import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import path from 'node:path';
import { makeNode } from '../linux/file.ts';

const S_IFIFO = 0o010000;

/**
 * Holds a dump at the stage `post-dump`: all images are written, and the names that CRIU gives unlinked files for the restore
 * (`link_remap.N`) still exist. They are gone when it goes on, so that is the moment to read the files of the unit.
 */
export class DumpHook implements Disposable {
  /** What CRIU is given as `--action-script`. */
  readonly actionScript: string = path.join(import.meta.dirname, 'dump-hook.sh');
  /** Resolves when CRIU has come there. */
  readonly reached: Promise<void>;
  readonly #directory: string;
  readonly #ask: Socket;
  readonly #answer: number;
  #answered = false;

  /** Makes its two FIFOs in a directory. */
  constructor(directory: string) {
    this.#directory = directory;
    for (const name of ['ask', 'answer']) makeNode(path.join(directory, name), S_IFIFO | 0o600);
    // Open for both directions here, so that no open waits, and no writer's end is an end.
    const flags = constants.O_RDWR | constants.O_NONBLOCK;
    this.#answer = openSync(path.join(directory, 'answer'), flags);
    this.#ask = new Socket({
      fd: openSync(path.join(directory, 'ask'), flags),
      readable: true,
      writable: false,
    });
    this.#ask.on('error', () => {});
    this.reached = new Promise((resolve) => this.#ask.once('data', () => resolve()));
  }

  /** What CRIU needs in its environment, for the script. */
  get environment(): Record<string, string> {
    return { CAIRN_HANDSHAKE: this.#directory, CAIRN_DAEMON: String(process.pid) };
  }

  /** Lets CRIU go on, or makes it give up, once. */
  answer(word: 'go' | 'stop'): void {
    if (this.#answered) return;
    this.#answered = true;
    writeSync(this.#answer, `${word}\n`);
  }

  [Symbol.dispose](): void {
    this.#ask.destroy();
    closeSync(this.#answer);
  }
}
