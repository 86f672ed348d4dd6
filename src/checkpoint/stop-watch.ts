import { readStat } from '../linux/process.ts';

/**
 * Notes when a process is stopped by a tracer, to the millisecond: CRIU itself does not tell (its statistics of a lazy dump are
 * not to be used), and the first image comes only after all are stopped.
 */
export function watchForStop(pid: number): { atMs: number | undefined } & Disposable {
  const watch = {
    atMs: undefined as number | undefined,
    [Symbol.dispose]: () => clearInterval(timer),
  };
  const timer = setInterval(() => {
    if (readStat(pid)?.state !== 't') return;
    watch.atMs = performance.timeOrigin + performance.now();
    clearInterval(timer);
  }, 1);
  return watch;
}
