import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { NodeFixture } from '../support/node-fixture.ts';
import { until } from '../support/poll.ts';
import { mustRun } from '../support/run-command.ts';
import { addressOf } from '../support/service.ts';

const keys = 50_000;

// Every key holds what its number says; wrong ones are counted by the server itself.
const fill = `for i = 1, ${keys} do redis.call('SET', 'key:' .. i, redis.sha1hex(i) .. string.rep('x', i % 100)) end
  for i = 1, 500 do redis.call('HSET', 'hash', i, i * i); redis.call('ZADD', 'sorted', i, 'm' .. i); redis.call('XADD', 'stream', '*', 'n', i) end
  redis.call('SET', 'expires', 'later', 'EX', 3600) return 'OK'`;
const countWrong = `local wrong = 0
  for i = 1, ${keys} do if redis.call('GET', 'key:' .. i) ~= redis.sha1hex(i) .. string.rep('x', i % 100) then wrong = wrong + 1 end end
  for i = 1, 500 do if redis.call('HGET', 'hash', i) ~= tostring(i * i) or redis.call('ZSCORE', 'sorted', 'm' .. i) ~= tostring(i) then wrong = wrong + 1 end end
  if redis.call('XLEN', 'stream') ~= 500 then wrong = wrong + 1 end
  return wrong`;

describe('Redis', () => {
  let node: NodeFixture;
  before(async () => {
    node = await NodeFixture.start();
  });
  after(() => node?.[Symbol.asyncDispose]());

  it('R17 R09 comes back with every key, AOF and RDB on, under a client that writes', async () => {
    const server =
      'mkdir -p /data && exec redis-server --dir /data --bind 0.0.0.0 --protected-mode no --appendonly yes --appendfsync everysec';
    await node.run(
      'redis',
      [],
      ['/bin/sh', '-c', `${server} --save "1 1" --enable-debug-command yes --loglevel warning`],
    );
    const address = await addressOf(node, 'redis');
    const ask = async (...command: string[]): Promise<string> =>
      (await mustRun(['redis-cli', '-h', address, ...command])).trimEnd();
    await until('Redis answers', async () => (await ask('PING').catch(() => '')) === 'PONG');
    assert.equal(await ask('EVAL', fill, '0'), 'OK');

    for (let round = 0; round < 2; round++) {
      using writer = new CountingClient(address);
      await delay(300);
      const before = writer.acknowledged;
      await node.checkpoint('redis');
      const sent = writer.sent;
      // The client has not noticed anything: its connection lives on.
      await until('the client goes on after the checkpoint', () => writer.acknowledged > sent, {
        timeoutMs: 10_000,
      });
      await node.crash('redis');
      assert.ok(before > 0, 'the client wrote nothing before the checkpoint');
      await node.restart('redis');

      const counter = Number(await ask('GET', 'counter'));
      assert.ok(
        counter >= writer.base + before && counter <= writer.base + sent,
        `the counter is ${counter}, it was between ${writer.base + before} and ${writer.base + sent} at the checkpoint`,
      );
      assert.equal(await ask('EVAL', countWrong, '0'), '0', 'keys are missing or wrong');
      assert.equal(Number(await ask('DBSIZE')), keys + 5);
      const left = Number(await ask('TTL', 'expires'));
      assert.ok(left > 3000 && left <= 3600, `TTL ${left}`);
    }

    // The append-only file and the dump agree with memory: Redis throws away what it has and reads them again.
    await ask('BGREWRITEAOF');
    await until('the rewrite ends', async () =>
      /aof_rewrite_in_progress:0/.test(await ask('INFO', 'persistence')),
    );
    assert.equal(await ask('DEBUG', 'LOADAOF'), 'OK');
    assert.equal(await ask('EVAL', countWrong, '0'), '0', 'after reading the append-only file');
    assert.equal(await ask('SAVE'), 'OK');
    assert.equal(await ask('DEBUG', 'RELOAD'), 'OK');
    assert.equal(await ask('EVAL', countWrong, '0'), '0', 'after reading the dump');
    for (const check of [
      'redis-check-rdb /data/dump.rdb',
      'redis-check-aof /data/appendonlydir/*.manifest',
    ]) {
      const result = await node.cairn(['exec', 'redis', '--', '/bin/sh', '-c', check]);
      assert.equal(result.code, 0, result.stdout + result.stderr);
    }
    await node.remove('redis');
  });
});

/** A client that counts up as fast as it can, one command at a time, on one connection. */
class CountingClient implements Disposable {
  sent = 0;
  acknowledged = 0;
  /** Value of the counter before the first command. */
  base = 0;
  readonly #socket: Socket;

  constructor(address: string) {
    this.#socket = connect(6379, address);
    this.#socket.on('error', () => {}); // the crash of the server is part of the test
    this.#count().catch(() => {});
  }

  async #count(): Promise<void> {
    await once(this.#socket, 'connect');
    this.#send();
    for await (const data of this.#socket) {
      const value = Number(/:(\d+)/.exec(String(data))?.[1]);
      if (this.acknowledged === 0) this.base = value - 1;
      this.acknowledged++;
      this.#send();
    }
  }

  #send(): void {
    this.sent++;
    this.#socket.write('INCR counter\r\n');
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
