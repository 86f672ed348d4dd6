import { release } from 'node:os';
import type { SnapshotManifest, UnitImage } from '../store/manifest.ts';
import type { SnapshotWriter } from '../store/store.ts';
import type { ReceivedImage } from './capture-protocol.ts';
import { type CaptureSet, workersOf } from './capture-pool.ts';
import { assemble, type MemoryWindows } from './memory-windows.ts';
import type { CheckpointBytes, CheckpointTimings } from './events.ts';
import type { FrozenUnit } from './frozen-capture.ts';
import { storedStream } from './layer-capture.ts';
import type { CheckpointRequest } from './checkpoint-request.ts';
import { presentPagemap, type RestoreFacts, unitImage } from './unit-image.ts';

/**
 * Makes a snapshot of what was read: the workers write out what they hold and sync it, then the manifest is signed and
 * published. Also returns what is known of the memory of each process now, by its PID on the host. Throws `store-full` (temporary) and the like; nothing is visible then.
 */
export async function publishSnapshot(
  request: CheckpointRequest,
  workers: CaptureSet,
  parts: { frozen: FrozenUnit; facts: RestoreFacts; writer: SnapshotWriter; timings: CheckpointTimings },
): Promise<{ bytes: CheckpointBytes; memory: Map<number, MemoryWindows> }> {
  const { unit, job, jobDescription, sequence, note, pinned } = request;
  const { frozen, facts, writer, timings } = parts;
  const pagemaps = [];
  const memory = frozen.memory.map((read) => ({ ...read, ...assemble(read.runs, read.readings) }));
  for (const captured of memory) {
    const bytes = presentPagemap(captured);
    pagemaps.push(storedStream(await workers.stream.request({ op: 'store-bytes', bytes })));
  }
  const images: ReceivedImage[] = [];
  for (const received of frozen.images) {
    const changed = frozen.memory.find(({ unitPid }) => received.name === `mm-${unitPid}.img`)?.mappingsImage;
    if (changed === undefined) images.push(received);
    else {
      const content = await workers.stream.request({ op: 'store-bytes', bytes: changed });
      images.push({ name: received.name, content });
    }
  }
  const image = unitImage(unit.id, unit.spec, { ...frozen, images, memory }, facts, pagemaps);
  const sealed = await Promise.all(workersOf(workers).map((worker) => worker.request({ op: 'finish' })));
  const manifest: SnapshotManifest = {
    job,
    sequence,
    createdAt: new Date().toISOString(),
    jobDescription,
    units: [image],
    timings: { ...timings },
    host: { kernel: release(), criu: facts.criuVersion, architecture: process.arch },
    ...(note === undefined ? {} : { note }),
    ...(pinned === undefined ? {} : { pinned }),
  };
  for (const packs of sealed) writer.collect(packs);
  await writer.publish(manifest);
  const { zeroBytes, knownBytes, newBytes, storedBytes } = writer.statistics;
  return {
    bytes: { ...imageBytes(image), zero: zeroBytes, known: knownBytes, new: newBytes, stored: storedBytes },
    memory: new Map(memory.map(({ pid, windows }) => [pid, windows])),
  };
}

/** Sizes of the parts of an image. */
function imageBytes(image: UnitImage): Pick<CheckpointBytes, 'memory' | 'layer' | 'images'> {
  let memory = 0;
  let images = 0;
  let layer = 0;
  const facts = image.restore as unknown as RestoreFacts;
  const pages = new Set(facts.memory.map(({ pagesId }) => `pages-${pagesId}.img`));
  for (const { name, content } of image.images) {
    if (pages.has(name)) memory += content.size;
    else images += content.size;
  }
  for (const { entries } of image.layers) for (const entry of entries) layer += entry.content?.size ?? 0;
  return { memory, images, layer };
}
