import { existsSync, rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type Criu, findCriu } from '../criu/find.ts';
import { endLeftoverCriu, leftoverCriu } from '../criu/leftovers.ts';
import { readTree } from '../linux/process.ts';
import type { Store } from '../store/store.ts';
import { HeldUserfaultfds } from '../units/held-userfaultfds.ts';
import type { Unit } from '../units/unit.ts';
import type { Units } from '../units/units.ts';
import { CapturePool } from './capture-pool.ts';
import { settleLayers } from './layer-swap.ts';
import { type Preflight, preflightUnit } from './preflight.ts';
import { endTcpRepairs, removeCriuLocks, waitUntilThawed } from './thaw-check.ts';
import { dumpDirectory } from './checkpoint-run.ts';
import type { CheckpointRequest, CheckpointResult } from './checkpoint-request.ts';
import { UnitCheckpointer } from './unit-checkpointer.ts';
import { type RestartRequest, releaseWhenWhole, UnitRestarter } from './unit-restart.ts';

/** How long a CRIU that a dead daemon left behind may take to notice and let its unit go. */
const leftoverTimeoutMs = 15_000;

/** Checkpoints and restarts of this node. One for the daemon; disposing ends its threads. */
export class Checkpointer implements AsyncDisposable {
  readonly #store: Store;
  readonly #pool = new CapturePool();
  readonly #units: UnitCheckpointer;
  readonly #restarter: UnitRestarter;

  constructor(places: { units: Units; store: Store; criu?: () => Promise<Criu> }) {
    const criu = places.criu ?? findCriu;
    this.#store = places.store;
    this.#units = new UnitCheckpointer(places.store, this.#pool, criu);
    this.#restarter = new UnitRestarter(places.units, places.store, this.#pool, criu);
  }

  /** Starts what makes the first checkpoint as quick as the later ones. */
  warm(): void {
    this.#pool.warm();
  }

  /** Looks whether a unit can be saved, and how large and long that would be (R18, H08). */
  preflight(unit: Unit, options: { signal: AbortSignal }): Promise<Preflight> {
    return preflightUnit(unit, { ...options, measureLayer: true });
  }

  /** See `UnitCheckpointer.checkpoint`. */
  checkpoint(request: CheckpointRequest): Promise<CheckpointResult> {
    return this.#units.checkpoint(request);
  }

  /** See `UnitRestarter.restart`. */
  restart(request: RestartRequest): Promise<{ unit: Unit; timings: Record<string, number> }> {
    return this.#restarter.restart(request);
  }

  /** The description that the job had when the snapshot was taken. */
  async jobDescription(jobId: string, sequence: number): Promise<unknown> {
    return (await this.#store.readManifest(jobId, sequence)).jobDescription;
  }

  /** After a start of the daemon: brings a unit in order of which its predecessor had a dump or a restart under way. */
  async recover(unit: Unit): Promise<void> {
    await endLeftoverDump(unit);
    await settleLayers(unit);
    const from = unit.arrivingFrom();
    if (from === undefined) return;
    // Without its monitor the rest of its memory will never come: what is missing would read as zeros.
    if (!(await unit.isMonitored())) await unit.kill();
    else {
      const held = new AsyncDisposableStack();
      held.use(this.#store.pin(from.jobId, from.sequence));
      held.use(new HeldUserfaultfds(unit.paths));
      releaseWhenWhole(unit, held);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]();
  }
}

/**
 * A dump whose daemon is dead has lost its other end: CRIU lets the unit go by itself. If it does not in time it is ended, and
 * the kernel lets the unit go.
 */
async function endLeftoverDump(unit: Unit): Promise<void> {
  const directory = dumpDirectory(unit);
  if (!existsSync(directory)) return;
  const deadline = performance.now() + leftoverTimeoutMs;
  while (leftoverCriu(directory, ['dump']).length > 0 && performance.now() < deadline) await delay(20);
  endLeftoverCriu(directory, ['dump']);
  await waitUntilThawed(await unit.processes());
  rmSync(directory, { recursive: true, force: true });
  // A CRIU that was killed leaves the network of the unit locked.
  const { pid } = await unit.status();
  if (pid === undefined) return;
  endTcpRepairs(readTree(pid));
  await removeCriuLocks(pid).catch(() => {});
}
