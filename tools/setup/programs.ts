import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { release } from 'node:os';
import path from 'node:path';
import { CairnError, messageOf } from '../../src/errors.ts';
import { checkCriu, findCriu } from '../../src/criu/find.ts';
import { whyCriuTooOld } from '../../src/criu/requirements.ts';
import { findRuntime, privatePrefix, runtimeRequirements } from '../../src/linux/find-program.ts';
import { atLeast } from '../../src/linux/version.ts';
import { candidateVersion, simulateInstall } from './apt.ts';
import { debianKeyring, debianMirror, fetchPackages, suites } from './debian-source.ts';
import { installPackages } from './packages.ts';
import { activate, buildPrefix } from './prefix.ts';
import type { Report } from './report.ts';
import { rememberSelfTest, selfTest, selfTestPassed } from './self-test.ts';

/** The programs that older distributions have too old. */
type Program = 'criu' | 'runc';
const programs: readonly Program[] = ['criu', 'runc'];

/** Provides a CRIU that works on the running kernel, and a runc: the distribution's, or from the private prefix. */
export async function providePrograms(report: Report): Promise<void> {
  const lacking: Program[] = [];
  for (const program of programs) {
    const why = await whyUnusable(program, report);
    if (why === undefined) continue;
    if (report.checkOnly) report.missed(why);
    else {
      report.note(why);
      lacking.push(program);
    }
  }
  if (lacking.length === 0) return;
  const fromPrefix: Program[] = [];
  for (const program of lacking) {
    if (!(await provideFromDistribution(program, report))) fromPrefix.push(program);
  }
  if (fromPrefix.length === 0) return;
  // The prefix holds one consistent set: what is in it and still used stays in it.
  const keep = programs.filter((name) => existsSync(path.join(privatePrefix(), 'bin', name)));
  await provideFromDebian([...new Set([...fromPrefix, ...keep])], report);
  for (const program of fromPrefix) {
    const why = await whyUnusable(program, report);
    if (why !== undefined) report.missed(why);
  }
}

/** Says that a program is usable, or returns why not. */
async function whyUnusable(program: Program, report: Report): Promise<string | undefined> {
  try {
    if (program === 'criu') await checkUsableCriu(report);
    else {
      const runtime = await findRuntime('runc');
      report.ok(`runc ${runtime.version} (${runtime.path})`);
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof CairnError)) throw error;
    return [error.message, ...error.lines.map((line) => `  ${line}`)].join('\n');
  }
}

async function checkUsableCriu(report: Report): Promise<void> {
  const criu = await findCriu();
  const root = process.getuid?.() === 0;
  if (!root) {
    report.ok(
      `CRIU ${criu.version} (${criu.path}); whether it works on this kernel can be told as root only`,
    );
    return;
  }
  if (await selfTestPassed(criu)) {
    report.ok(`CRIU ${criu.version} (${criu.path}), passed its test on ${release()}`);
    return;
  }
  await checkCriu(criu.path);
  if (!report.checkOnly) {
    report.doing('test of CRIU: dump and restore a small process with a TCP connection');
    await selfTest(criu.path);
    await rememberSelfTest(criu);
  }
  const tested = report.checkOnly ? '; not tested on this kernel yet' : ', passed its test on this kernel';
  report.ok(`CRIU ${criu.version} (${criu.path})${tested}`);
}

/** Installs the distribution's package if its version will do. Returns whether that gave a usable program. */
async function provideFromDistribution(program: Program, report: Report): Promise<boolean> {
  const candidate = await candidateVersion(program);
  if (candidate === undefined) {
    report.note(`the distribution has no package ${program}`);
    return false;
  }
  const why = whyCandidateUnusable(program, candidate, release());
  if (why !== undefined) {
    report.note(`the distribution's ${program} ${candidate} will not do: ${why}`);
    return false;
  }
  const { removed, upgraded } = await simulateInstall([program]);
  if (removed.length > 0 || upgraded.some(({ name }) => name === program)) {
    report.note(`the distribution's ${program} would replace ${[...removed, program].join(' ')}: left alone`);
    return false;
  }
  await installPackages(report, [program]);
  const unusable = await whyUnusable(program, report);
  if (unusable !== undefined) report.note(unusable);
  return unusable === undefined;
}

/** Why a version that the distribution offers will not do, or `undefined`. */
export function whyCandidateUnusable(program: Program, version: string, kernel: string): string | undefined {
  if (program === 'criu') return whyCriuTooOld(version, kernel);
  const { minimum, reason } = runtimeRequirements.runc;
  return atLeast(version, minimum) ? undefined : reason;
}

/** Fetches programs from Debian's newer suites into the private prefix and puts them to use once they are proven. */
async function provideFromDebian(names: readonly Program[], report: Report): Promise<void> {
  const prefix = privatePrefix();
  if (!existsSync('/usr/bin/patchelf')) await installPackages(report, ['patchelf']);
  if (debianKeyring() === undefined) await installPackages(report, ['debian-archive-keyring']);
  const keyring = debianKeyring();
  if (keyring === undefined) {
    throw new CairnError(
      'environment',
      'keyring-missing',
      'The package debian-archive-keyring has no keyring.',
    );
  }
  const mirror = await debianMirror();
  await mkdir(prefix, { recursive: true, mode: 0o755 });
  const failures: string[] = [];
  for (const suite of suites) {
    const scratch = await mkdtemp(path.join(prefix, '.fetch-'));
    let directory: string | undefined;
    try {
      report.doing(`fetch ${names.join(' and ')} with their libraries from Debian ${suite} (${mirror})`);
      const packages = await fetchPackages(names, { suite, mirror, keyring, directory: scratch });
      const built = await buildPrefix(prefix, names, packages, { suite, scratch });
      directory = built.directory;
      const criu = built.programs.criu;
      if (criu !== undefined) {
        const why = whyCriuTooOld(criu.version, release());
        if (why !== undefined) {
          failures.push(`CRIU ${criu.version} of ${suite}: ${why}`);
          continue;
        }
        report.doing(`test CRIU ${criu.version}: dump and restore a small process with a TCP connection`);
        await checkCriu(path.join(directory, 'bin/criu'));
        await selfTest(path.join(directory, 'bin/criu'));
      }
      report.doing(`put ${names.join(' and ')} to use in ${prefix}`);
      await activate(prefix, built);
      directory = undefined;
      if (criu !== undefined) {
        await rememberSelfTest({ path: path.join(prefix, 'bin/criu'), version: criu.version });
      }
      return;
    } catch (error) {
      failures.push(`${suite}: ${messageOf(error)}`);
      if (error instanceof CairnError) failures.push(...error.lines.map((line) => `  ${line}`));
    } finally {
      if (directory !== undefined) await rm(directory, { recursive: true, force: true });
      await rm(scratch, { recursive: true, force: true });
    }
  }
  throw new CairnError(
    'environment',
    'programs-unavailable',
    `No usable ${names.join(' and ')} could be provided from Debian ${suites.join(' or ')}.`,
    {
      lines: failures,
      remedy:
        'Mend the access to the Debian mirror and run the setup again, or set CAIRN_CRIU and CAIRN_RUNC.',
    },
  );
}
