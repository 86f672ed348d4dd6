/** The node's bridge, on which every unit has an address, and the rules that let units reach the world. */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { CairnError } from '../errors.ts';
import { ipBatch } from '../linux/ip.ts';
import { nft, nftList } from '../linux/nft.ts';
import { gatewayOf, numberToAddress, type Subnet } from './addresses.ts';

/** Which bridge; tests use one of their own. */
export interface Bridge {
  /** Name of the interface, at most 15 characters. */
  name: string;
  subnet: Subnet;
}

/** Name and addresses of the bridge unless the node is told otherwise. */
export const defaultBridge = { name: 'cairn0', subnet: '10.213.0.0/16' } as const;

/** The nft table of a bridge: `cairn` for the default one. */
export function tableOf(bridge: Pick<Bridge, 'name'>): string {
  const name =
    bridge.name === defaultBridge.name ? 'cairn' : `cairn_${bridge.name.replaceAll(/[^A-Za-z0-9]/g, '_')}`;
  return `ip ${name}`;
}

/**
 * Makes the bridge, its address and its rules where they are missing. Throws `network-command-failed` (environment).
 */
export async function ensureBridge(bridge: Bridge): Promise<void> {
  if (!/^[A-Za-z][A-Za-z0-9_.-]{0,14}$/.test(bridge.name)) {
    throw new CairnError('argument', 'bridge-invalid', `'${bridge.name}' cannot name a bridge.`);
  }
  if (!existsSync(`/sys/class/net/${bridge.name}`)) {
    const address = `${gatewayOf(bridge.subnet)}/${bridge.subnet.prefix}`;
    try {
      await ipBatch([
        `link add ${bridge.name} type bridge stp_state 0 forward_delay 0`,
        `address add ${address} dev ${bridge.name}`,
        `link set ${bridge.name} up`,
      ]);
    } catch (error) {
      // Another daemon or test may have made it at the same moment.
      if (!existsSync(`/sys/class/net/${bridge.name}`)) throw error;
    }
  } else if (!existsSync(`/sys/class/net/${bridge.name}/bridge`)) {
    throw new CairnError(
      'environment',
      'bridge-invalid',
      `The interface ${bridge.name} exists and is no bridge.`,
      {
        remedy: 'Start the node with another --bridge.',
      },
    );
  }
  // Without forwarding units reach only this node; routing loopback addresses makes published ports answer on localhost.
  setSysctl('net/ipv4/ip_forward', '1');
  setSysctl(`net/ipv4/conf/${bridge.name}/route_localnet`, '1');
  await ensureRules(bridge);
}

async function ensureRules(bridge: Bridge): Promise<void> {
  const table = tableOf(bridge);
  if ((await nftList(`table ${table}`)) !== undefined) return;
  await nft(bridgeRules(bridge));
}

/** The rules of a bridge without any published port, as an nft script. */
export function bridgeRules(bridge: Bridge): string {
  const subnet = `${numberToAddress(bridge.subnet.base)}/${bridge.subnet.prefix}`;
  const table = tableOf(bridge);
  const publish = [
    'dnat ip to meta l4proto . ip daddr . th dport map @published',
    'fib daddr type local dnat ip to meta l4proto . th dport map @published_everywhere',
  ];
  return `
table ${table} {
  map published {
    type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
  }
  map published_everywhere {
    type inet_proto . inet_service : ipv4_addr . inet_service
  }
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    # Loopback addresses are routed on the bridge for the sake of localhost; units must not use that.
    iifname "${bridge.name}" ip daddr 127.0.0.0/8 drop
    iifname "${bridge.name}" ip saddr != ${subnet} drop
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    ${publish.join('\n    ')}
  }
  chain output {
    type nat hook output priority -100; policy accept;
    ${publish.join('\n    ')}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${subnet} oifname != "${bridge.name}" masquerade
    ip saddr 127.0.0.0/8 oifname "${bridge.name}" masquerade
    ip saddr ${subnet} ip daddr ${subnet} ct status dnat masquerade
  }
}
`;
}

/** Takes bridge and rules away. For tests: on a node both stay. */
export async function removeBridge(bridge: Bridge): Promise<void> {
  if (existsSync(`/sys/class/net/${bridge.name}/bridge`)) await ipBatch([`link delete ${bridge.name}`]);
  if ((await nftList(`table ${tableOf(bridge)}`)) !== undefined)
    await nft(`delete table ${tableOf(bridge)}\n`);
}

function setSysctl(name: string, value: string): void {
  const file = `/proc/sys/${name}`;
  if (readFileSync(file, 'utf8').trim() !== value) writeFileSync(file, value);
}
