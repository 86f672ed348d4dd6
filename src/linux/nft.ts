/** The `nft` program of nftables. */

import { CairnError } from '../errors.ts';
import { type NetworkPlace, runInNetwork } from './ip.ts';
import { lastLines } from './run-program.ts';

/**
 * Runs an nft script as one transaction: all of it or nothing happens.
 *
 * Throws `network-command-failed` (environment) with what `nft` said, `program-missing` without it.
 */
export async function nft(script: string, place: NetworkPlace = {}): Promise<void> {
  const result = await runInNetwork('nft', ['-f', '-'], script, place);
  if (result.code !== 0) {
    throw new CairnError('environment', 'network-command-failed', 'nft refused a set of rules.', {
      lines: lastLines(result.stderr),
    });
  }
}

/** The ruleset or a part of it (`list table inet cairn`), as text; `undefined` if there is no such thing. */
export async function nftList(what: string, place: NetworkPlace = {}): Promise<string | undefined> {
  const result = await runInNetwork('nft', ['-f', '-'], `list ${what}\n`, place);
  return result.code === 0 ? result.stdout : undefined;
}
