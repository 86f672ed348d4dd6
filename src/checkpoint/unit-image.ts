import { encodePagemap, pageFlags, withoutLongRuns } from '../criu/pagemap.ts';
import type { StoredStream, UnitImage } from '../store/manifest.ts';
import type { UnitExternals } from '../units/unit.ts';
import type { FrozenMemory, FrozenUnit } from './frozen-capture.ts';
import type { AssembledMemory } from './memory-windows.ts';
import { storedStream } from './layer-capture.ts';

/** Memory of one process as it goes into a snapshot. */
type CapturedMemory = Pick<FrozenMemory, 'unitPid' | 'pagesId'> & Pick<AssembledMemory, 'runs' | 'chunks'>;

/** What a restore must know beside CRIU's images; kept in the manifest as `restore`. */
export interface RestoreFacts {
  /** CRIU that wrote the images. */
  criuVersion: string;
  mounts: UnitExternals['mounts'];
  stdio: UnitExternals['stdio'];
  consoleKeys: string[];
  runtimeState: Record<string, unknown> | null;
  /** PIDs inside the unit whose memory may be brought later (`restart --lazy`), with the bytes of it. */
  memory: { unitPid: number; pagesId: number; bytes: number }[];
}

/** Facts for the restore, from what leads out of the unit. */
export function restoreFacts(criuVersion: string, externals: UnitExternals): RestoreFacts {
  const { mounts, stdio, consoleKeys, runtimeState } = externals;
  return { criuVersion, mounts, stdio, consoleKeys, runtimeState: runtimeState ?? null, memory: [] };
}

/**
 * The image of a unit as the manifest holds it: CRIU's images, and for each process its page map (`presentPagemap`, already
 * stored) and pages file, which consist of what Cairn has read itself. Every page is marked present; those that CRIU called
 * lazy stay so, because only they may be brought later.
 */
export function unitImage(
  unit: string,
  unitDescription: unknown,
  frozen: Pick<FrozenUnit, 'images' | 'layers'> & { memory: readonly CapturedMemory[] },
  facts: RestoreFacts,
  pagemaps: readonly StoredStream[],
): UnitImage {
  const images: UnitImage['images'] = frozen.images.map(({ name, content }) => ({
    name,
    content: storedStream(content),
  }));
  frozen.memory.forEach(({ unitPid, pagesId, chunks }, i) => {
    const pagemap = pagemaps[i];
    if (pagemap === undefined) throw new Error(`no page map for process ${unitPid}`);
    images.push({ name: `pagemap-${unitPid}.img`, content: pagemap });
    images.push({ name: `pages-${pagesId}.img`, content: { size: chunks.size, chunks } });
  });
  images.sort((a, b) => (a.name < b.name ? -1 : 1));
  const restore: RestoreFacts = {
    ...facts,
    memory: frozen.memory.map(({ unitPid, pagesId, chunks }) => ({ unitPid, pagesId, bytes: chunks.size })),
  };
  return {
    unit,
    unitDescription,
    restore: restore as unknown as Record<string, unknown>,
    images,
    layers: frozen.layers.map(({ name, entries }) => ({ name, entries })),
  };
}

/** The page map of one process as an image file, all pages present. */
export function presentPagemap({ pagesId, runs }: Pick<CapturedMemory, 'pagesId' | 'runs'>): Uint8Array {
  const present = runs.slice();
  for (let i = 2; i < present.length; i += 3) present[i] = (present[i] as number) | pageFlags.present;
  return encodePagemap({ pagesId, runs: withoutLongRuns(present) });
}
