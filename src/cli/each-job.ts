import type { CommandContext } from './command.ts';
import { formatJson } from './format.ts';
import { exitCodeFor, renderError } from './report-error.ts';

/**
 * Does something to several jobs, one after the other; a failure does not keep it from the others. Writes the names of those where it
 * was done, or all results as JSON. Returns the exit code of the first failure.
 */
export async function eachJob(
  jobs: readonly string[],
  context: CommandContext,
  action: (job: string) => Promise<unknown>,
): Promise<number> {
  let exitCode = 0;
  const results: unknown[] = [];
  for (const job of jobs) {
    try {
      results.push((await action(job)) ?? { name: job });
      if (!context.json) context.write(`${job}\n`);
    } catch (error) {
      if (exitCode === 0) exitCode = exitCodeFor(error);
      context.note(renderError(error, { json: context.json, color: process.stderr.hasColors?.() ?? false }));
    }
  }
  if (context.json) context.write(formatJson(jobs.length === 1 ? (results[0] ?? null) : results));
  return exitCode;
}
