/** The network interface of a unit: a veth pair between the node's bridge and the unit's network namespace. */

import { existsSync, writeFileSync } from 'node:fs';
import { ipBatch } from '../linux/ip.ts';
import { insideNamespace } from '../linux/namespace.ts';
import { gatewayOf, hardwareAddress } from './addresses.ts';
import { type Bridge } from './bridge.ts';

/** What a unit's interface is like. `bridge` absent: only a loopback interface. */
export interface UnitNetwork {
  bridge?: { name: string; gateway: string; prefix: number };
  /** IPv4 address on the bridge. */
  address?: string;
  /** Name of the interface on the node's side. */
  link: string;
}

/** The network of a unit with an address on a bridge. */
export function bridgedNetwork(unit: string, bridge: Bridge, address: string): UnitNetwork {
  return {
    bridge: { name: bridge.name, gateway: gatewayOf(bridge.subnet), prefix: bridge.subnet.prefix },
    address,
    link: linkOf(unit),
  };
}

/** Name of the interface of a unit on the node's side: at most 15 characters are allowed. */
export function linkOf(unit: string): string {
  return `cn${unit.replace(/^u-/, '')}`.slice(0, 15);
}

/**
 * Gives a fresh network namespace (that of process `pid`) its loopback and, on a bridge, `eth0` with address and default
 * route; ports below 1024 and ping need no capability in it, as in other containers.
 *
 * `hold` leaves the node's side down: until `releaseNetwork` nothing gets in or out.
 *
 * Throws `network-command-failed` (environment). To be undone by `detachNetwork`, or by the end of the namespace.
 */
export async function attachNetwork(
  pid: number,
  network: UnitNetwork,
  options: { hold?: boolean; signal?: AbortSignal } = {},
): Promise<void> {
  const { bridge, address, link } = network;
  const place = options.signal === undefined ? {} : { signal: options.signal };
  const up = options.hold === true ? 'down' : 'up';
  const inside = ['link set lo up'];
  if (bridge !== undefined && address !== undefined) {
    // Left from a unit whose namespace has not quite gone yet.
    if (existsSync(`/sys/class/net/${link}`)) await ipBatch([`link delete ${link}`], place);
    const peer = `peer name eth0 netns ${pid} address ${hardwareAddress(address)}`;
    await ipBatch(
      [`link add ${link} type veth ${peer}`, `link set ${link} master ${bridge.name} ${up}`],
      place,
    );
    inside.push(
      `address add ${address}/${bridge.prefix} dev eth0`,
      'link set eth0 up',
      `route add default via ${bridge.gateway}`,
    );
  }
  await ipBatch(inside, { ...place, pid });
  insideNamespace(`/proc/${pid}/ns/net`, 'net', () => {
    writeFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', '0');
    writeFileSync('/proc/sys/net/ipv4/ping_group_range', '0 2147483647');
  });
}

/** Opens a network that was attached with `hold`. */
export async function releaseNetwork(network: UnitNetwork): Promise<void> {
  if (network.bridge !== undefined) await ipBatch([`link set ${network.link} up`]);
}

/** Removes the interface of a unit; nothing if there is none. */
export async function detachNetwork(unit: string): Promise<void> {
  const link = linkOf(unit);
  if (existsSync(`/sys/class/net/${link}`)) {
    try {
      await ipBatch([`link delete ${link}`]);
    } catch (error) {
      // The namespace at its other end may have taken it away in the meantime.
      if (existsSync(`/sys/class/net/${link}`)) throw error;
    }
  }
}
