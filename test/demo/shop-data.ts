import type { RedisClient, Reply } from './redis-client.ts';

/** How many customers and orders the shop has. Everything about them follows from their numbers, so that each can be checked. */
export const customers = 20_000;
export const orders = 100_000;

const batch = 1_000;
const cities = ['Aachen', 'Bergen', 'Coimbra', 'Dijon', 'Esbjerg', 'Fribourg', 'Galway', 'Haarlem'];

function customer(n: number): string[] {
  const city = cities[n % cities.length] ?? '';
  return [
    'name',
    `customer ${n}`,
    'city',
    city,
    'since',
    String(1990 + (n % 36)),
    'points',
    String((n * 7919) % 10_007),
  ];
}

function order(n: number): string {
  const lines = Array.from({ length: 1 + (n % 4) }, (_, i) => ({
    article: (n * 31 + i * 17) % 5_000,
    pieces: 1 + ((n + i) % 9),
    cents: 99 + ((n * 101 + i * 13) % 20_000),
  }));
  return JSON.stringify({
    order: n,
    customer: (n * 48_271) % customers,
    lines,
    note: `order number ${n}`.repeat(1 + (n % 3)),
  });
}

/** Fills Redis; returns how many keys there are then. */
export async function fillShop(redis: RedisClient): Promise<number> {
  for (let start = 0; start < customers; start += batch) {
    const commands = range(start, customers).map((n) => ['HSET', `customer:${n}`, ...customer(n)]);
    const points = range(start, customers).flatMap((n) => [customer(n)[7] ?? '', `customer:${n}`]);
    await redis.pipeline([...commands, ['ZADD', 'ranking', ...points]]);
  }
  for (let start = 0; start < orders; start += batch) {
    await redis.pipeline(range(start, orders).map((n) => ['SET', `order:${n}`, order(n)]));
  }
  return Number(await redis.send('DBSIZE'));
}

/** Compares every key with what it must be; returns the names of those that are missing or different. */
export async function compareShop(redis: RedisClient): Promise<string[]> {
  const wrong: string[] = [];
  for (let start = 0; start < customers; start += batch) {
    const numbers = range(start, customers);
    const replies = await redis.pipeline(numbers.map((n) => ['HGETALL', `customer:${n}`]));
    const scores = await redis.pipeline(numbers.map((n) => ['ZSCORE', 'ranking', `customer:${n}`]));
    numbers.forEach((n, i) => {
      if (!same(replies[i], customer(n)) || scores[i] !== customer(n)[7]) wrong.push(`customer:${n}`);
    });
  }
  for (let start = 0; start < orders; start += batch) {
    const numbers = range(start, orders);
    const [values] = await redis.pipeline([['MGET', ...numbers.map((n) => `order:${n}`)]]);
    numbers.forEach((n, i) => {
      if (!Array.isArray(values) || values[i] !== order(n)) wrong.push(`order:${n}`);
    });
  }
  return wrong;
}

function range(start: number, end: number): number[] {
  return Array.from({ length: Math.min(batch, end - start) }, (_, i) => start + i);
}

function same(reply: Reply | undefined, wanted: readonly string[]): boolean {
  return (
    Array.isArray(reply) && reply.length === wanted.length && reply.every((word, i) => word === wanted[i])
  );
}
