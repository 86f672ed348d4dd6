import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import type { Unit } from '../units/unit.ts';
import { forgetLayer, nextLayer, putBackLayer, settleLayers, swapLayer } from './layer-swap.ts';

/** The directory of a unit with these layers, each with a file that says which one it was. */
function unitWith(layers: readonly string[]): { upper: string; held: () => string } & Disposable {
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-swap-'));
  const upper = path.join(directory, 'upper');
  for (const layer of layers) {
    mkdirSync(path.join(directory, layer));
    writeFileSync(path.join(directory, layer, 'which'), layer);
  }
  return {
    upper,
    held() {
      assert.deepEqual(readdirSync(directory), ['upper']);
      return readFileSync(path.join(upper, 'which'), 'utf8');
    },
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

function fakeUnit(upper: string, state: string): Unit {
  return { paths: { upper }, status: async () => ({ state }), release: async () => {} } as unknown as Unit;
}

test('R23 a layer is replaced, and can be put back until it is forgotten', () => {
  using unit = unitWith(['upper', 'upper.next']);
  swapLayer(unit.upper);
  assert.ok(existsSync(`${unit.upper}.before`));
  putBackLayer(unit.upper);
  assert.equal(unit.held(), 'upper');
  mkdirSync(nextLayer(unit.upper));
  writeFileSync(path.join(nextLayer(unit.upper), 'which'), 'new');
  swapLayer(unit.upper);
  forgetLayer(unit.upper);
  assert.equal(unit.held(), 'new');
});

// What is on the disk when the daemon dies between two steps, and what must be the unit's layer then.
for (const { layers, running, resting } of [
  { layers: ['upper', 'upper.next'], running: undefined, resting: 'upper' },
  { layers: ['upper.before', 'upper.next'], running: undefined, resting: 'upper.before' },
  { layers: ['upper', 'upper.before'], running: 'upper', resting: 'upper.before' },
  { layers: ['upper', 'upper.gone'], running: 'upper', resting: 'upper' },
  { layers: ['upper'], running: 'upper', resting: 'upper' },
])
  test(`R19 a restart that died with ${layers.join(', ')} is settled`, async () => {
    {
      using unit = unitWith(layers);
      await settleLayers(fakeUnit(unit.upper, 'exited'));
      assert.equal(unit.held(), resting);
    }
    if (running === undefined) return;
    using unit = unitWith(layers);
    await settleLayers(fakeUnit(unit.upper, 'running'));
    assert.equal(unit.held(), running);
  });
