/**
 * CRIU's action script for a restore: it stops CRIU where the monitor has something to do, and asks it through two FIFOs.
 * Only builtins of the shell, because each call is paid while the unit waits.
 */

import { closeSync, constants, openSync, writeFileSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import path from 'node:path';
import { messageOf } from '../errors.ts';
import { makeNode } from '../linux/file.ts';

/** Where the monitor is asked: namespaces made and empty; everything restored and still stopped. */
export type RestoreStage = 'setup-namespaces' | 'post-restore';

const script = (directory: string) => `#!/bin/sh
case $CRTOOLS_SCRIPT_ACTION in
setup-namespaces | post-restore) ;;
*) exit 0 ;;
esac
echo "$CRTOOLS_SCRIPT_ACTION $CRTOOLS_INIT_PID" > '${directory}/asks'
read -r answer < '${directory}/answers'
[ "$answer" = ok ]
`;

/** The monitor's side of the script. */
export class RestoreHook implements Disposable {
  /** The action script. */
  readonly script: string;
  /** What the handler threw first; CRIU then fails, and this is the reason. */
  failure: unknown;
  readonly #asks: Socket;
  readonly #answers: number;

  /** Makes script and FIFOs in a directory; `handle` is called for each stage with the PID of the unit's first process. */
  constructor(directory: string, handle: (stage: RestoreStage, pid: number) => Promise<void>) {
    if (directory.includes("'"))
      throw new RangeError(`a directory without apostrophe is needed: ${directory}`);
    this.script = path.join(directory, 'hook.sh');
    writeFileSync(this.script, script(directory), { mode: 0o700 });
    const S_IFIFO = 0o010000;
    for (const name of ['asks', 'answers']) makeNode(path.join(directory, name), S_IFIFO | 0o600);
    // Open for both directions: neither opening nor the end of one writer ends the stream.
    const flags = constants.O_RDWR | constants.O_NONBLOCK;
    this.#asks = new Socket({ fd: openSync(path.join(directory, 'asks'), flags), readable: true });
    this.#answers = openSync(path.join(directory, 'answers'), flags);
    let rest = '';
    this.#asks.on('error', () => {});
    this.#asks.on('data', (piece) => {
      const lines = (rest + piece.toString()).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) void this.#answer(line, handle);
    });
  }

  async #answer(line: string, handle: (stage: RestoreStage, pid: number) => Promise<void>): Promise<void> {
    const [stage, pid] = line.split(' ');
    let answer = 'ok';
    try {
      await handle(stage as RestoreStage, Number(pid));
    } catch (error) {
      this.failure ??= error;
      answer = `failed ${messageOf(error).replaceAll('\n', ' ')}`;
    }
    writeSync(this.#answers, `${answer}\n`);
  }

  [Symbol.dispose](): void {
    this.#asks.destroy();
    closeSync(this.#answers);
  }
}
