import { CairnError } from '../errors.ts';
import type { Argument, Command, Option } from './command.ts';
import { commonOptions } from './command.ts';

/** What was given on the command line, by name. */
export class Input {
  readonly #options: ReadonlyMap<string, readonly string[]>;
  readonly #arguments: ReadonlyMap<string, readonly string[]>;

  constructor(options: ReadonlyMap<string, readonly string[]>, args: ReadonlyMap<string, readonly string[]>) {
    this.#options = options;
    this.#arguments = args;
  }

  /** Was this option given? */
  flag(name: string): boolean {
    return this.#options.has(name);
  }

  /** The value of an option; the last one if it was given several times. */
  option(name: string): string | undefined {
    return this.#options.get(name)?.at(-1);
  }

  /** All values of an option. */
  options(name: string): readonly string[] {
    return this.#options.get(name) ?? [];
  }

  /** The value of an option as a whole number. Error: `usage`. */
  integer(name: string, least: number): number | undefined {
    const text = this.option(name);
    if (text === undefined) return undefined;
    if (/^[0-9]{1,15}$/.test(text) && Number(text) >= least) return Number(text);
    throw usage(`--${name}: "${text}" is not a whole number of at least ${least}.`, undefined);
  }

  /** The value of an argument that may be missing. */
  argument(name: string): string | undefined {
    return this.#arguments.get(name)?.[0];
  }

  /** The value of an argument that the command line must have. */
  required(name: string): string {
    const value = this.argument(name);
    if (value === undefined) throw new Error(`the argument ${name} is not required`);
    return value;
  }

  /** All values of an argument that takes several. */
  arguments(name: string): readonly string[] {
    return this.#arguments.get(name) ?? [];
  }
}

/**
 * Reads the words after the name of a command. Options may stand anywhere before `--` or the begin of a command line to run; letters can
 * be joined (`-it`). Error: `usage`.
 */
export function parseArguments(command: Command, words: readonly string[]): Input {
  const known = [...command.options, ...commonOptions];
  const options = new Map<string, string[]>();
  const positional: string[] = [];
  const restAt = command.arguments.findIndex((argument) => argument.rest === true);
  let index = 0;

  const take = (option: Option, shown: string, attached: string | undefined): void => {
    const values = options.get(option.name) ?? [];
    options.set(option.name, values);
    if (option.value === undefined) {
      if (attached !== undefined) throw usage(`${shown} takes no value.`, command);
      return;
    }
    const value = attached ?? words[index++];
    if (value === undefined) throw usage(`${shown} needs a value: ${option.value}.`, command);
    values.push(value);
  };

  while (index < words.length) {
    const word = words[index++] ?? '';
    if (word === '--') {
      positional.push(...words.slice(index));
      break;
    }
    if (word.startsWith('--')) {
      const equals = word.indexOf('=');
      const name = word.slice(2, equals === -1 ? undefined : equals);
      const option = known.find((candidate) => candidate.name === name);
      if (option === undefined)
        throw usage(`the option --${name} is not known.`, command, nearest(name, known));
      take(option, `--${name}`, equals === -1 ? undefined : word.slice(equals + 1));
    } else if (word.startsWith('-') && word.length > 1) {
      for (let at = 1; at < word.length; at++) {
        const letter = word[at] ?? '';
        const option = known.find((candidate) => candidate.short === letter);
        if (option === undefined) throw usage(`the option -${letter} is not known.`, command);
        const attached = option.value !== undefined && at + 1 < word.length ? word.slice(at + 1) : undefined;
        take(option, `-${letter}`, attached);
        if (option.value !== undefined) break;
      }
    } else {
      positional.push(word);
      if (restAt !== -1 && positional.length > restAt) {
        positional.push(...words.slice(index));
        break;
      }
    }
  }
  const help = options.has('help');
  return new Input(options, place(command, positional, help));
}

/** An error in how a command was called. */
export function usage(message: string, command: Command | undefined, hint?: string): CairnError {
  const remedy = `${hint === undefined ? '' : `Did you mean --${hint}? `}See "cairn ${command === undefined ? '' : `${command.name} `}--help".`;
  return new CairnError(
    'argument',
    'usage',
    `${command === undefined ? '' : `cairn ${command.name}: `}${message}`,
    {
      remedy,
    },
  );
}

/** The word among these that is most like a mistyped one, if any is. */
export function nearestWord(word: string, words: readonly string[]): string | undefined {
  const ranked = words
    .map((candidate) => ({ candidate, distance: editDistance(word, candidate) }))
    .sort((a, b) => a.distance - b.distance);
  const [best] = ranked;
  return best !== undefined && best.distance <= Math.max(1, Math.floor(word.length / 3))
    ? best.candidate
    : undefined;
}

function nearest(name: string, known: readonly Option[]): string | undefined {
  return nearestWord(
    name,
    known.map((option) => option.name),
  );
}

function place(command: Command, positional: readonly string[], help: boolean): Map<string, string[]> {
  const placed = new Map<string, string[]>();
  let used = 0;
  for (const argument of command.arguments) {
    const values = takesAll(argument) ? positional.slice(used) : positional.slice(used, used + 1);
    used += values.length;
    if (values.length > 0) placed.set(argument.name, values);
    else if (argument.required && !help) throw usage(`${argument.name} is missing.`, command);
  }
  if (used < positional.length && !help) throw usage(`"${positional[used]}" is too much.`, command);
  return placed;
}

function takesAll(argument: Argument): boolean {
  return argument.rest === true || argument.repeat === true;
}

/** Levenshtein distance: insertions, deletions and replacements of one letter. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(replace, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}
