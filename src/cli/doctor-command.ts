import type { Command } from './command.ts';

/** `cairn doctor` */
export const doctorCommand: Command = {
  name: 'doctor',
  summary: 'Tell what this host can and cannot do',
  description:
    'Works without the daemon, and without root as far as possible. Exit code 0 only if jobs can be checkpointed, else 5.',
  arguments: [],
  options: [
    {
      name: 'state',
      value: 'DIR',
      description: 'state directory of the daemon (default $CAIRN_STATE or /var/lib/cairn)',
      completion: 'directory',
    },
    { name: 'verbose', short: 'v', description: 'show also what is as it should be' },
  ],
  examples: [
    { command: 'sudo cairn doctor', comment: 'what is missing, why, and what mends it' },
    { command: 'cairn doctor --json', comment: 'for a program' },
  ],
  async run(input, { json, runDirectory }) {
    const { doctor } = await import('./doctor.ts');
    const state = input.option('state') ?? process.env['CAIRN_STATE'] ?? '/var/lib/cairn';
    return doctor({ json, state, run: runDirectory, verbose: input.flag('verbose') });
  },
};
