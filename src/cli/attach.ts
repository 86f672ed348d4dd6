import { CairnError } from '../errors.ts';
import type { Command } from './command.ts';
import { attachOnce, waitForEnd } from './follow-job.ts';

/** `cairn attach` */
export const attach: Command = {
  name: 'attach',
  summary: 'Be the terminal of a job',
  description:
    'Shows what the job wrote last and what comes, and passes on what is typed, if the job was started with -i or -t. Ctrl-P Ctrl-Q leaves it\nrunning. Several terminals can be attached at once.',
  arguments: [{ name: 'JOB', required: true, completion: 'job' }],
  options: [
    { name: 'no-stdin', description: 'only watch' },
    { name: 'no-replay', description: 'only what comes from now on' },
  ],
  examples: [{ command: 'cairn attach shell', comment: 'go on in another terminal' }],
  async run(input, context) {
    const { job } = await context.client.job(input.required('JOB'));
    const { terminal = false, stdin = false } = job.description;
    if (job.state.kind !== 'running' && job.state.kind !== 'checkpointing') {
      throw new CairnError(
        'argument',
        'job-not-running',
        `The job ${job.name} is ${job.state.kind}: nobody can attach to it.`,
        {
          remedy: `"cairn logs ${job.name}" shows what it wrote.`,
        },
      );
    }
    const left = await attachOnce(context, job, {
      terminal,
      stdin: (stdin || terminal) && !input.flag('no-stdin'),
      replay: !input.flag('no-replay'),
    });
    if (left) {
      context.note(`\n${job.name} runs on\n`);
      return 0;
    }
    return waitForEnd(context, job);
  },
};
