import { styleText } from 'node:util';
import { exitCodes } from '../errors.ts';
import type { Check, CheckStatus, Diagnosis } from '../node/doctor.ts';
import { diagnose } from '../node/doctor.ts';
import { collectDoctorFacts } from '../node/doctor-facts.ts';

export interface DoctorOptions {
  json: boolean;
  /** State directory of the daemon, `/var/lib/cairn` by default. */
  state: string;
  /** Run directory of the daemon, `/run/cairn` by default. */
  run: string;
  /** Show every check, also the features that are there. */
  verbose?: boolean;
}

/**
 * `cairn doctor`: what this host can and cannot do, why, and what mends it. Works without the daemon and without root.
 * Returns the exit code: 0 only if jobs can be checkpointed, else 5 (environment).
 */
export async function doctor(options: DoctorOptions): Promise<number> {
  const diagnosis = diagnose(await collectDoctorFacts({ state: options.state, run: options.run }));
  if (options.json) process.stdout.write(`${JSON.stringify(diagnosis, null, 2)}\n`);
  else process.stdout.write(renderDiagnosis(diagnosis, options.verbose ?? false));
  return diagnosis.usable ? 0 : exitCodes.environment;
}

const styles: Readonly<Record<CheckStatus, Parameters<typeof styleText>[0]>> = {
  ok: 'green',
  warn: 'yellow',
  fail: 'red',
  unknown: 'cyan',
};

/** The diagnosis as text for a terminal: one line for each check, below it why it matters and what mends it. */
export function renderDiagnosis(diagnosis: Diagnosis, verbose: boolean): string {
  const shown = diagnosis.checks.filter((check) => verbose || !isQuiet(check));
  const width = Math.max(...shown.map(({ name }) => name.length)) + 2;
  let text = '';
  for (const { name, status, finding, why, remedy } of shown) {
    const indent = `\n${' '.repeat(9 + width)}`;
    text += `${styleText(styles[status], status.padEnd(9))}${name.padEnd(width)}${finding.replaceAll('\n', indent)}`;
    if (why !== undefined) text += `${indent}${why}`;
    if (remedy !== undefined) text += `${indent}→ ${remedy}`;
    text += '\n';
  }
  const hidden = diagnosis.checks.length - shown.length;
  if (hidden > 0) {
    const features = hidden === 1 ? 'kernel feature' : 'kernel features';
    text += `${styleText(styles.ok, 'ok'.padEnd(9))}${hidden} ${features} that CRIU uses (--verbose shows them)\n`;
  }
  return `${text}\n${verdict(diagnosis)}\n`;
}

function isQuiet({ name, status, why }: Check): boolean {
  return name.startsWith('feature-') && status === 'ok' && why === undefined;
}

function verdict({ usable, checks }: Diagnosis): string {
  if (usable) return 'Jobs can be checkpointed and restarted on this host.';
  const failed = checks.filter(({ status }) => status === 'fail').length;
  if (failed > 0) {
    return `Jobs cannot be checkpointed on this host: ${failed} ${failed === 1 ? 'check' : 'checks'} failed.`;
  }
  return 'Not everything could be tested; run it as root to know: sudo ./cairn doctor';
}
