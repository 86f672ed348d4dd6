import type { CheckpointBody, CheckpointResult, PreflightResult } from '../api/schemas.ts';
import { exitCodes } from '../errors.ts';
import { parseBytes, parseDuration } from '../jobs/quantities.ts';
import type { Command } from './command.ts';
import { formatBytes, formatDuration, formatJson } from './format.ts';
import { runOperation } from './operation.ts';
import { usage } from './parse-arguments.ts';

const afterwards = ['continue', 'stop', 'terminate'] as const;

/** `cairn checkpoint` */
export const checkpoint: Command = {
  name: 'checkpoint',
  summary: 'Save a job as a snapshot',
  description: `The job runs while most of it is saved, is frozen for a moment for the rest, and then runs on. If anything goes wrong it runs on as
before, and there is no snapshot. Interrupting the command breaks the checkpoint off.`,
  arguments: [{ name: 'JOB', required: true, completion: 'job' }],
  options: [
    {
      name: 'then',
      value: 'WHAT',
      description: 'continue (default), stop (stay frozen in memory; see "cairn resume") or terminate',
      completion: afterwards,
    },
    { name: 'dry-run', description: 'only say whether it is possible, how large and how long it would be' },
    {
      name: 'timeout',
      value: 'TIME',
      description:
        'give up if not everything has been read by then (default 60s); writing it out is not counted',
    },
    { name: 'no-pre-save', description: 'save everything while the job is frozen' },
    {
      name: 'staging-limit',
      value: 'BYTES',
      description: 'hold at most this much new data in memory while the job is frozen',
    },
    { name: 'pin', description: 'keep the snapshot whatever the retention policy says' },
    { name: 'note', value: 'TEXT', description: 'a note to find it again' },
  ],
  examples: [
    { command: 'cairn checkpoint redis', comment: 'save it; it runs on' },
    {
      command: 'cairn checkpoint --then terminate redis',
      comment: 'save it and end it; "cairn restart redis" goes on',
    },
    { command: 'cairn checkpoint --dry-run redis', comment: 'can it be saved, and what would that cost?' },
  ],
  async run(input, context) {
    const { client, json, write } = context;
    const job = input.required('JOB');
    const then = input.option('then') ?? 'continue';
    if (!isAfterwards(then))
      throw usage(`--then must be ${afterwards.join(', ')}, not "${then}".`, checkpoint);
    if (input.flag('dry-run')) {
      const answer = await client.preflight(job);
      write(json ? formatJson(answer) : describePreflight(job, answer));
      return answer.possible ? 0 : exitCodes.permanent;
    }
    const timeout = input.option('timeout');
    const stagingLimit = input.option('staging-limit');
    const note = input.option('note');
    const body: CheckpointBody = {
      then,
      ...(timeout === undefined ? {} : { timeoutMs: parseDuration(timeout, '--timeout') }),
      ...(input.flag('no-pre-save') ? { preSave: false } : {}),
      ...(stagingLimit === undefined
        ? {}
        : { stagingLimitBytes: parseBytes(stagingLimit, '--staging-limit') }),
      ...(input.flag('pin') ? { pinned: true } : {}),
      ...(note === undefined ? {} : { note }),
    };
    const result = await runOperation(context, (operation) => client.checkpoint(job, body, operation));
    write(json ? formatJson(result) : describeCheckpoint(result));
    return 0;
  },
};

function isAfterwards(text: string): text is (typeof afterwards)[number] {
  return afterwards.some((word) => word === text);
}

function describeCheckpoint({ name, sequence, then, timings, bytes }: CheckpointResult): string {
  const frozen = formatDuration(timings['frozenMs'] ?? 0);
  const total = formatDuration(timings['totalMs'] ?? 0);
  const fresh = formatBytes(bytes['new'] ?? 0);
  const stored = formatBytes(bytes['stored'] ?? 0);
  const after = then === 'continue' ? '' : then === 'stop' ? '; it is suspended now' : '; it is ended now';
  return `${name}@${sequence}: saved in ${total}, frozen for ${frozen}, ${fresh} new (${stored} stored)${after}\n`;
}

function describePreflight(job: string, answer: PreflightResult): string {
  const { estimate, obstacles, warnings } = answer;
  const lines = [
    answer.possible ? `${job} can be checkpointed.` : `${job} cannot be checkpointed now:`,
    ...obstacles.map(describeObstacle),
    ...warnings.map((warning) => `warning:${describeObstacle(warning)}`),
    `memory ${formatBytes(estimate.memoryBytes)}, files ${formatBytes(estimate.layerBytes)}${estimate.newBytes === undefined ? '' : `, new ${formatBytes(estimate.newBytes)}`}`,
    `expected: frozen for ${formatDuration(estimate.frozenMs)} of ${formatDuration(estimate.totalMs)}`,
  ];
  return `${lines.join('\n')}\n`;
}

function describeObstacle(obstacle: PreflightResult['obstacles'][number]): string {
  const { unitPid, command, descriptor, resource, reason, remedy } = obstacle;
  const who =
    unitPid === 0
      ? ''
      : `process ${unitPid} (${command})${descriptor === undefined ? '' : `, descriptor ${descriptor}`}: `;
  return `  ${who}${resource}: ${reason}\n  → ${remedy}`;
}
