import type { Job } from '../jobs/job.ts';
import { CairnError, messageOf } from '../errors.ts';
import type { CommandContext } from './command.ts';
import { describeState } from './jobs.ts';
import { showLine } from './logs.ts';
import { runSession, terminalSize } from './terminal-session.ts';

const SIGINT = 2;
const SIGTERM = 15;
/** After so many times Ctrl-C the command leaves the job alone and ends, as docker does. */
const enough = 3;
const leftExitCode = 130;

/**
 * Stays with a job until it has ended for good: shows its output, passes signals on (or, with a terminal, keys). Returns the exit code of
 * the job, or 0 after the detach keys.
 */
export async function followJob(
  context: CommandContext,
  job: Job,
  options: { fromStart: boolean },
): Promise<number> {
  const { terminal = false, stdin = false } = job.description;
  if (!terminal && !stdin) return followOutput(context, job, options.fromStart);
  for (let first = options.fromStart; ; first = false) {
    const left = await attachOnce(context, job, { terminal, stdin, replay: first });
    if (left) {
      context.note(`\n${job.name} runs on; "cairn attach ${job.name}" comes back to it\n`);
      return 0;
    }
    const { state } = (await context.client.job(job.id)).job;
    // With a restart policy it comes back: stay with it.
    if (state.kind !== 'running') return waitForEnd(context, job);
  }
}

/** Is the terminal of a running job once. True if the user left it with the detach keys. */
export async function attachOnce(
  context: CommandContext,
  job: Job,
  options: { terminal: boolean; stdin: boolean; replay: boolean },
): Promise<boolean> {
  const { terminal, stdin, replay } = options;
  const size = terminal ? terminalSize() : undefined;
  try {
    const stream = await context.client.attach(job.id, { stdin, replay, ...size });
    const result = await runSession(stream, { terminal, stdin });
    return result.kind === 'detached';
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== 'job-not-running' || !replay) throw error;
    // It has ended before we could attach: what it wrote is in its log.
    for await (const line of context.client.logs(job.id, {})) show(context, line);
    return false;
  }
}

/** Waits until nothing will happen to the job any more, and returns its exit code. */
export async function waitForEnd(context: CommandContext, job: Job): Promise<number> {
  const { job: ended, exitCode } = await context.client.wait(job.id);
  if (ended.state.kind === 'crashed' || ended.state.kind === 'failed') {
    context.note(`${ended.name}: ${describeState(ended.state, Date.now())}\n`);
  }
  return exitCode;
}

async function followOutput(context: CommandContext, job: Job, fromStart: boolean): Promise<number> {
  const leaving = Promise.withResolvers<number>();
  const leave = new AbortController();
  using _signals = passSignals(context, job, () => {
    leave.abort();
    leaving.resolve(leftExitCode);
  });
  const query = { follow: true, ...(fromStart ? {} : { tail: 0 }) };
  const following = (async () => {
    for await (const line of context.client.logs(job.id, query, leave.signal)) show(context, line);
    return waitForEnd(context, job);
  })();
  following.catch(() => {});
  // Awaited here: the signals are passed on until then.
  return await Promise.race([following, leaving.promise]);
}

function show(context: CommandContext, line: Parameters<typeof showLine>[0]): void {
  (line.stream === 'stderr' ? context.note : context.write)(showLine(line, false));
}

function passSignals(context: CommandContext, job: Job, onEnough: () => void): Disposable {
  let interrupts = 0;
  const pass = (signal: number): void => {
    context.client.signal(job.id, signal).catch((error: unknown) => context.note(`${messageOf(error)}\n`));
  };
  const onInterrupt = (): void => {
    interrupts += 1;
    if (interrupts < enough) pass(SIGINT);
    if (interrupts === 2) {
      context.note(
        `${job.name} does not react; once more leaves it running ("cairn stop ${job.name}" ends it)\n`,
      );
    }
    if (interrupts === enough) onEnough();
  };
  const onTerminate = (): void => pass(SIGTERM);
  process.on('SIGINT', onInterrupt);
  process.on('SIGTERM', onTerminate);
  return {
    [Symbol.dispose]() {
      process.off('SIGINT', onInterrupt);
      process.off('SIGTERM', onTerminate);
    },
  };
}
