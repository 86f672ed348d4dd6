import type { Job, JobState } from '../jobs/job.ts';
import type { Command } from './command.ts';
import { formatAge, formatCommand, formatJson, formatTable, shorten } from './format.ts';

/** `cairn jobs` */
export const jobs: Command = {
  name: 'jobs',
  summary: 'List jobs',
  arguments: [],
  options: [{ name: 'all', short: 'a', description: 'also those that have ended' }],
  examples: [
    { command: 'cairn jobs', comment: 'the jobs that run' },
    { command: 'cairn jobs -a --json', comment: 'all jobs, for a program' },
  ],
  async run(input, { client, json, write }) {
    const all = await client.jobs();
    const shown = input.flag('all') ? all : all.filter(({ state }) => isActive(state));
    if (json) write(formatJson(shown));
    else write(jobTable(shown, Date.now()));
    return 0;
  },
};

/** Does the job live, or will it come back by itself? */
function isActive(state: JobState): boolean {
  switch (state.kind) {
    case 'exited':
    case 'stopped':
    case 'failed':
      return false;
    case 'crashed':
      return state.next !== undefined;
    default:
      return true;
  }
}

function jobTable(all: readonly Job[], now: number): string {
  const rows = all.map((job) => [
    job.name,
    job.id,
    describeState(job.state, now),
    formatAge('startedAt' in job.state ? job.state.startedAt : job.state.since, now),
    job.checkpoints.lastAt === undefined ? '-' : formatAge(job.checkpoints.lastAt, now),
    String(job.restarts.total),
    shorten(formatCommand(job.description.command ?? []), 50),
  ]);
  return formatTable(['NAME', 'ID', 'STATE', 'SINCE', 'SNAPSHOT', 'RESTARTS', 'COMMAND'], rows);
}

/** A state in a few words. */
export function describeState(state: JobState, now: number): string {
  switch (state.kind) {
    case 'exited':
      return `exited (${state.code})`;
    case 'crashed': {
      const { ending, next } = state;
      const how =
        ending.outOfMemory === true
          ? 'out of memory'
          : ending.signal === undefined
            ? ending.code === undefined
              ? 'lost'
              : `exit ${ending.code}`
            : `signal ${ending.signal}`;
      if (next === undefined) return `crashed (${how})`;
      const seconds = Math.max(0, Math.ceil((Date.parse(next.at) - now) / 1000));
      return `crashed (${how}), back in ${seconds} s`;
    }
    case 'failed':
      return `failed (${state.failure.code})`;
    case 'stopped':
      return state.sequence === undefined ? 'stopped' : `stopped (snapshot ${state.sequence})`;
    default:
      return state.kind;
  }
}
