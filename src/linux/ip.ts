/** The `ip` program of iproute2. */

import { CairnError, systemCode } from '../errors.ts';
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

/** Runs a program here, or by nsenter(1) in the network namespace of a process. */
export async function runInNetwork(
  program: string,
  argv: readonly string[],
  input: string,
  place: NetworkPlace,
): Promise<ProgramResult> {
  const inside = place.pid === undefined ? [] : [`--net=/proc/${place.pid}/ns/net`, program];
  const command = place.pid === undefined ? program : 'nsenter';
  try {
    return await runProgram(command, [...inside, ...argv], {
      input,
      ...(place.signal === undefined ? {} : { signal: place.signal }),
    });
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
    throw new CairnError('environment', 'program-missing', `The program ${command} is not installed.`, {
      remedy: 'sudo apt-get install iproute2 nftables util-linux',
      cause: error,
    });
  }
}
