import type { RestartBody, RestartResult } from '../api/schemas.ts';
import { checkJobName, parseJobReference } from '../jobs/job-reference.ts';
import type { Command } from './command.ts';
import { formatDuration, formatJson } from './format.ts';
import { followJob } from './follow-job.ts';
import { runOperation } from './operation.ts';
import { usage } from './parse-arguments.ts';

/** `cairn restart` */
export const restart: Command = {
  name: 'restart',
  summary: 'Bring a job back from a snapshot',
  description: `JOB@N takes its snapshot N, JOB alone the newest that is valid. If anything goes wrong the job is as it was before. A job that was
removed comes back too, as long as its snapshots are there.`,
  arguments: [{ name: 'JOB[@N]', required: true, completion: 'snapshot' }],
  options: [
    { name: 'lazy', description: 'let it run before its memory has arrived' },
    { name: 'clone', description: 'start a second copy, with its own name and address' },
    { name: 'name', value: 'NAME', description: 'name of the copy (with --clone)' },
    { name: 'attach', short: 'a', description: 'stay with it, as "cairn run" does' },
    { name: 'detach', short: 'd', description: 'do not stay with it (default)' },
  ],
  examples: [
    { command: 'cairn restart redis', comment: 'go on from the newest snapshot' },
    { command: 'cairn restart redis@3', comment: 'go back to the third' },
    { command: 'cairn restart --clone --name redis-copy redis', comment: 'a second copy, beside the first' },
  ],
  async run(input, context) {
    const { client, json, write } = context;
    const { job, sequence } = parseJobReference(input.required('JOB[@N]'));
    const name = input.option('name');
    const clone = input.flag('clone');
    if (name !== undefined && !clone) throw usage('--name goes with --clone.', restart);
    if (name !== undefined) checkJobName(name);
    const body: RestartBody = {
      ...(sequence === undefined ? {} : { sequence }),
      ...(input.flag('lazy') ? { lazy: true } : {}),
      ...(clone ? { clone } : {}),
      ...(name === undefined ? {} : { name }),
    };
    const started = performance.now();
    const result = await runOperation(context, (operation) => client.restart(job, body, operation));
    if (json) write(formatJson(result));
    else context.note(describeRestart(result, performance.now() - started));
    if (!input.flag('attach') || input.flag('detach')) return 0;
    return followJob(context, result.job, { fromStart: false });
  },
};

function describeRestart({ job, sequence }: RestartResult, tookMs: number): string {
  if (job.clonedFrom !== undefined)
    return `${job.name} runs, a copy from snapshot ${sequence} (${formatDuration(tookMs)})\n`;
  return `${job.name} runs again, from snapshot ${sequence} (${formatDuration(tookMs)})\n`;
}
