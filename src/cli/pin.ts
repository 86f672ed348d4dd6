import { parseJobReference } from '../jobs/job-reference.ts';
import type { Command } from './command.ts';
import { formatJson } from './format.ts';
import { usage } from './parse-arguments.ts';

/** `cairn pin` */
export const pin: Command = {
  name: 'pin',
  summary: 'Keep a snapshot whatever the retention policy says',
  arguments: [{ name: 'JOB@N', required: true, completion: 'snapshot' }],
  options: [{ name: 'remove', description: 'let the policy decide again' }],
  examples: [
    { command: 'cairn pin redis@3', comment: 'keep it' },
    { command: 'cairn pin --remove redis@3', comment: 'let it go when its time has come' },
  ],
  async run(input, { client, json, write }) {
    const { job, sequence } = parseJobReference(input.required('JOB@N'));
    if (sequence === undefined) throw usage(`"${job}" names no snapshot: write ${job}@N.`, pin);
    const snapshot = await client.pin(job, sequence, !input.flag('remove'));
    write(
      json ? formatJson(snapshot) : `${job}@${sequence} ${snapshot.pinned ? 'is pinned' : 'is not pinned'}\n`,
    );
    return 0;
  },
};
