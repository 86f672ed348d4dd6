import { existsSync } from 'node:fs';
import {
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { CairnError } from '../../src/errors.ts';
import { lastLines, runProgram } from '../../src/linux/run-program.ts';
import { parseVersion } from '../../src/linux/version.ts';
import type { FetchedPackage } from './debian-source.ts';

/** What is recorded in `manifest.json` of the prefix. */
export interface PrefixManifest {
  format: 1;
  architecture: string;
  suite: string;
  programs: Record<string, { version: string }>;
  packages: { name: string; version: string }[];
}

/** A built set of programs that is not in use yet. */
export interface BuiltPrefix {
  directory: string;
  programs: Record<string, { version: string }>;
}

const programPaths = ['usr/sbin', 'usr/bin', 'sbin', 'bin'];

// The C library loads this one by name when a thread is cancelled; nothing lists it as needed.
const loadedByName = ['libgcc_s.so.1'];

/**
 * Unpacks programs and the libraries they need into a new directory `PREFIX/releases/…`, with their own C library: the
 * interpreter and the library path are written into the programs, so that they run on hosts with an older C library.
 *
 * Nothing uses the directory before `activate`. Throws `environment` `prefix-failed`.
 */
export async function buildPrefix(
  prefix: string,
  programs: readonly string[],
  packages: readonly FetchedPackage[],
  options: { suite: string; scratch: string },
): Promise<BuiltPrefix> {
  const unpacked = path.join(options.scratch, 'root');
  await mkdir(unpacked, { recursive: true });
  for (const { file } of packages) await tool('dpkg-deb', ['-x', file, unpacked]);
  const label = programs.map((program) => {
    const version = packages.find(({ name }) => name === program)?.version ?? 'unknown';
    return `${program}-${version.replace(/^\d+:/, '').replaceAll(/[^\w.+-]/g, '_')}`;
  });
  const releases = path.join(prefix, 'releases');
  await mkdir(releases, { recursive: true });
  const directory = await mkdtemp(path.join(releases, `${label.join('_')}-`));
  const bin = path.join(directory, 'bin');
  const lib = path.join(directory, 'lib');
  await mkdir(bin);
  await mkdir(lib);
  // mkdtemp makes it private to root; the commands in it are for everybody.
  await tool('chmod', ['755', directory]);

  const libraries = await findLibraries(unpacked);
  const manifest: PrefixManifest = {
    format: 1,
    architecture: process.arch,
    suite: options.suite,
    programs: {},
    packages: packages.map(({ name, version }) => ({ name, version })),
  };
  const wanted = [...loadedByName];
  for (const program of programs) {
    const source = programPaths.map((part) => path.join(unpacked, part, program)).find((f) => existsSync(f));
    if (source === undefined) throw failed(`The package ${program} has no program ${program}.`);
    const target = path.join(bin, program);
    await copyFile(source, target);
    const interpreter = path.basename(await tool('patchelf', ['--print-interpreter', target]));
    wanted.push(interpreter, ...(await neededBy(target)));
    await tool('patchelf', [
      ...['--set-interpreter', path.join(lib, interpreter)],
      ...['--force-rpath', '--set-rpath', lib, target],
    ]);
  }
  const copied = new Set<string>();
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    if (copied.has(name)) continue;
    copied.add(name);
    const source = libraries.get(name);
    if (source === undefined) throw failed(`The library ${name} is in none of the fetched packages.`);
    await copyFile(source, path.join(lib, name));
    wanted.push(...(await neededBy(source)));
  }
  for (const program of programs) {
    const told = await runProgram(path.join(bin, program), ['--version']);
    const version = parseVersion(told.stdout);
    if (told.code !== 0 || version === undefined) {
      throw failed(`The unpacked ${program} does not start.`, lastLines(told.stderr + told.stdout));
    }
    manifest.programs[program] = { version };
  }
  await writeFile(path.join(directory, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  return { directory, programs: manifest.programs };
}

/** Makes a built set the one in use, in one step: `PREFIX/current` is renamed over. Older sets are removed. */
export async function activate(prefix: string, built: BuiltPrefix): Promise<void> {
  await replaceLink(path.relative(prefix, built.directory), path.join(prefix, 'current'));
  await replaceLink('current/bin', path.join(prefix, 'bin'));
  await replaceLink('current/manifest.json', path.join(prefix, 'manifest.json'));
  const current = path.basename(built.directory);
  for (const name of await readdir(path.join(prefix, 'releases'))) {
    if (name !== current) await rm(path.join(prefix, 'releases', name), { recursive: true, force: true });
  }
}

async function replaceLink(target: string, link: string): Promise<void> {
  if ((await readlink(link).catch(() => undefined)) === target) return;
  const temporary = `${link}.new-${process.pid}`;
  await rm(temporary, { force: true });
  await symlink(target, temporary);
  await rename(temporary, link);
}

/** Shared objects by name; libraries lie directly in `lib` or in its folder for the architecture. */
async function findLibraries(unpacked: string): Promise<Map<string, string>> {
  const triplet = `${process.arch === 'x64' ? 'x86_64' : 'aarch64'}-linux-gnu`;
  const libraries = new Map<string, string>();
  for (const part of ['lib', 'usr/lib', 'lib64', 'usr/lib64', `lib/${triplet}`, `usr/lib/${triplet}`]) {
    const directory = path.join(unpacked, part);
    for (const name of await readdir(directory).catch(() => [])) {
      // A link may point to an absolute path of the host, which is another file: only what lies in the packages counts.
      if (/\.so(\.|$)/.test(name) && existsSync(path.join(directory, name))) {
        libraries.set(name, path.join(directory, name));
      }
    }
  }
  return libraries;
}

async function neededBy(file: string): Promise<string[]> {
  const needed = await tool('patchelf', ['--print-needed', file]);
  return needed.split('\n').filter((name) => name !== '');
}

async function tool(program: string, argv: string[]): Promise<string> {
  const { code, stdout, stderr } = await runProgram(program, argv, { timeoutMs: 120_000 });
  if (code !== 0)
    throw failed(`\`${program} ${argv.join(' ')}\` ended with code ${code}.`, lastLines(stderr));
  return stdout.trim();
}

function failed(message: string, lines: string[] = []): CairnError {
  return new CairnError('environment', 'prefix-failed', message, {
    lines,
    remedy: 'Run the setup again; if it fails again, report it with these lines.',
  });
}
