// Everything about the source that a machine can judge: types, lint, format, layers. `npm run check`.
import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { checkLayers } from './layers.ts';

const root = path.dirname(import.meta.dirname);
const longFile = 400;

/** Runs a program of node_modules; returns whether it was content. */
function run(title: string, program: string, argv: readonly string[]): boolean {
  const started = performance.now();
  const result = spawnSync(path.join(root, 'node_modules/.bin', program), argv, {
    cwd: root,
    encoding: 'utf8',
  });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const good = result.status === 0;
  process.stdout.write((good ? 'ok' : 'FAILED').padEnd(8) + `${title} (${seconds} s)\n`);
  if (!good)
    process.stdout.write(`${result.stdout ?? ''}${result.stderr ?? ''}${result.error?.message ?? ''}\n`);
  return good;
}

function checkLayering(): boolean {
  const complaints = checkLayers(root, globSync('src/**/*.ts', { cwd: root }));
  process.stdout.write(
    (complaints.length === 0 ? 'ok' : 'FAILED').padEnd(8) + 'layers: imports go downwards only\n',
  );
  for (const complaint of complaints) process.stdout.write(`        ${complaint}\n`);
  return complaints.length === 0;
}

function warnOfLongFiles(): void {
  for (const file of globSync('{src,tools,test,bench}/**/*.{ts,mjs}', { cwd: root })) {
    const lines = readFileSync(path.join(root, file), 'utf8').split('\n').length - 1;
    if (lines > longFile)
      process.stdout.write(`note    ${file} has ${lines} lines; above ${longFile} it should be two\n`);
  }
}

const results = [
  run('types (tsc)', 'tsc', ['--noEmit', '-p', '.']),
  run('lint (oxlint)', 'oxlint', ['--type-aware', '--format=unix']),
  run('format (biome)', 'biome', ['format', '.']),
  checkLayering(),
];
warnOfLongFiles();
process.exitCode = results.every(Boolean) ? 0 : 1;
