import { CairnError } from '../errors.ts';
import type { CaptureSet } from './capture-pool.ts';
import { type LayerCapture, newCounter, sharedWritableFiles, stopCounter } from './layer-capture.ts';
import type { MemorySegments } from './memory-segments.ts';
import { type MemoryWindows, mergeWindows } from './memory-windows.ts';

/** Less memory than this is read while frozen as quickly as it could be compared. */
export const preSaveFromBytes = 32 * 1024 * 1024;

export interface PreSave {
  memoryBytes: number;
  layerBytes: number;
  /** The pages that each process had, by its PID. */
  pages: Map<number, MemorySegments>;
}

/**
 * Stores memory and layers while the unit runs, so that hardly anything is new when it is frozen. What changes meanwhile is found later by
 * its content (memory) or its times (files). Nothing here has to be consistent. `memory` (what is known of each process, by PID) is brought
 * up to date.
 */
export async function preSave(
  workers: CaptureSet,
  pids: readonly number[],
  layers: readonly LayerCapture[],
  options: {
    memory: Map<number, MemoryWindows> | undefined;
    onBytes: (bytes: number) => void;
    signal: AbortSignal;
  },
): Promise<PreSave> {
  const { onBytes, signal } = options;
  const result: PreSave = { memoryBytes: 0, layerBytes: 0, pages: new Map() };
  const counters: ReturnType<typeof newCounter>[] = [];
  const stop = () => {
    for (const counter of counters) stopCounter(counter);
    for (const layer of layers) layer.stop();
  };
  signal.addEventListener('abort', stop);
  try {
    for (const pid of options.memory === undefined ? [] : pids) {
      signal.throwIfAborted();
      const plan = await workers.stream.request({ op: 'plan-memory', pid, frozen: false });
      if (plan === undefined || plan.segments.pages === 0) continue;
      const { segments } = plan;
      result.pages.set(pid, segments);
      const next = newCounter();
      counters.push(next);
      const known = options.memory?.get(pid);
      const reading = workers.readers.map((worker) =>
        worker.request(
          { op: 'read-memory', pid, segments, next, mode: 'write', known, lenient: true },
          (event) => {
            if (event.kind !== 'progress') return;
            result.memoryBytes += event.bytes;
            onBytes(event.bytes);
          },
        ),
      );
      // A process that ends, or unmaps what is being read, is no failure: it is not frozen yet. A full store is one.
      const parts: MemoryWindows[] = [];
      for (const outcome of await Promise.allSettled(reading)) {
        if (outcome.status === 'fulfilled') parts.push(outcome.value);
        else if (outcome.reason instanceof CairnError) throw outcome.reason;
      }
      options.memory?.set(pid, mergeWindows(parts));
      counters.pop();
    }
    const mapped = () => sharedWritableFiles(pids);
    const { stream, readers } = workers;
    for (const layer of layers) {
      signal.throwIfAborted();
      const { bytesRead } = await layer.update([stream, ...readers], 'write', mapped, onBytes);
      result.layerBytes += bytesRead;
    }
    return result;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
