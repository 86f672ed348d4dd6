import assert from 'node:assert/strict';
import test from 'node:test';
import { CairnError } from '../errors.ts';
import { FakeClock } from './fake-node.ts';
import { OperationQueue } from './operation-queue.ts';

const user = { name: 'checkpoint', automatic: false };
const machine = { name: 'scheduled checkpoint', automatic: true };
const reason = new CairnError('temporary', 'aborted', 'something more important');
const isError = (code: string) => (error: unknown) => error instanceof CairnError && error.code === code;

/** Work that lasts until it is told to end, or its signal aborts. */
function work(): { run: (signal: AbortSignal) => Promise<string>; end: () => void } {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  return {
    run: (signal) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      return promise;
    },
    end: () => resolve('done'),
  };
}

test('operations run one after the other, in the order in which they were asked for', async () => {
  const queue = new OperationQueue(new FakeClock());
  const order: number[] = [];
  let running = 0;
  const operations = [1, 2, 3, 4].map((n) =>
    queue.run(user, {}, async () => {
      running += 1;
      assert.equal(running, 1);
      await new Promise((resolve) => setImmediate(resolve));
      order.push(n);
      running -= 1;
      if (n === 2) throw new Error('that one failed');
    }),
  );
  const results = await Promise.allSettled(operations);
  assert.deepEqual(order, [1, 2, 3, 4]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'fulfilled'],
  );
  assert.equal(queue.current, undefined);
});

test('what nobody waits for gives way, what a user asked for does not', async () => {
  const queue = new OperationQueue(new FakeClock());
  const automatic = work();
  const first = assert.rejects(queue.run(machine, {}, automatic.run), isError('aborted'));
  const asked = work();
  const second = queue.run(user, {}, asked.run);
  const waiting = assert.rejects(
    queue.run(machine, {}, async () => {}),
    isError('aborted'),
  );
  queue.abortAutomatic(reason);
  await first;
  await waiting;
  assert.equal(queue.current?.name, 'checkpoint');
  queue.abortAutomatic(reason);
  asked.end();
  assert.equal(await second, 'done');
});

test('waiting ends with the time allowed for it, or the signal, and leaves the queue in order', async () => {
  const clock = new FakeClock();
  const queue = new OperationQueue(clock);
  const first = work();
  const running = queue.run(user, {}, first.run);
  const late = assert.rejects(
    queue.run(user, { waitMs: 100 }, async () => {}),
    isError('job-busy'),
  );
  const gone = new AbortController();
  const left = assert.rejects(
    queue.run(user, { signal: gone.signal }, async () => {}),
    isError('aborted'),
  );
  const last = queue.run(user, { waitMs: 10_000 }, async () => 'last');
  gone.abort();
  await clock.advance(200);
  await Promise.all([late, left]);
  first.end();
  assert.equal(await running, 'done');
  assert.equal(await last, 'last');
});

test('a closed queue breaks off what runs, waits for its end, and takes nothing more', async () => {
  const queue = new OperationQueue(new FakeClock());
  let ended = false;
  const running = assert.rejects(
    queue.run(user, {}, async (signal) => {
      try {
        await work().run(signal);
      } finally {
        await new Promise((resolve) => setImmediate(resolve));
        ended = true;
      }
    }),
    isError('node-stopping'),
  );
  await new Promise((resolve) => setImmediate(resolve));
  await queue.close(new CairnError('temporary', 'node-stopping', 'stopping'));
  assert.equal(ended, true);
  await running;
  await assert.rejects(
    queue.run(user, {}, async () => {}),
    isError('node-stopping'),
  );
});
