import { parseJobReference } from '../jobs/job-reference.ts';
import type { Command } from './command.ts';
import { formatJson } from './format.ts';

/** `cairn inspect` */
export const inspect: Command = {
  name: 'inspect',
  summary: 'Show everything about a job or a snapshot',
  description: 'As JSON, always.',
  arguments: [{ name: 'JOB[@N]', required: true, completion: 'snapshot' }],
  options: [],
  examples: [
    { command: 'cairn inspect redis', comment: 'state, unit, processes, address, snapshots' },
    { command: 'cairn inspect redis@3', comment: 'what is in the third snapshot' },
  ],
  async run(input, { client, write }) {
    const { job, sequence } = parseJobReference(input.required('JOB[@N]'));
    write(formatJson(sequence === undefined ? await client.job(job) : await client.snapshot(job, sequence)));
    return 0;
  },
};
