/**
 * Replaces the writable layer of a unit by that of a snapshot, in steps between which the daemon may die: `UPPER.next` is being written,
 * `UPPER.before` is what the unit had, `UPPER.gone` is being deleted.
 */

import { existsSync, renameSync, rmSync } from 'node:fs';
import type { Unit } from '../units/unit.ts';

const remove = (directory: string) => rmSync(directory, { recursive: true, force: true });

/** Where the new layer is written. */
export function nextLayer(upper: string): string {
  return `${upper}.next`;
}

/** Makes the new layer the unit's; the one it had is kept until `forgetLayer` or `putBackLayer`. */
export function swapLayer(upper: string): void {
  remove(`${upper}.before`);
  renameSync(upper, `${upper}.before`);
  renameSync(nextLayer(upper), upper);
}

/** Gives the unit the layer that it had. */
export function putBackLayer(upper: string): void {
  remove(nextLayer(upper));
  if (!existsSync(`${upper}.before`)) return;
  remove(upper);
  renameSync(`${upper}.before`, upper);
}

/** The unit runs on the new layer: the old one goes. */
export function forgetLayer(upper: string): void {
  // First out of the way, in one step: half of it must never be put back.
  if (existsSync(`${upper}.before`)) renameSync(`${upper}.before`, `${upper}.gone`);
  remove(`${upper}.gone`);
}

/** After a start of the daemon: ends a restart during which its predecessor died. A unit that runs has been restarted. */
export async function settleLayers(unit: Unit): Promise<void> {
  const { upper } = unit.paths;
  if (!['next', 'before', 'gone'].some((name) => existsSync(`${upper}.${name}`))) return;
  const { state } = await unit.status();
  if (state !== 'running' && state !== 'suspended') {
    // Not under a mounted file system.
    await unit.release();
    putBackLayer(upper);
  }
  remove(nextLayer(upper));
  forgetLayer(upper);
}
