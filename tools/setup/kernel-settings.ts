import { readFileSync, writeFileSync } from 'node:fs';
import { messageOf } from '../../src/errors.ts';
import { hasCapability, neededPipeMaxBytes, sysctl } from '../../src/linux/host.ts';
import type { Report } from './report.ts';

const persistentFile = '/etc/sysctl.d/60-cairn.conf';
const name = 'fs.pipe-max-size';

/** Raises `fs.pipe-max-size`: CRIU puts references to all lazy pages of a dump into pipes. */
export function provideKernelSettings(report: Report, persist: boolean): void {
  const value = Number(sysctl(name));
  if (value >= neededPipeMaxBytes) {
    report.ok(`${name} is ${value}`);
  } else if (report.checkOnly) {
    report.missed(`${name} is ${value}; dumps of large programs need ${neededPipeMaxBytes}`);
  } else {
    report.doing(
      `sysctl ${name}=${neededPipeMaxBytes}${persist ? '' : ' (until the next boot; --persist keeps it)'}`,
    );
    try {
      writeFileSync('/proc/sys/fs/pipe-max-size', String(neededPipeMaxBytes));
    } catch (error) {
      const need = 'without it, and without CAP_SYS_RESOURCE, large programs cannot be dumped';
      if (hasCapability('CAP_SYS_RESOURCE'))
        report.note(`${name} could not be set (${messageOf(error)}); not needed here`);
      else report.missed(`${name} could not be set (${messageOf(error)}): ${need}`);
    }
  }
  if (!persist || report.checkOnly) return;
  const text = `# Large pipes for dumps with CRIU; written by the setup of Cairn.\n${name} = ${neededPipeMaxBytes}\n`;
  if (readText(persistentFile) === text) return;
  report.doing(`write ${persistentFile}`);
  writeFileSync(persistentFile, text);
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
