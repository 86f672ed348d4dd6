import { accessSync, constants, globSync } from 'node:fs';
import { CairnError } from '../../src/errors.ts';
import { runProgram } from '../../src/linux/run-program.ts';
import { install } from './apt.ts';
import { type Purpose, type Requirement, requirementsFor } from './purposes.ts';
import type { Report } from './report.ts';

/** Provides the Debian packages of a purpose; what is there from any source is left as it is. */
export async function providePackages(report: Report, purpose: Purpose): Promise<void> {
  const needed = requirementsFor(purpose);
  const absent = needed.filter((requirement) => !isThere(requirement));
  if (absent.length === 0) {
    report.ok(`packages: ${needed.map((requirement) => requirement.package).join(' ')}`);
    return;
  }
  if (report.checkOnly) {
    for (const { package: name, why } of absent) report.missed(`package ${name} (${why})`);
    return;
  }
  await installPackages(
    report,
    absent.map((requirement) => requirement.package),
  );
  await leaveServicesOff(report, absent);
  const still = absent.filter((requirement) => !isThere(requirement));
  for (const { package: name, why } of still) report.missed(`package ${name} (${why})`);
  if (still.length === 0)
    report.ok(`packages: ${needed.map((requirement) => requirement.package).join(' ')}`);
}

/** Installs packages with a line for each thing done. */
export async function installPackages(report: Report, names: readonly string[]): Promise<void> {
  report.doing(`apt-get install ${names.join(' ')}`);
  await install(names, (text) => report.doing(text));
}

/** Whether what a package would provide is there. */
export function isThere(requirement: Requirement): boolean {
  const programs = requirement.programs ?? [];
  const files = requirement.files ?? [];
  return (
    programs.every((name) => programExists(name)) && files.every((pattern) => globSync(pattern).length > 0)
  );
}

function programExists(name: string): boolean {
  const directories = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin'];
  // The pinned Node.js puts its own directory first in PATH; nothing that is looked for here lies there.
  return directories.some((directory) => {
    try {
      accessSync(`${directory}/${name}`, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Packages that the setup installed itself must not run their service at the next boot: nobody asked for that. */
async function leaveServicesOff(report: Report, installed: readonly Requirement[]): Promise<void> {
  for (const service of installed.flatMap((requirement) => requirement.services ?? [])) {
    const tools: [string, string[]][] = [
      ['systemctl', ['--quiet', 'disable', service]],
      ['update-rc.d', [service, 'disable']],
    ];
    for (const [program, argv] of tools) {
      if (!programExists(program)) continue;
      const { code, stderr } = await runProgram(program, argv, { timeoutMs: 60_000 });
      if (code === 0) {
        report.ok(`service ${service} stays off (${program})`);
        break;
      }
      report.note(`\`${program} ${argv.join(' ')}\` ended with code ${code}: ${stderr.trim()}`);
    }
  }
}

/** Fails with a clear message where there is no apt. */
export async function requireApt(): Promise<void> {
  const there = await runProgram('apt-get', ['--version']).catch(() => undefined);
  if (there?.code === 0) return;
  throw new CairnError(
    'environment',
    'apt-missing',
    'The setup installs packages with apt, and this host has none.',
    {
      remedy: 'Use Debian 12 or 13, Ubuntu 24.04, or provide CRIU and runc yourself (docs/setup.md).',
    },
  );
}
