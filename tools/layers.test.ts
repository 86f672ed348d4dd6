import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { checkLayers, findUpwardImports, importsOf, readRooms } from './layers.ts';

const root = path.dirname(import.meta.dirname);

test('rooms are read from the architecture', () => {
  const rooms = readRooms(readFileSync(path.join(root, 'docs/architecture.md'), 'utf8'));
  assert.equal(rooms[0], 'cli');
  assert.equal(rooms.at(-1), 'linux');
  assert.ok(rooms.indexOf('checkpoint') < rooms.indexOf('store'));
});

test('imports of every kind are seen', () => {
  const source = `import { a } from '../a.ts';
import type { B } from "./b.ts";
import './c.ts';
export * from '../d/e.ts';
const f = await import('./f.ts');
new Worker(new URL('./g.ts', import.meta.url));
import fs from 'node:fs';`;
  assert.deepEqual(importsOf(source), ['../a.ts', './b.ts', './c.ts', '../d/e.ts', './f.ts', './g.ts']);
});

test('an import upwards, out of src, or from an unlisted room is found', () => {
  const rooms = ['cli', 'jobs', 'linux'];
  const find = (file: string, name: string) => findUpwardImports(file, `import '${name}';`, rooms);
  assert.deepEqual(find('src/cli/main.ts', '../linux/libc.ts'), []);
  assert.deepEqual(find('src/linux/libc.ts', '../errors.ts'), []);
  assert.deepEqual(find('src/jobs/job.ts', './description.ts'), []);
  assert.match(find('src/linux/libc.ts', '../jobs/job.ts').join(), /upwards: src\/jobs\/job\.ts/);
  assert.match(find('src/jobs/job.ts', '../../tools/test.ts').join(), /not in src/);
  assert.match(find('src/attic/old.ts', './x.ts').join(), /does not list/);
});

test('imports go downwards only in the whole source', () => {
  assert.deepEqual(checkLayers(root, globSync('src/**/*.ts', { cwd: root })), []);
});
