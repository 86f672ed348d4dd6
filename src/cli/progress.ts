import { styleText } from 'node:util';
import type { OperationProgress } from '../jobs/events.ts';
import { formatBytes } from './format.ts';

type Phase = Exclude<OperationProgress, { kind: 'warning' }>['phase'];

const names: Readonly<Record<Phase, string>> = {
  preflight: 'looking at the job',
  'pre-save': 'saving ahead, while it runs',
  freeze: 'freezing',
  dump: 'saving what has changed',
  thaw: 'letting it run on',
  publish: 'writing the snapshot',
  prepare: 'preparing',
  restore: 'restoring',
  resume: 'letting it run',
  verify: 'reading and comparing',
};

/** How often the line on a terminal is redrawn, in milliseconds. */
const redrawMs = 100;

/** Shows the progress of a long operation: one line that changes on a terminal, plain lines elsewhere. */
export class ProgressDisplay implements Disposable {
  readonly #terminal: boolean;
  readonly #write: (text: string) => void;
  readonly #now: () => number;
  #drawn = false;
  #drawnAt = 0;
  #phase: Phase | undefined;

  constructor(options: { terminal: boolean; write: (text: string) => void; now?: () => number }) {
    this.#terminal = options.terminal;
    this.#write = options.write;
    this.#now = options.now ?? (() => performance.now());
  }

  readonly show = (progress: OperationProgress): void => {
    if (progress.kind === 'warning') {
      this.clear();
      this.#write(`${styleText('yellow', 'warning:', { validateStream: false })} ${progress.message}\n`);
      return;
    }
    const entered = progress.phase !== this.#phase;
    this.#phase = progress.phase;
    if (!this.#terminal) {
      if (entered) this.#write(`${names[progress.phase]}\n`);
      return;
    }
    const now = this.#now();
    if (!entered && now - this.#drawnAt < redrawMs) return;
    this.#drawnAt = now;
    this.#drawn = true;
    this.#write(`\r\x1b[K${names[progress.phase]}${amount(progress)}`);
  };

  /** Takes the line away. */
  clear(): void {
    if (this.#drawn) this.#write('\r\x1b[K');
    this.#drawn = false;
  }

  [Symbol.dispose](): void {
    this.clear();
  }
}

function amount(progress: OperationProgress): string {
  if (progress.kind !== 'progress' || progress.totalBytes === 0) return ' …';
  const percent = Math.min(100, Math.floor((progress.doneBytes / progress.totalBytes) * 100));
  return `  ${formatBytes(progress.doneBytes)} of ${formatBytes(progress.totalBytes)} (${percent} %)`;
}
