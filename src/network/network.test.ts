import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { findProgram } from '../linux/find-program.ts';
import { readNamespaces } from '../linux/process.ts';
import { parseSubnet } from './addresses.ts';
import { attachNetwork, bridgedNetwork, detachNetwork, linkOf, releaseNetwork } from './attach.ts';
import { type Bridge, bridgeRules, ensureBridge, removeBridge, tableOf } from './bridge.ts';
import { isNetworkLocked, lockNetwork, lockRules, unlockNetwork } from './lock.ts';
import { parseElements, publishPorts, withdrawPorts } from './publish.ts';

async function whyNot(): Promise<string | false> {
  if (process.getuid?.() !== 0) return 'needs root';
  for (const program of ['ip', 'nft', 'nsenter', 'unshare', 'python3']) {
    if ((await findProgram(program)) === undefined) return `needs ${program}`;
  }
  return false;
}

const skip = await whyNot();

test('the elements of the maps are read from the listing of nft', () => {
  const listing = `table ip cairn {
    map published { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
      elements = { tcp . 127.0.0.1 . 8080 : 10.213.0.5 . 80,
                   udp . 192.0.2.1 . 53 : 10.213.0.6 . 53 } }
    map published_everywhere { elements = { tcp . 443 : 10.213.0.5 . 443 } } }`;
  assert.deepEqual(
    [...parseElements(listing)],
    [
      ['tcp . 127.0.0.1 . 8080', '10.213.0.5 . 80'],
      ['udp . 192.0.2.1 . 53', '10.213.0.6 . 53'],
      ['tcp . 443', '10.213.0.5 . 443'],
    ],
  );
});

test('names of interfaces and tables fit where they must', () => {
  assert.equal(linkOf('u-0123456789ab'), 'cn0123456789ab');
  assert.equal(tableOf({ name: 'cairn0' }), 'ip cairn');
  assert.equal(tableOf({ name: 'my-br.0' }), 'ip cairn_my_br_0');
  assert.match(lockRules, /policy accept/);
  assert.match(bridgeRules({ name: 'cairn0', subnet: parseSubnet('10.213.0.0/16') }), /10\.213\.0\.0\/16/);
});

describe('network of a unit', { skip, timeout: 60_000 }, () => {
  // Tests may run at the same time: a bridge and a subnet for each process.
  const own = process.pid % 250;
  const bridge: Bridge = { name: `cairnn${own}`, subnet: parseSubnet(`10.216.${own}.0/24`) };
  const address = `10.216.${own}.5`;
  const unit = `u-${process.pid.toString(16).padStart(12, 'a')}`;
  const network = bridgedNetwork(unit, bridge, address);
  /** Stands for a unit: a network namespace with a server that answers each connection with the peer's address. */
  let server: ReturnType<typeof spawn>;
  let pid = 0;

  before(async () => {
    await ensureBridge(bridge);
    await ensureBridge(bridge);
    const program = `
import socket, sys
s = socket.socket(); s.bind(('0.0.0.0', 80)); s.listen()
print('up', flush=True)
while True:
    c, a = s.accept(); c.sendall(a[0].encode()); c.close()`;
    server = spawn('unshare', ['--net', 'python3', '-c', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    pid = server.pid ?? 0;
    await new Promise((resolve) => server.stdout?.once('data', resolve));
  });

  after(async () => {
    server.kill('SIGKILL');
    await detachNetwork(unit);
    await removeBridge(bridge);
    assert.ok(!existsSync(`/sys/class/net/${bridge.name}`) && !existsSync(`/sys/class/net/${linkOf(unit)}`));
  });

  const ask = (host: string, port: number, timeoutMs = 3000) =>
    new Promise<string>((resolve, reject) => {
      let text = '';
      const socket = createConnection({ host, port, timeout: timeoutMs });
      socket.on('data', (bytes) => {
        text += String(bytes);
      });
      socket.on('timeout', () => socket.destroy(new Error('timeout')));
      socket.on('error', reject);
      socket.on('close', () => resolve(text));
    });

  test('it has nothing until it is attached, and is not reachable until it is released', async () => {
    assert.notEqual(readNamespaces(pid)?.get('net'), readNamespaces('self')?.get('net'));
    await attachNetwork(pid, network, { hold: true });
    await assert.rejects(ask(address, 80, 200));
    await releaseNetwork(network);
    assert.equal(await ask(address, 80), `10.216.${own}.1`);
    const show = (what: string) =>
      execFileSync('nsenter', [`--net=/proc/${pid}/ns/net`, 'ip', what], { encoding: 'utf8' });
    assert.match(show('addr'), new RegExp(`inet ${address.replaceAll('.', '\\.')}/24`));
    assert.match(show('route'), new RegExp(`default via 10\\.216\\.${own}\\.1`));
  });

  test('the lock drops everything in and out; unlocked, it is as before', async () => {
    assert.equal(await isNetworkLocked(pid), false);
    await lockNetwork(pid);
    await lockNetwork(pid);
    assert.equal(await isNetworkLocked(pid), true);
    await assert.rejects(ask(address, 80, 200), /timeout/);
    await unlockNetwork(pid);
    await unlockNetwork(pid);
    assert.equal(await ask(address, 80), `10.216.${own}.1`);
  });

  test('a published port answers at the addresses of the node and on localhost, until it is withdrawn', async () => {
    const port = { hostAddress: '0.0.0.0', hostPort: 42_000 + own, unitPort: 80, protocol: 'tcp' as const };
    const local = { ...port, hostAddress: '127.0.0.1', hostPort: 42_300 + own };
    await publishPorts(bridge, address, [port, local]);
    assert.equal(await ask('127.0.0.1', port.hostPort), `10.216.${own}.1`);
    assert.equal(await ask(`10.216.${own}.1`, port.hostPort), `10.216.${own}.1`);
    assert.equal(await ask('127.0.0.1', local.hostPort), `10.216.${own}.1`);
    await assert.rejects(ask(`10.216.${own}.1`, local.hostPort), /ECONNREFUSED/);

    await assert.rejects(publishPorts(bridge, `10.216.${own}.6`, [port]), {
      class: 'temporary',
      code: 'port-taken',
    });
    await withdrawPorts(bridge, `10.216.${own}.6`, [port]);
    assert.equal(await ask('127.0.0.1', port.hostPort), `10.216.${own}.1`, 'another unit cannot withdraw it');
    await withdrawPorts(bridge, address, [port, local]);
    await assert.rejects(ask('127.0.0.1', port.hostPort), /ECONNREFUSED/);
  });

  test('a unit can reach the node, but not what listens on its loopback addresses', async () => {
    const listener = createServer((socket) => socket.end('node'));
    await new Promise<void>((resolve) => listener.listen(0, '0.0.0.0', resolve));
    const { port } = listener.address() as { port: number };
    const reach = (to: string) => {
      const program = `import socket; s = socket.create_connection(('${to}', ${port}), 0.3); print(s.recv(9).decode())`;
      return new Promise<string>((resolve) => {
        const child = spawn('nsenter', [`--net=/proc/${pid}/ns/net`, 'python3', '-c', program]);
        let text = '';
        child.stdout.on('data', (bytes) => {
          text += String(bytes);
        });
        child.once('close', () => resolve(text.trim()));
      });
    };
    assert.equal(await reach(`10.216.${own}.1`), 'node');
    execFileSync('nsenter', [
      `--net=/proc/${pid}/ns/net`,
      'ip',
      'route',
      'add',
      '127.9.9.9',
      'via',
      `10.216.${own}.1`,
    ]);
    assert.equal(await reach('127.9.9.9'), '');
    listener.close();
  });
});
