import type { NodeClient } from '../api/client.ts';
import type { Input } from './parse-arguments.ts';

/** What the shell completion offers for a value. */
export type Completion = 'job' | 'snapshot' | 'file' | 'directory' | readonly string[];

/** One option of a command. */
export interface Option {
  /** Long name without the dashes. */
  name: string;
  /** One letter. */
  short?: string;
  /** What the value is called in the help; an option without is a flag. */
  value?: string;
  /** May be given several times. */
  repeat?: boolean;
  description: string;
  completion?: Completion;
}

/** One argument of a command, in its place. */
export interface Argument {
  /** In capitals, as in the help. */
  name: string;
  required: boolean;
  /** Takes this and everything that follows, options too: a command line to run. */
  rest?: boolean;
  /** Takes all that follow. */
  repeat?: boolean;
  completion?: Completion;
}

/** One command of `cairn`: what it takes, how it is explained, and what it does. */
export interface Command {
  name: string;
  /** One line. */
  summary: string;
  /** Some lines more, for the help. */
  description?: string;
  arguments: readonly Argument[];
  options: readonly Option[];
  examples: readonly { command: string; comment: string }[];
  /** Does it, and returns the exit code. */
  run(input: Input, context: CommandContext): Promise<number>;
}

/** What a command works with. */
export interface CommandContext {
  client: NodeClient;
  /** Directory of the daemon's socket. */
  runDirectory: string;
  /** Write results as JSON. */
  json: boolean;
  /** Writes text to standard output. */
  write(text: string): void;
  /** Writes text to standard error. */
  note(text: string): void;
}

/** Options that every command has. */
export const commonOptions: readonly Option[] = [
  { name: 'json', description: 'write the result as JSON' },
  {
    name: 'run',
    value: 'DIR',
    description: "directory of the daemon's socket (default $CAIRN_RUN or /run/cairn)",
    completion: 'directory',
  },
  { name: 'help', short: 'h', description: 'show this help' },
];
