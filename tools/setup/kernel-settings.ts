import { readFileSync, writeFileSync } from 'node:fs';
import { messageOf } from '../../src/errors.ts';
import { hasCapability, neededPipeMaxBytes, sysctl } from '../../src/linux/host.ts';
import type { Report } from './report.ts';

/** A setting of the kernel that Cairn needs. */
export interface KernelSetting {
  name: string;
  /** The value that it is given where the present one will not do. */
  value: number;
  suffices: (present: number) => boolean;
  /** What the present value does not allow. */
  need: string;
  /** Whether Cairn is of no use on this host where it cannot be set. */
  isEssential: () => boolean;
}

/** All of them, with their reasons. */
export const kernelSettings: readonly KernelSetting[] = [
  {
    // CRIU puts references to all lazy pages of a dump into pipes.
    name: 'fs.pipe-max-size',
    value: neededPipeMaxBytes,
    suffices: (present) => present >= neededPipeMaxBytes,
    need: `dumps of large programs need ${neededPipeMaxBytes}`,
    isEssential: () => !hasCapability('CAP_SYS_RESOURCE'),
  },
  {
    // All pipes of a user count together, also those of a dump by the same user: a restore, which has no capability of the
    // host in its user namespace, may then not give a job's pipe the size that it had. 0 is no limit.
    name: 'fs.pipe-user-pages-soft',
    value: 0,
    suffices: (present) => present === 0,
    need: 'a restart while other jobs are being saved needs 0 (no limit), or it may fail',
    isEssential: () => false,
  },
];

const persistentFile = '/etc/sysctl.d/60-cairn.conf';

/** Gives the kernel the settings that Cairn needs, and with `persist` after the next boot too. */
export function provideKernelSettings(report: Report, persist: boolean): void {
  for (const setting of kernelSettings) provide(setting, report, persist);
  if (!persist || report.checkOnly) return;
  const text = persistentText();
  if (readText(persistentFile) === text) return;
  report.doing(`write ${persistentFile}`);
  writeFileSync(persistentFile, text);
}

function provide(
  { name, value, suffices, need, isEssential }: KernelSetting,
  report: Report,
  persist: boolean,
): void {
  const present = sysctl(name);
  if (present === undefined) return report.note(`this kernel has no ${name}`);
  if (suffices(Number(present))) return report.ok(`${name} is ${present}`);
  if (report.checkOnly) return report.missed(`${name} is ${present}; ${need}`);
  report.doing(`sysctl ${name}=${value}${persist ? '' : ' (until the next boot; --persist keeps it)'}`);
  try {
    writeFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, String(value));
  } catch (error) {
    const what = `${name} could not be set (${messageOf(error)}): ${need}`;
    if (isEssential()) report.missed(what);
    else report.note(what);
  }
}

/** The file of sysctl.d(5) that keeps the settings over a reboot. */
export function persistentText(): string {
  const lines = kernelSettings.map(({ name, value }) => `${name} = ${value}\n`);
  return `# Pipes for dumps and restores with CRIU; written by the setup of Cairn.\n${lines.join('')}`;
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
