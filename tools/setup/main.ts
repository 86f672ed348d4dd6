// The second part of the setup, run by the pinned Node.js; the first is ../setup.mjs, which has checked the arguments.
import { parseArgs } from 'node:util';
import { CairnError, exitCodes } from '../../src/errors.ts';
import { distribution } from '../../src/linux/host.ts';
import { provideKernelSettings } from './kernel-settings.ts';
import { providePackages, requireApt } from './packages.ts';
import { providePrograms } from './programs.ts';
import type { Purpose } from './purposes.ts';
import { Report } from './report.ts';

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      check: { type: 'boolean', default: false },
      for: { type: 'string', default: 'run' },
      persist: { type: 'boolean', default: false },
    },
  });
  const report = new Report(values.check);
  const host = distribution();
  if (![host.id, ...host.like].some((id) => id === 'debian' || id === 'ubuntu')) {
    report.note(`${host.name} is not Debian or Ubuntu; the setup is not tested there`);
  }
  await requireApt();
  await providePackages(report, values.for as Purpose);
  await providePrograms(report);
  provideKernelSettings(report, values.persist);
  if (report.missing > 0) {
    const advice = values.check ? `; provide: sudo npm run setup -- --for ${values.for}` : '';
    process.stdout.write(`\n${report.missing} missing${advice}\n`);
    return values.check ? 1 : exitCodes.environment;
  }
  return 0;
}

// Ending through process.exit lets what is held (policy-rc.d) be given back.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(130));

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof CairnError)) throw error;
  const lines = error.lines.map((line) => `  ${line}\n`).join('');
  process.stderr.write(
    `\nsetup: ${error.message}\n${lines}${error.remedy === undefined ? '' : `${error.remedy}\n`}`,
  );
  process.exitCode = exitCodes[error.class];
}
