import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';

/** What a program that has ended left behind. */
export interface Result {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  tookMs: number;
}

export interface RunOptions {
  environment?: Record<string, string | undefined>;
  /** Written to standard input; without it that is /dev/null. */
  input?: string;
  /** The program gets SIGKILL after this time; default 120 s. */
  timeoutMs?: number;
  onStart?: (child: ChildProcess) => void;
}

/** Runs a program to its end, whatever its exit code. */
export async function runCommand(command: readonly string[], options: RunOptions = {}): Promise<Result> {
  const [file = '', ...rest] = command;
  const started = performance.now();
  const child = spawn(file, rest, {
    env: { ...process.env, ...options.environment },
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    timeout: options.timeoutMs ?? 120_000,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin?.on('error', () => {}).end(options.input);
  options.onStart?.(child);
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { code, signal, stdout, stderr, tookMs: performance.now() - started };
}

/** As `runCommand`, for a program that has to succeed; returns its output. */
export async function mustRun(command: readonly string[], options: RunOptions = {}): Promise<string> {
  const result = await runCommand(command, options);
  if (result.code !== 0) {
    throw new Error(
      `${command.join(' ')}: ${result.signal ?? `exit code ${result.code}`}\n${result.stdout}${result.stderr}`,
    );
  }
  return result.stdout;
}
