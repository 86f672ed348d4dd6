import { cairnVersion } from '../node/version.ts';
import type { Command } from './command.ts';
import { formatJson } from './format.ts';

/** `cairn version` */
export const version: Command = {
  name: 'version',
  summary: 'Print the version',
  arguments: [],
  options: [],
  examples: [{ command: 'cairn version --json', comment: 'with that of Node.js' }],
  async run(_input, { json, write }) {
    const answer = { cairn: cairnVersion(), node: process.versions.node };
    write(json ? formatJson(answer) : `${answer.cairn}\n`);
    return 0;
  },
};
