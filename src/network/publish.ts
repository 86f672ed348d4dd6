/** Ports of units that are reachable at addresses of the node. */

import { CairnError } from '../errors.ts';
import { nft, nftList } from '../linux/nft.ts';
import { type Bridge, tableOf } from './bridge.ts';

/** A port of a unit and where on the node it appears. */
export interface PortMapping {
  /** IPv4 address of the node; `0.0.0.0` for all. */
  hostAddress: string;
  hostPort: number;
  unitPort: number;
  protocol: 'tcp' | 'udp';
}

const everywhere = '0.0.0.0';

/**
 * Publishes ports of the unit at `address`, all or none. Throws `port-taken` (temporary) if another unit has one of them.
 */
export async function publishPorts(
  bridge: Pick<Bridge, 'name'>,
  address: string,
  ports: readonly PortMapping[],
): Promise<void> {
  if (ports.length === 0) return;
  const table = tableOf(bridge);
  try {
    // `create` fails where `add` would accept an element that is there already with the same value.
    await nft(ports.map((port) => `create element ${table} ${element(port, address)}\n`).join(''));
  } catch (error) {
    const taken = await takenPorts(bridge, ports);
    if (taken.length === 0) throw error;
    throw new CairnError('temporary', 'port-taken', `Another unit publishes ${taken.join(', ')} already.`, {
      remedy: 'Choose another port of the host, or stop the other job.',
      cause: error,
    });
  }
}

/** Withdraws ports; those that are not published by this unit are left alone. */
export async function withdrawPorts(
  bridge: Pick<Bridge, 'name'>,
  address: string,
  ports: readonly PortMapping[],
): Promise<void> {
  const table = tableOf(bridge);
  const published = await publishedPorts(bridge);
  const own = ports.filter((port) => published.get(keyOf(port))?.startsWith(`${address} .`));
  if (own.length > 0) {
    await nft(own.map((port) => `delete element ${table} ${element(port, address)}\n`).join(''));
  }
}

function element(port: PortMapping, address: string): string {
  const map = port.hostAddress === everywhere ? 'published_everywhere' : 'published';
  return `${map} { ${keyOf(port)} : ${address} . ${port.unitPort} }`;
}

function keyOf(port: PortMapping): string {
  const at = port.hostAddress === everywhere ? '' : `${port.hostAddress} . `;
  return `${port.protocol} . ${at}${port.hostPort}`;
}

async function takenPorts(bridge: Pick<Bridge, 'name'>, ports: readonly PortMapping[]): Promise<string[]> {
  const published = await publishedPorts(bridge);
  return ports
    .filter((port) => published.has(keyOf(port)))
    .map((port) => `${port.hostPort}/${port.protocol}`);
}

/** What is published, by `PROTOCOL . [ADDRESS .] PORT`, with `ADDRESS . PORT` of the unit. */
async function publishedPorts(bridge: Pick<Bridge, 'name'>): Promise<Map<string, string>> {
  const text = (await nftList(`table ${tableOf(bridge)}`)) ?? '';
  return parseElements(text);
}

/** Parses the elements of the two maps in the output of `nft list table`. */
export function parseElements(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const match of text.matchAll(/\b((?:tcp|udp) \. (?:[\d.]+ \. )?\d+) : ([\d.]+ \. \d+)/g)) {
    const [, key, value] = match;
    if (key !== undefined && value !== undefined) found.set(key, value);
  }
  return found;
}
