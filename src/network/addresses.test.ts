import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { Addresses, gatewayOf, hardwareAddress, parseSubnet } from './addresses.ts';

function inDirectory(subnet: string) {
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-addresses-'));
  return {
    directory,
    addresses: new Addresses(directory, parseSubnet(subnet)),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

test('a subnet is parsed, its gateway is the first usable address', () => {
  assert.equal(gatewayOf(parseSubnet('10.213.0.0/16')), '10.213.0.1');
  assert.equal(gatewayOf(parseSubnet('10.213.7.9/24')), '10.213.7.1');
  for (const bad of ['10.213.0.0', '10.213.0/16', '10.213.0.256/16', '10.0.0.0/31', '10.0.0.0/', 'x']) {
    assert.throws(() => parseSubnet(bad), { code: 'subnet-invalid' });
  }
});

test('the hardware address follows from the IPv4 address', () => {
  assert.equal(hardwareAddress('10.213.1.255'), '02:ca:0a:d5:01:ff');
});

test('every owner gets its own address until none is left, and keeps it', async () => {
  using place = inDirectory('10.9.0.0/29');
  const { addresses } = place;
  const owners = ['a', 'b', 'c', 'd', 'e'];
  const given = await Promise.all(owners.map((owner) => addresses.allocate(owner)));
  assert.deepEqual([...given].sort(), ['10.9.0.2', '10.9.0.3', '10.9.0.4', '10.9.0.5', '10.9.0.6']);
  assert.equal(await addresses.allocate('a'), given[0]);
  await assert.rejects(addresses.allocate('f'), { class: 'temporary', code: 'address-exhausted' });
  await addresses.release('c');
  assert.equal(await addresses.allocate('f'), given[2]);
  assert.equal(await new Addresses(place.directory, addresses.subnet).addressOf('f'), given[2]);
});

test('a wanted address is given once, and only if it is one of the bridge', async () => {
  using place = inDirectory('10.9.0.0/24');
  const { addresses } = place;
  assert.equal(await addresses.allocate('a', '10.9.0.77'), '10.9.0.77');
  await assert.rejects(addresses.allocate('b', '10.9.0.77'), { class: 'temporary', code: 'address-taken' });
  for (const bad of ['10.9.1.2', '10.9.0.1', '10.9.0.0', '10.9.0.255', '../../etc/passwd', 'x']) {
    await assert.rejects(addresses.allocate('b', bad), { class: 'argument', code: 'address-foreign' });
  }
  await addresses.release('a');
  assert.deepEqual(await addresses.list(), []);
});
