import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { CairnError } from '../../src/errors.ts';
import { runProgram } from '../../src/linux/run-program.ts';
import { aptGet, parseSimulation } from './apt.ts';

/** The Debian suites that are tried for newer programs, in this order. */
export const suites = ['forky', 'sid'] as const;

const keyrings = [
  '/usr/share/keyrings/debian-archive-keyring.gpg',
  '/usr/share/keyrings/debian-archive-keyring.pgp',
];

/** Debian's archive keys, by which apt verifies what it fetches; package `debian-archive-keyring`. */
export function debianKeyring(): string | undefined {
  return keyrings.find((file) => existsSync(file));
}

const defaultMirror = 'http://deb.debian.org/debian';

/** The mirror that this host uses for Debian (so that a local mirror is kept to), else the usual one. */
export async function debianMirror(): Promise<string> {
  const format = '$(ORIGIN)|$(LABEL)|$(REPO_URI)';
  const { stdout } = await runProgram('apt-get', [
    'indextargets',
    '--format',
    format,
    'Created-By: Packages',
  ]);
  return mirrorOf(stdout) ?? defaultMirror;
}

/** Picks Debian's main archive from `apt-get indextargets`. */
export function mirrorOf(targets: string): string | undefined {
  for (const line of targets.split('\n')) {
    const [origin, label, uri] = line.split('|');
    if (origin === 'Debian' && label === 'Debian' && uri?.startsWith('http')) return uri.replace(/\/$/, '');
  }
  return undefined;
}

/** A package file that apt has fetched and verified. */
export interface FetchedPackage {
  name: string;
  version: string;
  file: string;
}

/**
 * Fetches packages of another Debian suite with everything they depend on, the C library included.
 *
 * apt gets an own sources list, state and cache below `directory` and believes that nothing is installed; the host's apt
 * and dpkg do not notice. Signatures are verified against Debian's keyring. Throws `environment` `packages-failed`.
 */
export async function fetchPackages(
  names: readonly string[],
  options: { suite: string; mirror: string; keyring: string; directory: string },
): Promise<FetchedPackage[]> {
  const { directory } = options;
  const state = path.join(directory, 'state');
  const cache = path.join(directory, 'cache');
  await mkdir(path.join(state, 'lists/partial'), { recursive: true });
  await mkdir(path.join(cache, 'archives/partial'), { recursive: true });
  await writeFile(path.join(state, 'status'), '');
  const sources = path.join(directory, 'sources.list');
  await writeFile(sources, `deb [signed-by=${options.keyring}] ${options.mirror} ${options.suite} main\n`);
  const settings = {
    'Dir::Etc::SourceList': sources,
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::Etc::Preferences': '/dev/null',
    'Dir::Etc::PreferencesParts': '/dev/null',
    'Dir::Etc::Trusted': '/dev/null',
    'Dir::Etc::TrustedParts': '/dev/null',
    'Dir::State': state,
    'Dir::State::status': path.join(state, 'status'),
    'Dir::Cache': cache,
    'APT::Get::AllowUnauthenticated': 'false',
    'APT::Install-Recommends': 'false',
    'APT::Install-Suggests': 'false',
    // Half a success (old lists kept) must not pass for a success.
    'APT::Update::Error-Mode': 'any',
    'APT::Sandbox::User': 'root',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '3',
  };
  const apt = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  await aptGet([...apt, '--quiet', 'update'], 10 * 60_000);
  const { installed } = parseSimulation(await aptGet([...apt, '--simulate', 'install', ...names], 120_000));
  await aptGet([...apt, '--quiet', '--yes', '--download-only', 'install', ...names], 20 * 60_000);
  return installed.map(({ name, version }) => ({
    name,
    version,
    file: fetchedFile(path.join(cache, 'archives'), name, version),
  }));
}

function fetchedFile(archives: string, name: string, version: string): string {
  const architecture = process.arch === 'x64' ? 'amd64' : 'arm64';
  const stem = `${name}_${version.replaceAll(':', '%3a')}`;
  for (const ending of [architecture, 'all']) {
    const file = path.join(archives, `${stem}_${ending}.deb`);
    if (existsSync(file)) return file;
  }
  throw new CairnError(
    'environment',
    'packages-failed',
    `apt fetched ${name} ${version}, but its file is not there.`,
  );
}
