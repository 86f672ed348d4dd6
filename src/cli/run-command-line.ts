import { NodeClient } from '../api/client.ts';
import { systemCode } from '../errors.ts';
import type { Command, CommandContext } from './command.ts';
import { commands } from './commands.ts';
import { commandHelp, overview } from './help.ts';
import { type Input, nearestWord, parseArguments, usage } from './parse-arguments.ts';
import { exitCodeFor, renderError } from './report-error.ts';

const defaultRunDirectory = '/run/cairn';

/** Does what the words of a command line say. Returns the exit code. */
export async function runCommandLine(words: readonly string[]): Promise<number> {
  // "cairn jobs | head" ends when head does.
  process.stdout.on('error', (error) => process.exit(systemCode(error) === 'EPIPE' ? 0 : 1));
  const json = beforeCommandToRun(words).includes('--json');
  try {
    const [name, ...rest] = words;
    if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
      return await showHelp(rest[0]);
    }
    if (name === '--version') return await call(await find('version'), rest);
    return await call(await find(name), rest);
  } catch (error) {
    process.stderr.write(renderError(error, { json, color: process.stderr.hasColors?.() ?? false }));
    return exitCodeFor(error);
  }
}

async function call(command: Command, words: readonly string[]): Promise<number> {
  const input = parseArguments(command, words);
  if (input.flag('help')) {
    process.stdout.write(commandHelp(command));
    return 0;
  }
  return command.run(input, contextOf(input));
}

function contextOf(input: Input): CommandContext {
  const runDirectory = input.option('run') ?? process.env['CAIRN_RUN'] ?? defaultRunDirectory;
  return {
    client: new NodeClient(runDirectory),
    runDirectory,
    json: input.flag('json'),
    write: (text) => void process.stdout.write(text),
    note: (text) => void process.stderr.write(text),
  };
}

async function find(name: string): Promise<Command> {
  const listed = commands.find((command) => command.name === name);
  if (listed !== undefined) return listed.load();
  const near = nearestWord(
    name,
    commands.map((command) => command.name),
  );
  throw usage(
    `there is no command "${name}".${near === undefined ? '' : ` Did you mean "cairn ${near}"?`}`,
    undefined,
  );
}

async function showHelp(name: string | undefined): Promise<number> {
  if (name === undefined || name.startsWith('-')) process.stdout.write(overview(commands));
  else process.stdout.write(commandHelp(await find(name)));
  return 0;
}

/** The words that can be options of ours. */
function beforeCommandToRun(words: readonly string[]): readonly string[] {
  const end = words.indexOf('--');
  return end === -1 ? words : words.slice(0, end);
}
