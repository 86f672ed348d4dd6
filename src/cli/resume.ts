import type { Command } from './command.ts';
import { eachJob } from './each-job.ts';

/** `cairn resume` */
export const resume: Command = {
  name: 'resume',
  summary: 'Let a suspended job run on',
  description: 'After "cairn suspend" or "cairn checkpoint --then stop": its processes are still in memory.',
  arguments: [{ name: 'JOB', required: true, repeat: true, completion: 'job' }],
  options: [],
  examples: [{ command: 'cairn resume simulation', comment: 'go on where it was frozen' }],
  run: async (input, context) =>
    eachJob(input.arguments('JOB'), context, (job) => context.client.resume(job)),
};
