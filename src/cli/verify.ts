import { parseJobReference } from '../jobs/job-reference.ts';
import { exitCodes } from '../errors.ts';
import type { Command } from './command.ts';
import { formatJson } from './format.ts';
import { runOperation } from './operation.ts';

/** `cairn verify` */
export const verify: Command = {
  name: 'verify',
  summary: 'Check snapshots, byte by byte',
  description:
    'Reads, decrypts and compares everything that belongs to them. Exit code 4 if something is damaged.',
  arguments: [{ name: 'JOB[@N]', required: false, completion: 'snapshot' }],
  options: [],
  examples: [
    { command: 'cairn verify', comment: 'all snapshots' },
    { command: 'cairn verify redis@3', comment: 'one of them' },
  ],
  async run(input, context) {
    const reference = input.argument('JOB[@N]');
    const body = reference === undefined ? {} : parseJobReference(reference);
    const result = await runOperation(context, (operation) => context.client.verify(body, operation));
    if (context.json) context.write(formatJson(result));
    for (const { name, job, sequence, valid, damage } of context.json ? [] : result.snapshots) {
      const lines = [
        `${name === '' ? job : name}@${sequence}: ${valid ? 'valid' : 'DAMAGED'}`,
        ...damage.map((line) => `  ${line}`),
      ];
      context.write(`${lines.join('\n')}\n`);
    }
    return result.snapshots.every(({ valid }) => valid) ? 0 : exitCodes.permanent;
  },
};
