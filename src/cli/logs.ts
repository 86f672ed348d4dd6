import type { LogLine } from '../api/schemas.ts';
import { CairnError } from '../errors.ts';
import { parseDuration } from '../jobs/quantities.ts';
import type { Command } from './command.ts';

/** `cairn logs` */
export const logs: Command = {
  name: 'logs',
  summary: 'Show the output of a job',
  description:
    'Standard output and standard error of the job, each to its own; they are kept over checkpoints and restarts.',
  arguments: [{ name: 'JOB', required: true, completion: 'job' }],
  options: [
    { name: 'follow', short: 'f', description: 'go on with what comes, until the job has ended' },
    { name: 'tail', short: 'n', value: 'N', description: 'only the last N lines' },
    {
      name: 'since',
      value: 'TIME',
      description: 'only since then: 10m for ten minutes ago, or 2026-11-27T10:00:00Z',
    },
    { name: 'timestamps', short: 't', description: 'the time before each line' },
  ],
  examples: [
    { command: 'cairn logs -f redis', comment: 'watch what a job writes' },
    { command: 'cairn logs --since 10m -t redis', comment: 'the last ten minutes, with the times' },
  ],
  async run(input, { client, json, write, note }) {
    const tail = input.integer('tail', 0);
    const since = input.option('since');
    const query = {
      follow: input.flag('follow'),
      ...(tail === undefined ? {} : { tail }),
      ...(since === undefined ? {} : { since: parseSince(since, Date.now()) }),
    };
    for await (const line of client.logs(input.required('JOB'), query)) {
      if (json) write(`${JSON.stringify(line)}\n`);
      else (line.stream === 'stderr' ? note : write)(showLine(line, input.flag('timestamps')));
    }
    return 0;
  },
};

/** A line of output as it was written, with the time before it if wanted. */
export function showLine(line: LogLine, timestamps: boolean): string {
  return `${timestamps ? `${line.time} ` : ''}${line.text}${line.partial ? '' : '\n'}`;
}

/** Milliseconds since 1970, from a length of time before now or a time. Error: `time-invalid`. */
export function parseSince(text: string, now: number): number {
  const time = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : undefined;
  if (time === undefined) return Math.max(0, now - parseDuration(text.replace(/\s+ago$/, ''), '--since'));
  if (!Number.isNaN(time)) return time;
  throw new CairnError('argument', 'time-invalid', `--since: "${text}" is not a time.`, {
    remedy: 'Write 10m for ten minutes ago, or a time such as 2026-11-27T10:00:00Z.',
  });
}
