import type { Argument, Command, Option } from './command.ts';
import { commonOptions } from './command.ts';

/** How the command is called, in one line. */
export function usageLine(command: Command): string {
  const options = command.options.length > 0 ? ['[OPTIONS]'] : [];
  return ['cairn', command.name, ...options, ...command.arguments.map(showArgument)].join(' ');
}

/** The help of one command. */
export function commandHelp(command: Command): string {
  const parts = [`${command.summary}.`, `Usage: ${usageLine(command)}`];
  if (command.description !== undefined) parts.push(command.description.trim());
  if (command.options.length > 0) parts.push(`Options:\n${optionLines(command.options)}`);
  parts.push(`Options of every command:\n${optionLines(commonOptions)}`);
  parts.push(
    `Examples:\n${command.examples.map(({ command: line, comment }) => `  # ${comment}\n  ${line}`).join('\n')}`,
  );
  return `${parts.join('\n\n')}\n`;
}

/** What `cairn` alone says. */
export function overview(commands: readonly { name: string; summary: string }[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length));
  const list = commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`).join('\n');
  return `Cairn saves running programs and brings them back.

Usage: cairn COMMAND [OPTIONS] [ARGUMENTS]

Commands:
${list}

"cairn COMMAND --help" explains a command and shows examples.

Exit codes: 0 done, 1 a defect of Cairn, 2 wrong request, 3 may succeed later, 4 can never succeed, 5 this host lacks
something (see "cairn doctor"). "cairn run" and "cairn exec" end with the exit code of the program.
`;
}

/** The names of an option, with its value. */
export function showOption(option: Option): string {
  const value = option.value === undefined ? '' : ` ${option.value}`;
  return `${option.short === undefined ? '    ' : `-${option.short}, `}--${option.name}${value}`;
}

function optionLines(options: readonly Option[]): string {
  const shown = options.map((option) => ({ left: showOption(option), right: option.description }));
  const width = Math.max(...shown.map(({ left }) => left.length));
  return shown.map(({ left, right }) => `  ${left.padEnd(width)}  ${right}`).join('\n');
}

function showArgument(argument: Argument): string {
  const text = argument.rest === true ? `[--] ${argument.name}` : argument.name;
  const more = argument.rest === true || argument.repeat === true ? '…' : '';
  return argument.required ? `${text}${more}` : `[${text}${more}]`;
}
