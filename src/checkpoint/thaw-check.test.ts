import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import test from 'node:test';
import { endTcpRepairs } from './thaw-check.ts';

/** Both ends of a connection; one is put into repair mode, as by CRIU, and is read from after a line on standard input. */
const program = `
import socket, sys
listener = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
client.setsockopt(socket.IPPROTO_TCP, 19, 1)
server.send(b'x')
print('ready', flush=True)
sys.stdin.readline()
try:
    print('read', client.recv(1), flush=True)
except OSError as error:
    print(error, flush=True)
`;

for (const ended of [false, true])
  test(`R21 a connection that CRIU has left in repair mode ${ended ? 'works again' : 'does not work'}`, async (t) => {
    if (process.getuid?.() !== 0) return t.skip('repair mode needs root');
    const child = spawn('python3', ['-c', program], { stdio: ['pipe', 'pipe', 'inherit'] });
    const said = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    assert.equal((await said.next()).value, 'ready');
    if (ended) endTcpRepairs([child.pid ?? 0]);
    const exit = once(child, 'exit');
    child.stdin.end('go\n');
    assert.match(String((await said.next()).value), ended ? /^read b'x'/ : /Operation not permitted/);
    await exit;
  });
