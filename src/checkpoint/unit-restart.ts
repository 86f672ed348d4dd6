import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { Criu } from '../criu/find.ts';
import { CairnError } from '../errors.ts';
import type { ChunkList } from '../store/chunk-list.ts';
import type { SnapshotManifest, StoredStream, UnitImage } from '../store/manifest.ts';
import type { Store } from '../store/store.ts';
import type { ExternalMount } from '../units/external-mounts.ts';
import { type RestorePlan, removeRestorePlan, writeRestorePlan } from '../units/restore-file.ts';
import { parseUnitSpec, type UnitSpec } from '../units/spec.ts';
import { HeldUserfaultfds } from '../units/held-userfaultfds.ts';
import type { Unit } from '../units/unit.ts';
import type { Units } from '../units/units.ts';
import type { CapturePool } from './capture-pool.ts';
import type { CheckpointEvent, CheckpointPhase } from './events.ts';
import type { RestoredEntry } from './layer-restore.ts';
import { forgetLayer, nextLayer, putBackLayer, settleLayers, swapLayer } from './layer-swap.ts';
import type { RestoreFacts } from './unit-image.ts';

const arrivalPollMs = 200;

/** What a clone must not share with the job that it comes from. */
export interface RestartOverrides {
  hostname?: string;
  /** `null`: a free address is chosen. */
  address?: string | null;
  ports?: UnitSpec['network']['ports'];
}

/** A restart of one unit from a snapshot. */
export interface RestartRequest {
  jobId: string;
  sequence: number;
  /** A new unit, or one whose processes have ended: its files are replaced. */
  unitId: string;
  overrides: RestartOverrides;
  lazy: boolean;
  onEvent: (event: CheckpointEvent) => void;
  signal: AbortSignal;
}

/** Restarts units of this node from snapshots. */
export class UnitRestarter {
  readonly #units: Units;
  readonly #store: Store;
  readonly #pool: CapturePool;
  readonly #criu: () => Promise<Criu>;

  constructor(units: Units, store: Store, pool: CapturePool, criu: () => Promise<Criu>) {
    this.#units = units;
    this.#store = store;
    this.#pool = pool;
    this.#criu = criu;
  }

  /**
   * Brings a unit back. The manifest's signature is checked before anything is touched, every chunk before CRIU gets it. On an error
   * the unit is as it was before: its old files are in place again, and nothing of it runs.
   */
  async restart(request: RestartRequest): Promise<{ unit: Unit; timings: Record<string, number> }> {
    const started = performance.now();
    const phase = (name: CheckpointPhase) =>
      request.onEvent({ kind: 'phase', phase: name, atMs: performance.now() - started });
    phase('prepare');
    await using held = new AsyncDisposableStack();
    held.use(this.#store.pin(request.jobId, request.sequence));
    const manifest = await this.#store.readManifest(request.jobId, request.sequence);
    const image = onlyUnit(manifest);
    const criu = await this.#criu();
    const spec = newSpec(image, request);
    const { unit, undo } = await this.#makeUnit(spec, image, request.signal);
    try {
      const preparedMs = performance.now() - started;
      phase('restore');
      request.signal.throwIfAborted();
      const file = path.join(unit.paths.run, 'restore.json');
      writeRestorePlan(file, this.#restorePlan(criu, unit, image, request));
      if (request.lazy) held.use(new HeldUserfaultfds(unit.paths));
      try {
        await unit.launch({ kind: 'restore', file });
      } finally {
        removeRestorePlan(file);
      }
      const totalMs = performance.now() - started;
      phase('resume');
      await undo.forget();
      if (request.lazy) releaseWhenWhole(unit, held.move());
      return { unit, timings: { prepareMs: preparedMs, restoreMs: totalMs - preparedMs, totalMs } };
    } catch (error) {
      await undo.run();
      throw error;
    }
  }

  /** The unit with the files of the snapshot, mounted by nobody yet. */
  async #makeUnit(
    spec: UnitSpec,
    image: UnitImage,
    signal: AbortSignal,
  ): Promise<{ unit: Unit; undo: { run(): Promise<void>; forget(): Promise<void> } }> {
    const existing = await this.#units.open(spec.id);
    if (existing === undefined) {
      const unit = await this.#units.prepare(spec);
      try {
        rmSync(unit.paths.upper, { recursive: true, force: true });
        await this.#writeLayers(unit, unit.paths.upper, image, signal);
      } catch (error) {
        await unit.remove();
        throw error;
      }
      return { unit, undo: { run: () => unit.remove(), forget: async () => {} } };
    }
    const { state } = await existing.status();
    if (state === 'running' || state === 'suspended')
      throw new CairnError('argument', 'unit-running', `unit ${spec.id} is running`, {
        remedy: 'stop the job first, or restart it with --clone',
      });
    await existing.release();
    // Left by a restart that was interrupted.
    await settleLayers(existing);
    const { upper } = existing.paths;
    const unit = await this.#units.renew(spec).catch(async (error: unknown) => {
      await existing.release();
      throw error;
    });
    const putBack = async () => {
      await unit.release();
      putBackLayer(upper);
    };
    try {
      await this.#writeLayers(unit, nextLayer(upper), image, signal, upper);
      swapLayer(upper);
    } catch (error) {
      await putBack();
      throw error;
    }
    return { unit, undo: { run: putBack, forget: async () => forgetLayer(upper) } };
  }

  /** `before`: the layer that the new one in `upper` will take the place of. */
  async #writeLayers(
    unit: Unit,
    upper: string,
    image: UnitImage,
    signal: AbortSignal,
    before?: string,
  ): Promise<void> {
    mkdirSync(upper, { mode: 0o755 });
    unit.mountShm();
    await using workers = this.#pool.lease();
    for (const layer of image.layers) {
      signal.throwIfAborted();
      const lists = new ListTable();
      const entries: RestoredEntry[] = layer.entries.map(({ content, ...entry }) =>
        content === undefined ? entry : { ...entry, content: lists.content(content) },
      );
      const plan = this.#store.resolve(lists.lists);
      const environment = this.#store.readerEnvironment(plan);
      const root = layer.name === 'root' ? upper : unit.paths.shm;
      const old = layer.name === 'root' ? before : undefined;
      await workers.stream.request({ op: 'restore-layer', root, before: old, entries, plan, environment });
    }
  }

  #restorePlan(criu: Criu, unit: Unit, image: UnitImage, request: RestartRequest): RestorePlan {
    const facts = image.restore as unknown as RestoreFacts;
    const lists = new ListTable();
    const images = image.images.map(({ name, content }) => {
      const stored = lists.content(content);
      return {
        name,
        size: stored.size,
        content:
          'list' in stored
            ? { list: stored.list }
            : { inlineBase64: Buffer.from(stored.inline).toString('base64') },
      };
    });
    const plan = this.#store.resolve(lists.lists);
    return {
      criu: criu.path,
      criuVersion: criu.version,
      source: {
        kind: 'snapshot',
        snapshot: { jobId: request.jobId, sequence: request.sequence },
        lazy: request.lazy,
        images,
        plan,
        environment: this.#store.readerEnvironment(plan),
      },
      stdio: facts.stdio,
      consoleKeys: facts.consoleKeys,
      externalMounts: mountsFor(unit, facts.mounts),
      ...(facts.runtimeState === null ? {} : { runtimeState: facts.runtimeState }),
    };
  }
}

/** Gives back what a lazy restore needs (its snapshot must stay) when all memory of the unit has arrived, or the unit is gone. */
export function releaseWhenWhole(unit: Unit, held: AsyncDisposable): void {
  const look = async () => {
    const { state } = await unit.status();
    const isArriving = unit.arrivingFrom() !== undefined && (state === 'running' || state === 'suspended');
    if (isArriving) setTimeout(again, arrivalPollMs).unref();
    else await held[Symbol.asyncDispose]();
  };
  const again = () => {
    look().catch(() => void setTimeout(again, arrivalPollMs).unref());
  };
  again();
}

/** Numbers the chunk lists of a plan. */
class ListTable {
  readonly lists: ChunkList[] = [];

  content(stream: StoredStream): { size: number; inline: Uint8Array } | { size: number; list: number } {
    if (stream.chunks instanceof Uint8Array) return { size: stream.size, inline: stream.chunks };
    return { size: stream.size, list: this.lists.push(stream.chunks) - 1 };
  }
}

function onlyUnit(manifest: SnapshotManifest): UnitImage {
  const [image, ...others] = manifest.units;
  if (image === undefined || others.length > 0)
    throw new CairnError(
      'permanent',
      'snapshot-units',
      `the snapshot holds ${manifest.units.length} units, not one`,
    );
  return image;
}

function newSpec(image: UnitImage, { unitId, overrides }: RestartRequest): UnitSpec {
  const saved = parseUnitSpec(image.unitDescription);
  const { address: savedAddress, ...network } = saved.network;
  const address = overrides.address === undefined ? savedAddress : (overrides.address ?? undefined);
  return {
    ...saved,
    id: unitId,
    hostname: overrides.hostname ?? saved.hostname,
    network: {
      ...network,
      ...(address === undefined ? {} : { address }),
      ports: overrides.ports ?? network.ports,
    },
  };
}

/** The external mounts, with those that lie in a directory of the unit taken from the unit that is restored. */
function mountsFor(unit: Unit, saved: readonly ExternalMount[]): ExternalMount[] {
  const { pts } = unit.paths;
  const binds = unit.readBundle().mounts.filter(({ type }) => type === 'bind');
  const sources = new Map(binds.map(({ destination, source }) => [destination, source]));
  return saved.map(({ mountPoint, source }) => {
    if (mountPoint === '/dev/console') return { mountPoint, source: path.join(pts, path.basename(source)) };
    return { mountPoint, source: sources.get(mountPoint) ?? source };
  });
}
