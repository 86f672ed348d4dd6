import { setTimeout as delay } from 'node:timers/promises';

/**
 * Asks again and again until `condition` gives something else than undefined or false, and returns that. Throws after
 * `timeoutMs` (default 30 s) with `what` in the message.
 */
export async function until<T>(
  what: string,
  condition: () => Promise<T | undefined | false> | T | undefined | false,
  { timeoutMs = 30_000, intervalMs = 20 }: { timeoutMs?: number; intervalMs?: number } = {},
): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await condition();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > end) throw new Error(`${what}: not so within ${timeoutMs} ms`);
    await delay(intervalMs);
  }
}
