import type { Snapshot } from '../api/schemas.ts';
import { checkJobName } from '../jobs/job-reference.ts';
import type { Command } from './command.ts';
import { formatAge, formatBytes, formatJson, formatTable } from './format.ts';

/** `cairn snapshots` */
export const snapshots: Command = {
  name: 'snapshots',
  summary: 'List snapshots',
  description: 'The one marked with * is the current one of its job: "cairn restart JOB" takes it.',
  arguments: [{ name: 'JOB', required: false, completion: 'job' }],
  options: [],
  examples: [
    { command: 'cairn snapshots', comment: 'all snapshots of this node' },
    { command: 'cairn snapshots redis', comment: 'those of one job' },
  ],
  async run(input, { client, json, write }) {
    const job = input.argument('JOB');
    if (job !== undefined) checkJobName(job);
    const all = await client.snapshots(job);
    write(json ? formatJson(all) : snapshotTable(all, Date.now()));
    return 0;
  },
};

function snapshotTable(all: readonly Snapshot[], now: number): string {
  const rows = all.map((snapshot) => [
    `${snapshot.name === '' ? snapshot.job : snapshot.name}@${snapshot.sequence}${snapshot.current ? ' *' : ''}`,
    snapshot.damage === undefined ? snapshot.state : 'DAMAGED',
    formatAge(snapshot.createdAt, now),
    formatBytes(snapshot.logicalBytes),
    formatBytes(snapshot.storedBytes),
    snapshot.pinned ? 'yes' : '-',
    snapshot.damage ?? snapshot.note ?? '',
  ]);
  return formatTable(['SNAPSHOT', 'STATE', 'TAKEN', 'SIZE', 'STORED', 'PINNED', 'NOTE'], rows);
}
