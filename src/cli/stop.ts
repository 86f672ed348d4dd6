import { parseDuration } from '../jobs/quantities.ts';
import type { Command } from './command.ts';
import { eachJob } from './each-job.ts';

/** `cairn stop` */
export const stop: Command = {
  name: 'stop',
  summary: 'End the processes of jobs',
  description:
    'Sends SIGTERM, and SIGKILL after the grace period. The job stays listed, its snapshots too. A first process that does not handle\nSIGTERM ignores it: it is the init of its own little world.',
  arguments: [{ name: 'JOB', required: true, repeat: true, completion: 'job' }],
  options: [{ name: 'time', short: 't', value: 'TIME', description: 'grace period (default 10s)' }],
  examples: [
    { command: 'cairn stop redis', comment: 'ask it to end, and end it after ten seconds' },
    { command: 'cairn stop -t 0 redis', comment: 'end it at once' },
  ],
  async run(input, context) {
    const graceMs = parseDuration(input.option('time') ?? '10s', '--time');
    return eachJob(input.arguments('JOB'), context, (job) => context.client.stop(job, graceMs));
  },
};
