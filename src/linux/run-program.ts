import { execFile } from 'node:child_process';

/** How a program ended and what it wrote. */
export interface ProgramResult {
  /** Exit code; 128 + signal number is not used: a program ended by a signal has `code` -1 and `signal`. */
  code: number;
  signal: NodeJS.Signals | undefined;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  /** After this many milliseconds the program is killed; default 10 000. */
  timeoutMs?: number;
  signal?: AbortSignal;
  cwd?: string;
  /** Added to the environment of this process; messages are always asked for in English. */
  env?: Readonly<Record<string, string>>;
  /** Given to the program as its standard input; it is empty otherwise. */
  input?: string;
}

const outputLimitBytes = 64 * 2 ** 20;

/**
 * Runs a short program to its end and collects its output as text.
 *
 * A non-zero exit is a result, not an error. Rejects with the system error (`ENOENT`, `EACCES`) when the program cannot
 * be started, with `ETIMEDOUT` when the deadline passed, and with an `AbortError` when the signal says so.
 */
export function runProgram(
  path: string,
  argv: readonly string[],
  options: RunOptions = {},
): Promise<ProgramResult> {
  const timeoutMs = options.timeoutMs ?? 10_000;
  return new Promise((resolve, reject) => {
    const child = execFile(
      path,
      [...argv],
      {
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: outputLimitBytes,
        encoding: 'utf8',
        env: { ...process.env, LC_ALL: 'C', ...options.env },
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      },
      (error, stdout, stderr) => {
        if (error === null) return resolve({ code: 0, signal: undefined, stdout, stderr });
        if (options.signal?.aborted === true) return reject(error);
        // execFile marks only what it killed itself, so that an outer SIGKILL is not taken for the deadline.
        if (error.killed === true && error.signal === 'SIGKILL') {
          const timeout = new Error(`${path} did not end within ${timeoutMs} ms`, { cause: error });
          return reject(Object.assign(timeout, { code: 'ETIMEDOUT' }));
        }
        if (typeof error.code === 'number') {
          return resolve({ code: error.code, signal: undefined, stdout, stderr });
        }
        if (error.signal) return resolve({ code: -1, signal: error.signal, stdout, stderr });
        reject(error);
      },
    );
    // A program that ends without reading its input is judged by its exit code, not by the broken pipe.
    child.stdin?.on('error', () => {});
    child.stdin?.end(options.input ?? '');
  });
}

/** The non-empty lines of a text, at most the last `limit` of them: what is worth keeping of a failed program. */
export function lastLines(text: string, limit = 8): string[] {
  const lines = text.split('\n').map((line) => line.trimEnd());
  return lines.filter((line) => line !== '').slice(-limit);
}
