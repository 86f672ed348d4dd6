import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import path from 'node:path';
import { CairnError, messageOf, systemCode } from '../errors.ts';
import { runProgram } from './run-program.ts';
import { atLeast, parseVersion } from './version.ts';

/** Where `tools/setup.mjs` puts programs that the distribution has too old or not at all. */
export function privatePrefix(): string {
  return process.env.CAIRN_PREFIX ?? '/opt/cairn';
}

/** A program that was found. */
export interface FoundProgram {
  path: string;
  /** From Cairn's private prefix. */
  prefix: boolean;
}

// cron, systemd and `su` give root a PATH without the sbin directories.
const systemDirectories = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

/**
 * Finds a program: first the environment variable `CAIRN_NAME`, then the private prefix, then PATH and the usual system
 * directories. `undefined` when it is nowhere.
 *
 * Throws `environment` `program-missing` when the environment variable names something that cannot be run: what was asked
 * for explicitly is never replaced silently.
 */
export async function findProgram(name: string): Promise<FoundProgram | undefined> {
  const variable = `CAIRN_${name.toUpperCase().replaceAll('-', '_')}`;
  const chosen = process.env[variable];
  if (chosen !== undefined && chosen !== '') {
    if (await isExecutable(chosen)) return { path: chosen, prefix: false };
    throw new CairnError(
      'environment',
      'program-missing',
      `Looked for ${name} at ${chosen}, as ${variable} says, but there is no program.`,
      { remedy: `Correct or unset ${variable}.` },
    );
  }
  const own = path.join(privatePrefix(), 'bin', name);
  if (await isExecutable(own)) return { path: own, prefix: true };
  const directories = [...(process.env.PATH ?? '').split(':').filter(path.isAbsolute), ...systemDirectories];
  for (const directory of directories) {
    const candidate = path.join(directory, name);
    if (await isExecutable(candidate)) return { path: candidate, prefix: false };
  }
  return undefined;
}

async function isExecutable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export type RuntimeName = 'runc' | 'crun';

/** An OCI runtime that was found and is new enough. */
export interface Runtime extends FoundProgram {
  name: RuntimeName;
  version: string;
}

/** Oldest usable version of each runtime, and why no older one. */
export const runtimeRequirements: Readonly<Record<RuntimeName, { minimum: string; reason: string }>> = {
  runc: { minimum: '1.2.0', reason: 'older ones cannot give a container its own time namespace' },
  crun: { minimum: '1.9', reason: 'older ones refuse the hybrid cgroup hierarchy' },
};

/**
 * Finds an OCI runtime and its version.
 *
 * Throws `environment` `runtime-missing`, `runtime-too-old` or `runtime-broken`.
 */
export async function findRuntime(name: RuntimeName): Promise<Runtime> {
  const found = await findProgram(name);
  if (found === undefined) {
    throw new CairnError('environment', 'runtime-missing', `The OCI runtime ${name} is not installed.`, {
      remedy: name === 'runc' ? 'sudo npm run setup' : 'sudo apt-get install crun',
    });
  }
  const version = await versionOf(found.path);
  const { minimum, reason } = runtimeRequirements[name];
  if (!atLeast(version, minimum)) {
    throw new CairnError(
      'environment',
      'runtime-too-old',
      `${found.path} is version ${version}, but Cairn needs ${name} ${minimum} or newer: ${reason}.`,
      { remedy: name === 'runc' ? 'sudo npm run setup' : `Install a newer ${name}, or use runc.` },
    );
  }
  return { ...found, name, version };
}

async function versionOf(program: string): Promise<string> {
  let result: Awaited<ReturnType<typeof runProgram>>;
  try {
    result = await runProgram(program, ['--version']);
  } catch (error) {
    throw broken(program, systemCode(error) ?? messageOf(error), error);
  }
  const version = parseVersion(result.stdout);
  if (result.code !== 0 || version === undefined) {
    throw broken(program, `it ended with code ${result.code} and no version`, undefined);
  }
  return version;
}

function broken(program: string, why: string, cause: unknown): CairnError {
  return new CairnError('environment', 'runtime-broken', `Asked ${program} for its version: ${why}.`, {
    remedy: 'sudo npm run setup',
    ...(cause === undefined ? {} : { cause }),
  });
}
