/**
 * Who has which IPv4 address of the node's bridge. An address is a file in a directory, named after the address and
 * holding the owner's id: it is made exclusively, so that two can never get the same one.
 */

import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { CairnError, systemCode } from '../errors.ts';

/** A block of addresses, for example 10.213.0.0/16. */
export interface Subnet {
  /** First address as a number. */
  base: number;
  prefix: number;
}

/** Parses `A.B.C.D/PREFIX`. Throws `subnet-invalid` (argument). */
export function parseSubnet(text: string): Subnet {
  const [address = '', prefixText = ''] = text.split('/');
  const prefix = Number(prefixText);
  const base = addressToNumber(address);
  if (base === undefined || !/^\d+$/.test(prefixText) || prefix < 8 || prefix > 29) {
    throw new CairnError('argument', 'subnet-invalid', `'${text}' is no subnet such as 10.213.0.0/16.`);
  }
  return { base: base - (base % 2 ** (32 - prefix)), prefix };
}

/** An IPv4 address as a number; `undefined` if it is none. */
export function addressToNumber(address: string): number | undefined {
  const parts = address.split('.').map((part) => (/^\d{1,3}$/.test(part) ? Number(part) : 256));
  if (parts.length !== 4 || parts.some((part) => part > 255)) return undefined;
  return parts.reduce((sum, part) => sum * 256 + part, 0);
}

export function numberToAddress(value: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.');
}

/** The node's own address in a subnet, which is the gateway of its units: the first usable one. */
export function gatewayOf(subnet: Subnet): string {
  return numberToAddress(subnet.base + 1);
}

/** Hardware address of the interface with an IPv4 address: the same on every node, so that a moved unit keeps it. */
export function hardwareAddress(address: string): string {
  const value = addressToNumber(address) ?? 0;
  const bytes = [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256);
  // 02: locally administered, single receiver.
  return [0x02, 0xca, ...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** The addresses of one bridge. */
export class Addresses {
  readonly #directory: string;
  readonly subnet: Subnet;

  constructor(directory: string, subnet: Subnet) {
    this.#directory = directory;
    this.subnet = subnet;
  }

  /**
   * Gives the owner an address: the one it has already, the wanted one, or a free one. Throws `address-taken`
   * (temporary), `address-foreign` (argument: not in the subnet) or `address-exhausted` (temporary).
   */
  async allocate(owner: string, wanted?: string): Promise<string> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const held = await this.addressOf(owner);
    if (held !== undefined && (wanted === undefined || wanted === held)) return held;
    if (wanted !== undefined) {
      this.#check(wanted);
      if (!(await this.#take(wanted, owner))) {
        throw new CairnError('temporary', 'address-taken', `The address ${wanted} is in use on this node.`, {
          remedy: 'Wait until its holder has ended, or restart with --clone to get another address.',
        });
      }
      return wanted;
    }
    const size = 2 ** (32 - this.subnet.prefix);
    // Beginning at a place that depends on the owner, a freed address is not given away again at once.
    const usable = size - 3;
    const first = hash(owner) % usable;
    const taken = new Set(await readdir(this.#directory));
    for (let i = 0; i < usable; i++) {
      const address = numberToAddress(this.subnet.base + 2 + ((first + i) % usable));
      if (!taken.has(address) && (await this.#take(address, owner))) return address;
    }
    throw new CairnError('temporary', 'address-exhausted', 'Every address of the bridge is in use.', {
      remedy: 'Remove units that have ended, or start the node with a larger subnet.',
    });
  }

  #check(address: string): void {
    const offset = (addressToNumber(address) ?? -1) - this.subnet.base;
    if (offset >= 2 && offset < 2 ** (32 - this.subnet.prefix) - 1) return;
    const subnet = `${numberToAddress(this.subnet.base)}/${this.subnet.prefix}`;
    throw new CairnError(
      'argument',
      'address-foreign',
      `${address} cannot be an address of a unit in ${subnet}.`,
    );
  }

  async #take(address: string, owner: string): Promise<boolean> {
    try {
      await writeFile(path.join(this.#directory, address), owner, { flag: 'wx', mode: 0o600 });
      return true;
    } catch (error) {
      if (systemCode(error) === 'EEXIST') return false;
      throw error;
    }
  }

  /** The address that an owner has. */
  async addressOf(owner: string): Promise<string | undefined> {
    return (await this.list()).find((entry) => entry.owner === owner)?.address;
  }

  /** Everything that is given away. */
  async list(): Promise<{ address: string; owner: string }[]> {
    const names = await readdir(this.#directory).catch(() => []);
    const entries = names
      .filter((name) => addressToNumber(name) !== undefined)
      .map(async (address) => ({
        address,
        owner: await readFile(path.join(this.#directory, address), 'utf8').catch(() => ''),
      }));
    return Promise.all(entries);
  }

  /** Takes all addresses of an owner back. */
  async release(owner: string): Promise<void> {
    for (const entry of await this.list()) {
      if (entry.owner === owner) await rm(path.join(this.#directory, entry.address), { force: true });
    }
  }
}

/** FNV-1a, 32 bits. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const character of text) value = Math.imul(value ^ character.charCodeAt(0), 0x01000193) >>> 0;
  return value;
}
