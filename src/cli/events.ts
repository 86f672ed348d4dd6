import type { Command } from './command.ts';

/** `cairn events` */
export const events: Command = {
  name: 'events',
  summary: 'Show what happens on the node',
  description: 'One line for each event, from now on. With --json each line is an object.',
  arguments: [],
  options: [],
  examples: [{ command: 'cairn events --json', comment: 'for a program that watches' }],
  async run(_input, { client, json, write }) {
    for await (const event of client.events()) {
      if (json) write(`${JSON.stringify(event)}\n`);
      else {
        const { kind, at, ...rest } = event;
        write(`${at} ${kind} ${JSON.stringify(rest)}\n`);
      }
    }
    return 0;
  },
};
