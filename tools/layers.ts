import { readFileSync } from 'node:fs';
import path from 'node:path';

/** The rooms of `src/`, as docs/architecture.md lists them: imports go to the right only. */
export function readRooms(architecture: string): string[] {
  const start = architecture.indexOf('`cli` →');
  if (start === -1) throw new Error('docs/architecture.md does not list the rooms any more');
  const list = architecture.slice(start, architecture.indexOf('`errors.ts`', start));
  return [...list.matchAll(/`([\w-]+)`/g)].map(([, room]) => room ?? '');
}

/** Modules that a source text imports from files, as they are written (`../linux/libc.ts`), types too. */
export function importsOf(source: string): string[] {
  const pattern = /(?:\bfrom\s+|\bimport\s*\(?\s*|\bnew URL\(\s*)['"](\.{1,2}\/[^'"]+)['"]/g;
  return [...source.matchAll(pattern)].map(([, name]) => name ?? '');
}

/**
 * The imports of a file below `src/` that go upwards, or out of `src/`, as sentences.
 *
 * A test may use everything: it is a room above all others.
 */
export function findUpwardImports(file: string, source: string, rooms: readonly string[]): string[] {
  if (file.endsWith('.test.ts')) return [];
  const rank = (name: string) => {
    const room = name.split('/')[1] ?? '';
    // Files directly in src (errors.ts) are below all rooms.
    return name.split('/').length === 2 ? rooms.length : rooms.indexOf(room);
  };
  const from = rank(file);
  if (from === -1) return [`${file} is in a room that docs/architecture.md does not list`];
  const complaints: string[] = [];
  for (const name of importsOf(source)) {
    const target = path.posix.normalize(path.posix.join(path.posix.dirname(file), name));
    // The version is read from it.
    if (target === 'package.json') continue;
    if (!target.startsWith('src/')) complaints.push(`${file} imports ${target}, which is not in src`);
    else if (rank(target) < from) complaints.push(`${file} imports upwards: ${target}`);
  }
  return complaints;
}

/** Checks files (paths from the project's root). */
export function checkLayers(root: string, files: readonly string[]): string[] {
  const rooms = readRooms(readFileSync(path.join(root, 'docs/architecture.md'), 'utf8'));
  return files.flatMap((file) => findUpwardImports(file, readFileSync(path.join(root, file), 'utf8'), rooms));
}
