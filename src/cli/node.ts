import { join } from 'node:path';
import { CairnError } from '../errors.ts';
import type { Command } from './command.ts';
import { usage } from './parse-arguments.ts';

const levels = ['trace', 'debug', 'info', 'warn', 'error'] as const;

/** `cairn node` */
export const node: Command = {
  name: 'node',
  summary: 'Be the daemon of this node',
  description: `Serves the API on RUN/node.sock, keeps its state and snapshots in the state directory, and writes its log as JSON to standard error.
SIGTERM ends it in order. However it ends, jobs run on, and the next daemon finds them again.`,
  arguments: [],
  options: [
    {
      name: 'state',
      value: 'DIR',
      description: 'directory of state, snapshots and keys (default $CAIRN_STATE or /var/lib/cairn)',
      completion: 'directory',
    },
    {
      name: 'log-level',
      value: 'LEVEL',
      description: `${levels.join(', ')} (default info)`,
      completion: levels,
    },
    { name: 'bridge', value: 'NAME', description: 'bridge of the jobs (default $CAIRN_BRIDGE or cairn0)' },
    {
      name: 'subnet',
      value: 'CIDR',
      description: 'addresses of the jobs (default $CAIRN_SUBNET or 10.213.0.0/16)',
    },
  ],
  examples: [
    { command: 'sudo cairn node', comment: 'in the foreground' },
    { command: 'sudo systemctl start cairn-node', comment: 'as a service' },
    {
      command: 'sudo cairn node --state /tmp/s --run /tmp/r --bridge cairn1 --subnet 10.214.0.0/16',
      comment: 'a second one, for trying out',
    },
  ],
  async run(input, context) {
    const level = input.option('log-level') ?? 'info';
    if (!levels.some((known) => known === level)) {
      throw usage(`--log-level must be ${levels.join(', ')}, not "${level}".`, node);
    }
    const bridge = bridgeOf(
      input.option('bridge') ?? process.env['CAIRN_BRIDGE'],
      input.option('subnet') ?? process.env['CAIRN_SUBNET'],
    );
    // What the daemon needs is large: the other commands do without.
    const { serveNode } = await import('./serve-node.ts');
    await serveNode({
      stateDirectory: input.option('state') ?? process.env['CAIRN_STATE'] ?? '/var/lib/cairn',
      runDirectory: context.runDirectory,
      socket: join(context.runDirectory, 'node.sock'),
      level,
      ...(bridge === undefined ? {} : { bridge }),
    });
    return 0;
  },
};

function bridgeOf(
  name: string | undefined,
  subnet: string | undefined,
): { name: string; subnet: string } | undefined {
  if (name === undefined && subnet === undefined) return undefined;
  if (name !== undefined && !/^[a-z][a-z0-9-]{0,14}$/.test(name)) {
    throw new CairnError('argument', 'bridge-invalid', `A bridge cannot be called "${name}".`, {
      remedy: 'Use at most 15 of a-z, 0-9 and "-", beginning with a letter.',
    });
  }
  return { name: name ?? 'cairn0', subnet: subnet ?? '10.213.0.0/16' };
}
