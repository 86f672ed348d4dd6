import type { Command } from './command.ts';
import { eachJob } from './each-job.ts';

/** `cairn suspend` */
export const suspend: Command = {
  name: 'suspend',
  summary: 'Freeze a job in memory',
  description:
    'Its processes stop where they are and use no processor time until "cairn resume". They do not survive a reboot.',
  arguments: [{ name: 'JOB', required: true, repeat: true, completion: 'job' }],
  options: [],
  examples: [{ command: 'cairn suspend simulation', comment: 'make room for something urgent' }],
  run: async (input, context) =>
    eachJob(input.arguments('JOB'), context, (job) => context.client.suspend(job)),
};
