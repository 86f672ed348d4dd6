import { exitCodeOfSession } from '../api/session-end.ts';
import { CairnError } from '../errors.ts';
import type { Command } from './command.ts';
import { environmentFrom } from './environment.ts';
import { runSession, terminalSize } from './terminal-session.ts';

/** `cairn exec` */
export const exec: Command = {
  name: 'exec',
  summary: 'Run a command in a job',
  description:
    'Runs it beside the processes of the job, in the same surroundings. It is not part of snapshots. Ends with the exit code of the command.',
  arguments: [
    { name: 'JOB', required: true, completion: 'job' },
    { name: 'COMMAND', required: true, rest: true },
  ],
  options: [
    { name: 'interactive', short: 'i', description: 'pass standard input on' },
    { name: 'tty', short: 't', description: 'give it a terminal' },
    {
      name: 'env',
      short: 'e',
      value: 'NAME=VALUE',
      repeat: true,
      description: 'set an environment variable',
    },
    {
      name: 'user',
      short: 'u',
      value: 'USER',
      description: 'name or number of the user (default: that of the job)',
    },
    { name: 'workdir', short: 'w', value: 'DIR', description: 'where it starts' },
  ],
  examples: [
    { command: 'cairn exec redis -- redis-cli info', comment: 'ask the service in the job' },
    { command: 'cairn exec -it redis -- bash', comment: 'look around in it' },
  ],
  async run(input, { client }) {
    const terminal = input.flag('tty');
    const stdin = input.flag('interactive');
    const user = input.option('user');
    const workingDirectory = input.option('workdir');
    if (terminal && stdin && !process.stdin.isTTY) throw notATerminal();
    const stream = await client.exec(input.required('JOB'), {
      command: [...input.arguments('COMMAND')],
      environment: environmentFrom(input.options('env')),
      terminal,
      stdin,
      ...(user === undefined ? {} : { user }),
      ...(workingDirectory === undefined ? {} : { workingDirectory }),
      ...(terminal ? terminalSize() : undefined),
    });
    const result = await runSession(stream, { terminal, stdin });
    if (result.kind === 'ended') return exitCodeOfSession(result.end);
    if (result.kind === 'detached') return 0;
    throw new CairnError(
      'temporary',
      'session-lost',
      'The connection to the command was lost before it had ended.',
      {
        remedy: 'The node daemon may have ended; see "cairn jobs".',
      },
    );
  },
};

/** Error of -it without a terminal. */
export function notATerminal(): CairnError {
  return new CairnError(
    'argument',
    'not-a-terminal',
    'Standard input is not a terminal: -t and -i together need one.',
    {
      remedy: 'Leave -t out.',
    },
  );
}
