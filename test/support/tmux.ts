import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { until } from './poll.ts';
import { mustRun, runCommand } from './run-command.ts';

/** A terminal that a test types into and reads, by a tmux server of its own. */
export class Tmux implements AsyncDisposable {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Runs a shell command in a new terminal of this size. */
  static async start(command: string, columns: number, rows: number): Promise<Tmux> {
    const terminal = new Tmux(mkdtempSync(path.join(tmpdir(), 'cairn-tm')));
    await terminal.#tmux('new-session', '-d', '-x', String(columns), '-y', String(rows), command);
    // No status line: all rows are the program's.
    await terminal.#tmux('set', '-g', 'status', 'off').catch(() => {});
    return terminal;
  }

  async type(text: string): Promise<void> {
    for (const line of text.split(/(?<=\n)/)) {
      if (line !== '\n') await this.#tmux('send-keys', '-l', line.replace(/\n$/, ''));
      if (line.endsWith('\n')) await this.#tmux('send-keys', 'Enter');
    }
  }

  /** A key by its tmux name: `C-c`. */
  async key(name: string): Promise<void> {
    await this.#tmux('send-keys', name);
  }

  async screen(): Promise<string> {
    return this.#tmux('capture-pane', '-p', '-S', '-200');
  }

  async waits(pattern: RegExp, timeoutMs = 15_000): Promise<void> {
    let last = '';
    await until(
      `the terminal shows ${pattern}`,
      async () => {
        last = await this.screen().catch(() => last);
        return pattern.test(last);
      },
      { timeoutMs, intervalMs: 50 },
    ).catch((error: Error) => {
      throw new Error(`${error.message}; it shows:\n${last}`);
    });
  }

  /** Waits until the command has ended. */
  async ends(): Promise<void> {
    await until('the command in the terminal ends', async () => (await this.#run('has-session')).code !== 0, {
      intervalMs: 50,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#run('kill-server');
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #run(...argv: string[]): ReturnType<typeof runCommand> {
    return runCommand(['tmux', '-f', '/dev/null', '-S', path.join(this.#directory, 's'), ...argv], {
      environment: { TERM: 'xterm', LANG: 'C.UTF-8', TMUX: undefined },
      timeoutMs: 10_000,
    });
  }

  #tmux(...argv: string[]): Promise<string> {
    return mustRun(['tmux', '-f', '/dev/null', '-S', path.join(this.#directory, 's'), ...argv], {
      environment: { TERM: 'xterm', LANG: 'C.UTF-8', TMUX: undefined },
      timeoutMs: 10_000,
    });
  }
}
