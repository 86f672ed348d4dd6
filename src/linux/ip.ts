/** The `ip` program of iproute2. */

import { CairnError, systemCode } from '../errors.ts';
import { insideNamespace } from './namespace.ts';
import { readStat } from './process.ts';
import { lastLines, type ProgramResult, runProgram } from './run-program.ts';

/** Where commands act: this network namespace, or the one of a process. */
export type NetworkPlace = { pid?: number; signal?: AbortSignal };

/**
 * Runs lines of `ip` commands in one go (`ip -batch`); stops at the first that fails.
 *
 * Throws `network-command-failed` (environment) with what `ip` said, `program-missing` without it.
 */
export async function ipBatch(lines: readonly string[], place: NetworkPlace = {}): Promise<void> {
  const result = await runInNetwork('ip', ['-batch', '-'], `${lines.join('\n')}\n`, place);
  if (result.code !== 0) {
    throw new CairnError('environment', 'network-command-failed', `ip refused: ${lines.join('; ')}`, {
      lines: lastLines(result.stderr),
    });
  }
}

/** Names of the network interfaces here or in the namespace of a process, that are no loopback. */
export async function listLinks(place: NetworkPlace = {}): Promise<string[]> {
  const result = await runInNetwork('ip', ['-o', 'link', 'show'], '', place);
  return result.stdout
    .split('\n')
    .map((line) => /^\d+: ([^:@]+)/.exec(line)?.[1])
    .filter((name): name is string => name !== undefined && name !== 'lo');
}

/**
 * Runs a program here, or in the network namespace of a process. Throws `unit-not-running` (argument) if that process is gone.
 */
export async function runInNetwork(
  program: string,
  argv: readonly string[],
  input: string,
  place: NetworkPlace,
): Promise<ProgramResult> {
  const { pid, signal } = place;
  const run = () => runProgram(program, argv, { input, ...(signal === undefined ? {} : { signal }) });
  try {
    // A child is in the namespace of the thread that starts it, so the thread enters it just for that; nsenter(1) would be
    // one more program to load while a unit waits.
    return await (pid === undefined ? run() : insideNamespace(`/proc/${pid}/ns/net`, 'net', run));
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
    if (pid !== undefined && readStat(pid) === undefined) {
      throw new CairnError('argument', 'unit-not-running', `The process ${pid} has ended.`, { cause: error });
    }
    throw new CairnError('environment', 'program-missing', `The program ${program} is not installed.`, {
      remedy: 'sudo apt-get install iproute2 nftables',
      cause: error,
    });
  }
}
