import { encodePagemap, pageFlags } from '../criu/pagemap.ts';
import type { Mount } from '../linux/mounts.ts';
import type { StoredStream, UnitImage } from '../store/manifest.ts';
import type { StdioKeys } from '../units/monitor-stdio.ts';
import { type BindMounts, type ExternalMount, externalMounts } from '../units/external-mounts.ts';
import type { CapturedMemory, FrozenUnit } from './frozen-capture.ts';
import { storedStream } from './layer-capture.ts';

/** What a restore must know beside CRIU's images; kept in the manifest as `restore`. */
export interface RestoreFacts {
  /** CRIU that wrote the images. */
  criuVersion: string;
  mounts: ExternalMount[];
  /** What the OCI runtime knew of the container; adapted on a restore, so that `exec` works again. */
  runtimeState: Record<string, unknown> | null;
  /** Keys of the descriptors that lead to the monitor. */
  stdio: StdioKeys;
  /** Further terminals of the unit's console in the images. */
  consoleKeys: string[];
  /** PIDs inside the unit whose memory may be brought later (`restart --lazy`), with the bytes of it. */
  memory: { unitPid: number; pagesId: number; bytes: number }[];
}

/** Facts for the restore, from what the unit's first process sees. Pure. */
export function restoreFacts(
  criuVersion: string,
  mounts: readonly Mount[],
  known: BindMounts,
  stdio: StdioKeys,
  runtimeState: Record<string, unknown> | null,
): RestoreFacts {
  return {
    criuVersion,
    mounts: externalMounts(mounts, known),
    stdio,
    consoleKeys: [],
    runtimeState,
    memory: [],
  };
}

/**
 * The image of a unit as the manifest holds it: CRIU's images, and for each process its page map (`presentPagemap`, already
 * stored) and pages file, which consist of what Cairn has read itself. Every page is marked present; those that CRIU called
 * lazy stay so, because only they may be brought later.
 */
export function unitImage(
  unit: string,
  unitDescription: unknown,
  frozen: FrozenUnit,
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
  return encodePagemap({ pagesId, runs: present });
}
