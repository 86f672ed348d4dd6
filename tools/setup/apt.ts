import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { CairnError } from '../../src/errors.ts';
import { lastLines, runProgram } from '../../src/linux/run-program.ts';
import { parseVersion } from '../../src/linux/version.ts';

/** What `apt-get --simulate install` says it would do. */
export interface Simulation {
  /** Names with the architecture cut off, and versions. */
  installed: { name: string; version: string }[];
  upgraded: { name: string; from: string; to: string }[];
  removed: string[];
}

/** Reads the `Inst` and `Remv` lines of a simulated `apt-get install`. */
export function parseSimulation(text: string): Simulation {
  const simulation: Simulation = { installed: [], upgraded: [], removed: [] };
  for (const line of text.split('\n')) {
    const [, verb, name, old, version] =
      /^(Inst|Remv) ([^\s:]+)(?::\S+)?(?: \[([^\]]+)\])?(?: \((\S+))?/.exec(line) ?? [];
    if (name === undefined) continue;
    if (verb === 'Remv') simulation.removed.push(name);
    else if (old !== undefined) simulation.upgraded.push({ name, from: old, to: version ?? '' });
    else simulation.installed.push({ name, version: version ?? '' });
  }
  return simulation;
}

const aptOptions = [
  ...['--yes', '--quiet', '--no-install-recommends', '--no-upgrade'],
  ...['-o', 'DPkg::Lock::Timeout=300', '-o', 'Dpkg::Use-Pty=0'],
  ...['-o', 'Acquire::Retries=3', '-o', 'APT::Install-Suggests=false'],
];

const aptEnvironment = { DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_MODE: 'l', LC_ALL: 'C' };

/** Runs apt-get quietly; its output is shown only when it fails. Throws `environment` `packages-failed`. */
export async function aptGet(argv: readonly string[], timeoutMs = 60 * 60_000): Promise<string> {
  const result = await runProgram('apt-get', argv, { timeoutMs, env: aptEnvironment });
  if (result.code !== 0) {
    throw new CairnError('environment', 'packages-failed', `apt-get ended with code ${result.code}.`, {
      lines: lastLines(result.stdout + result.stderr, 15),
      remedy:
        'If packages cannot be reached, mend the network or /etc/apt; if dpkg was interrupted, run `dpkg --configure -a`.',
    });
  }
  return result.stdout;
}

/** Whether the host knows any package at all (images of containers come without lists). */
export function hasPackageLists(): boolean {
  try {
    return readdirSync('/var/lib/apt/lists').some((name) => /_Packages(\.\w+)?$/.test(name));
  } catch {
    return false;
  }
}

/** The version that apt would install (`1:1.30.1-6` → upstream `1.30.1`), or `undefined` when there is none. */
export async function candidateVersion(name: string): Promise<string | undefined> {
  const { stdout } = await runProgram('apt-cache', ['policy', name], { env: aptEnvironment });
  const candidate = /^\s*Candidate: (?:\d+:)?(\S+)/m.exec(stdout)?.[1];
  return candidate === undefined ? undefined : parseVersion(candidate);
}

/** What installing would do. Throws `environment` `packages-failed` when it cannot be done at all. */
export async function simulateInstall(names: readonly string[]): Promise<Simulation> {
  return parseSimulation(await aptGet(['--simulate', ...aptOptions, 'install', ...names], 120_000));
}

/**
 * Installs packages without starting any service, removing any package or upgrading one that nothing of this depends on.
 *
 * Throws `environment` `packages-conflict` when something would have to be removed.
 */
export async function install(names: readonly string[], say: (text: string) => void): Promise<void> {
  let simulation = await simulateOrUpdate(names, say);
  if (simulation.removed.length > 0) {
    throw new CairnError(
      'environment',
      'packages-conflict',
      `Installing ${names.join(' ')} would remove ${simulation.removed.join(' ')}.`,
      { remedy: 'Solve this by hand with apt, then run the setup again.' },
    );
  }
  for (const { name, from, to } of simulation.upgraded) {
    // Debian's development packages depend on the exact version of their library.
    say(`this brings ${name} from ${from} to ${to}, which a package depends on`);
  }
  using _guard = new NoServiceStarts();
  try {
    await aptGet([...aptOptions, 'install', ...names]);
  } catch (error) {
    if (!(error instanceof CairnError)) throw error;
    // Most likely the lists are older than the mirror; a second failure is final.
    say('apt-get update, because a package could not be fetched');
    await aptGet(['update', '--quiet']);
    simulation = await simulateInstall(names);
    if (simulation.removed.length > 0) throw error;
    await aptGet([...aptOptions, 'install', ...names]);
  }
}

async function simulateOrUpdate(names: readonly string[], say: (text: string) => void): Promise<Simulation> {
  if (hasPackageLists()) {
    try {
      return await simulateInstall(names);
    } catch (error) {
      if (!(error instanceof CairnError)) throw error;
    }
  }
  say('apt-get update');
  await aptGet(['update', '--quiet']);
  return simulateInstall(names);
}

const policyFile = '/usr/sbin/policy-rc.d';
const policyMark =
  '# temporary, by the setup of Cairn: packages are installed without starting their services\n';

/** While it is held, package scripts start no service: Debian's policy-rc.d answers 101, "forbidden". */
export class NoServiceStarts {
  readonly #file: string;
  readonly #mine: boolean;
  readonly #leave = () => this[Symbol.dispose]();

  constructor(file = policyFile) {
    this.#file = file;
    // One that was left behind by a setup that was killed has our mark and is taken over.
    this.#mine = !existsSync(file) || readFileSync(file, 'utf8').includes(policyMark);
    if (!this.#mine) return;
    writeFileSync(file, `#!/bin/sh\n${policyMark}exit 101\n`, { mode: 0o755 });
    process.once('exit', this.#leave);
  }

  [Symbol.dispose](): void {
    process.removeListener('exit', this.#leave);
    if (this.#mine) rmSync(this.#file, { force: true });
  }
}
