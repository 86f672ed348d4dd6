// Runs all tests: first those beside the source, two files at a time, then the system tests, one file after another.
// `npm test`, `npm test -- --only PATTERN`, `npm run soak`.
import { globSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { run } from 'node:test';
import { parseArgs } from 'node:util';
import { collectBelongings, findLeaks } from './test-leaks.ts';
import { TestReport } from './test-report.ts';

const usage = `usage: npm test -- [--only PATTERN] [--soak] [--limit MINUTES] [--no-system]

  --only PATTERN   only test files whose path matches (regular expression); if none does: tests whose title matches
  --soak           many more rounds of the random tests (sets CAIRN_SOAK=1)
  --limit MINUTES  give up after this time (default 50, with --soak 600)
  --no-system      leave out the system tests (test/), which need root and real programs
`;

const root = path.dirname(import.meta.dirname);

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      soak: { type: 'boolean', default: false },
      limit: { type: 'string' },
      'no-system': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const minutes = Number(values.limit ?? (values.soak ? 600 : 50));
  if (!(minutes > 0)) throw new RangeError(`--limit takes minutes, not ${values.limit}`);

  const unit = globSync('{src,tools,bench,test/programs}/**/*.test.ts', { cwd: root }).sort();
  const system = values['no-system']
    ? []
    : globSync('test/**/*.test.ts', { cwd: root })
        .filter((file) => !unit.includes(file))
        .sort();
  const only = values.only === undefined ? undefined : new RegExp(values.only);
  const chosenByPath = only !== undefined && [...unit, ...system].some((file) => only.test(file));
  const chosen = (files: string[]) => (chosenByPath ? files.filter((file) => only.test(file)) : files);
  const titles = only !== undefined && !chosenByPath ? only : undefined;

  // An own place for temporary files, so that whatever is left in it was left by a test. Short, because the paths of
  // unix sockets are limited to 107 bytes.
  const temporary = mkdtempSync(path.join(tmpdir(), 'cairn-t'));
  const runMark = path.basename(temporary);
  process.env.TMPDIR = temporary;
  process.env.CAIRN_TEST_RUN = runMark;
  if (values.soak) process.env.CAIRN_SOAK = '1';

  const limit = new AbortController();
  setTimeout(
    () => limit.abort(new Error(`the time limit of ${minutes} minutes passed`)),
    minutes * 60_000,
  ).unref();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(name, () => limit.abort(new Error(`interrupted by ${name}`)));
  }
  const report = new TestReport(root);
  const before = await collectBelongings();
  const common = { titles, signal: limit.signal, report };
  await runFiles(chosen(unit), { ...common, concurrency: 2, timeoutMs: 3 * 60_000 });
  await runFiles(chosen(system), { ...common, concurrency: 1, timeoutMs: (values.soak ? 300 : 15) * 60_000 });
  if (limit.signal.aborted) report.failure((limit.signal.reason as Error).message);
  const leaks = await findLeaks(before, { runMark, temporary, timeoutMs: 10_000 });
  for (const leak of leaks.own) report.failure(`left behind: ${leak}`);
  for (const leak of leaks.doubtful)
    report.note(`left behind, by this run or by another Cairn on this host: ${leak}`);
  // What a failed test left is kept to be looked at.
  if (report.good || readdirSync(temporary).length === 0) rmSync(temporary, { recursive: true, force: true });
  else process.stdout.write(`\nTemporary files of the tests are kept in ${temporary}\n`);
  process.stdout.write(report.summary());
  return report.good ? 0 : 1;
}

interface RunOptions {
  /** Files at the same time. */
  concurrency: number;
  /** Limit of each test: one that hangs must not eat the time of all others. */
  timeoutMs: number;
  titles: RegExp | undefined;
  signal: AbortSignal;
  report: TestReport;
}

async function runFiles(files: readonly string[], options: RunOptions): Promise<void> {
  const { concurrency, timeoutMs, titles, signal, report } = options;
  if (files.length === 0 || signal.aborted) return;
  const stream = run({
    files: files.map((file) => path.join(root, file)),
    cwd: root,
    concurrency,
    signal,
    timeout: timeoutMs,
    // What keeps its process alive after its last test must not hold up the others either.
    forceExit: true,
    execArgv: ['--disable-warning=ExperimentalWarning'],
    ...(titles === undefined ? {} : { testNamePatterns: [titles] }),
  });
  const reading = (async () => {
    for await (const event of stream) report.event(event);
  })();
  // A run that was broken off does not always end its stream.
  const grace = new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => setTimeout(resolve, abortGraceMs), { once: true });
  });
  await Promise.race([reading, grace]);
}

/** How long the files that run may take to end after the run was broken off. */
const abortGraceMs = 60_000;

// Not by itself: after a run that was broken off something may keep the process alive.
process.exit(await main());
