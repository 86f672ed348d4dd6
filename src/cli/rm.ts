import { parseJobReference } from '../jobs/job-reference.ts';
import type { Command } from './command.ts';
import { eachJob } from './each-job.ts';

/** `cairn rm` */
export const rm: Command = {
  name: 'rm',
  summary: 'Remove jobs or snapshots',
  description:
    'Removes a job with its files and logs; its snapshots stay, and "cairn restart" can bring it back from them. JOB@N removes one snapshot.',
  arguments: [{ name: 'JOB', required: true, repeat: true, completion: 'snapshot' }],
  options: [
    { name: 'force', short: 'f', description: 'end its processes first' },
    { name: 'snapshots', description: 'remove its snapshots too' },
  ],
  examples: [
    { command: 'cairn rm redis', comment: 'remove a job that has ended' },
    { command: 'cairn rm -f --snapshots redis', comment: 'leave nothing of it' },
    { command: 'cairn rm redis@3', comment: 'remove its third snapshot' },
  ],
  async run(input, context) {
    const query = { force: input.flag('force'), snapshots: input.flag('snapshots') };
    return eachJob(input.arguments('JOB'), context, async (text) => {
      const { job, sequence } = parseJobReference(text);
      if (sequence === undefined) await context.client.removeJob(job, query);
      else await context.client.removeSnapshot(job, sequence);
    });
  },
};
