import { exitCodes } from '../errors.ts';
import type { Command } from './command.ts';
import { commonOptions } from './command.ts';
import { showOption, usageLine } from './help.ts';

/** `docs/commands.md`: every command with its options and examples. */
export function commandDocumentation(commands: readonly Command[]): string {
  const parts = [
    '# Commands',
    'Written from the program itself; `cairn COMMAND --help` says the same.',
    commands
      .map(({ name, summary }) => `- [\`cairn ${name}\`](#cairn-${name}): ${lowerFirst(summary)}`)
      .join('\n'),
    '## Exit codes',
    exitCodeTable(),
    '## Options of every command',
    optionTable(commonOptions),
    ...commands.map(commandSection),
  ];
  return `${parts.join('\n\n')}\n`;
}

function exitCodeTable(): string {
  const rows = [
    ['0', 'done'],
    ['1', 'a defect of Cairn itself'],
    [
      String(exitCodes.argument),
      '`argument`: the request names something that does not exist, or makes no sense',
    ],
    [String(exitCodes.temporary), '`temporary`: the same request may succeed later'],
    [String(exitCodes.permanent), '`permanent`: it will never succeed'],
    [String(exitCodes.environment), '`environment`: this host lacks something; `cairn doctor` tells what'],
  ];
  return `${table(['code', 'meaning'], rows)}

\`cairn run\` (without \`-d\`), \`cairn attach\` and \`cairn exec\` end with the exit code of the program: 128 + N if signal N ended it.
What each failure is called and what helps: [errors.md](errors.md).`;
}

function commandSection(command: Command): string {
  const examples = command.examples.map(({ command: line, comment }) => `# ${comment}\n${line}`).join('\n');
  const parts = [
    `## cairn ${command.name}`,
    `${command.summary}. ${(command.description ?? '').replaceAll('\n', ' ')}`.trim(),
    `\`\`\`\n${usageLine(command)}\n\`\`\``,
    ...(command.options.length === 0 ? [] : [optionTable(command.options)]),
    `\`\`\`sh\n${examples}\n\`\`\``,
  ];
  return parts.join('\n\n');
}

function optionTable(options: Command['options']): string {
  return table(
    ['option', 'meaning'],
    options.map((option) => [`\`${showOption(option).trim()}\``, option.description]),
  );
}

function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(headings), `|${headings.map(() => '---|').join('')}`, ...rows.map(line)].join('\n');
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
