/**
 * How a monitor takes part in a restore: CRIU runs a small script at each of its stages; at two of them the script asks the
 * monitor and waits for its answer.
 *
 * - `setup-namespaces`: the namespaces exist, nothing is in them yet: the network gets its interface.
 * - `post-restore`: everything is restored and stopped: the last moment at which the restore can be given up.
 */

import { closeSync, constants, openSync, rmSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import path from 'node:path';
import { makeNode } from '../linux/file.ts';

/** Stages at which the monitor is asked. */
export type RestoreStage = 'setup-namespaces' | 'post-restore';

const S_IFIFO = 0o010000;

/** The monitor's end: answers each stage when the action for it is done, or refuses it if the action failed. */
export class RestoreHandshake {
  readonly #directory: string;
  readonly #answer: number;
  readonly #questions: Socket;
  /** The first failure of an action: the reason why CRIU has given up. */
  failure: unknown;

  constructor(directory: string, act: (stage: RestoreStage, initPid: number) => Promise<void>) {
    this.#directory = directory;
    this.#remove();
    makeNode(this.#path('ask'), S_IFIFO | 0o600);
    makeNode(this.#path('answer'), S_IFIFO | 0o600);
    this.#answer = openSync(this.#path('answer'), constants.O_RDWR);
    const ask = openSync(this.#path('ask'), constants.O_RDWR | constants.O_NONBLOCK);
    this.#questions = new Socket({ fd: ask, readable: true, writable: false });
    let text = '';
    this.#questions.on('data', (bytes) => {
      text += String(bytes);
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const [stage, pid] = text.slice(0, end).split(' ');
        text = text.slice(end + 1);
        void this.#reply(() => act(stage as RestoreStage, Number(pid)));
      }
    });
  }

  /** What CRIU is given as `--action-script`. It is run as a program: run directories are often mounted noexec. */
  readonly actionScript: string = path.join(import.meta.dirname, 'restore-handshake.sh');

  /** What CRIU needs in its environment, for the script. */
  get environment(): Record<string, string> {
    return { CAIRN_HANDSHAKE: this.#directory, CAIRN_MONITOR: String(process.pid) };
  }

  async #reply(action: () => Promise<void>): Promise<void> {
    let answer = 'go';
    try {
      await action();
    } catch (error) {
      this.failure ??= error;
      answer = 'stop';
    }
    writeSync(this.#answer, `${answer}\n`);
  }

  #path(name: string): string {
    return path.join(this.#directory, name);
  }

  #remove(): void {
    for (const name of ['ask', 'answer']) rmSync(this.#path(name), { force: true });
  }

  [Symbol.dispose](): void {
    this.#questions.destroy();
    closeSync(this.#answer);
    this.#remove();
  }
}
