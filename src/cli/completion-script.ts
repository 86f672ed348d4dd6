import type { Command, Completion, Option } from './command.ts';
import { commonOptions } from './command.ts';

/** Shells for which there is a completion. */
export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

/** The completion script of a shell. Names of jobs and snapshots are asked of the node when they are needed. */
export function completionScript(shell: Shell, commands: readonly Command[]): string {
  switch (shell) {
    case 'bash':
      return bashScript(commands);
    case 'zsh':
      return zshScript(commands);
    case 'fish':
      return fishScript(commands);
    default:
      return shell satisfies never;
  }
}

const jobNames = `cairn jobs -a 2>/dev/null | awk 'NR > 1 { print $1 }'`;
const snapshotNames = `{ ${jobNames}; cairn snapshots 2>/dev/null | awk 'NR > 1 { print $1 }'; }`;

function bashScript(commands: readonly Command[]): string {
  return `# bash completion for cairn
_cairn() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} command=\${COMP_WORDS[1]}
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${commands.map(({ name }) => name).join(' ')} --help" -- "$cur"))
    return
  fi
  case "$command" in
${commands.map(bashCommand).join('')}  esac
}
complete -F _cairn cairn
`;
}

function bashCommand(command: Command): string {
  const options = allOptions(command);
  const values = options.filter((option) => option.value !== undefined);
  const cases = values
    .map((option) => {
      const names = [`--${option.name}`, ...(option.short === undefined ? [] : [`-${option.short}`])].join(
        '|',
      );
      return `        ${names}) ${bashReply(option.completion)} return ;;\n`;
    })
    .join('');
  const words = options.flatMap(optionWords).join(' ');
  return `    ${command.name})
      case "$prev" in
${cases}      esac
      case "$cur" in
        -*) COMPREPLY=($(compgen -W "${words}" -- "$cur")) ;;
        *) ${bashReply(argumentCompletion(command))} ;;
      esac
      ;;
`;
}

function bashReply(completion: Completion | undefined): string {
  switch (completion) {
    case undefined:
      return ':;';
    case 'file':
      return 'COMPREPLY=($(compgen -f -- "$cur"));';
    case 'directory':
      return 'COMPREPLY=($(compgen -d -- "$cur"));';
    case 'job':
      return `COMPREPLY=($(compgen -W "$(${jobNames})" -- "$cur"));`;
    case 'snapshot':
      return `COMPREPLY=($(compgen -W "$(${snapshotNames})" -- "$cur"));`;
    default:
      return `COMPREPLY=($(compgen -W "${completion.join(' ')}" -- "$cur"));`;
  }
}

function zshScript(commands: readonly Command[]): string {
  const list = commands.map(({ name, summary }) => `    ${quote(`${name}:${summary}`)}`).join('\n');
  return `#compdef cairn
# zsh completion for cairn
_cairn_jobs() { local -a names; names=(\${(f)"$(${jobNames})"}); compadd -a names; }
_cairn_snapshots() { local -a names; names=(\${(f)"$(${snapshotNames})"}); compadd -a names; }
_cairn() {
  local -a commands
  commands=(
${list}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${commands.map(zshCommand).join('')}  esac
}
if [ "$funcstack[1]" = _cairn ]; then _cairn "$@"; else compdef _cairn cairn; fi
`;
}

function zshCommand(command: Command): string {
  const options = allOptions(command).flatMap((option) => {
    const description = `[${option.description.replaceAll(/[[\]:]/g, '\\$&')}]`;
    const value =
      option.value === undefined
        ? ''
        : `:${option.value.replaceAll(/[[\]:]/g, '\\$&')}:${zshAction(option.completion)}`;
    const repeat = option.repeat === true ? '*' : '';
    return optionWords(option).map((word) => quote(`${repeat}${word}${description}${value}`));
  });
  const rest =
    command.arguments.length === 0 ? [] : [quote(`*:argument:${zshAction(argumentCompletion(command))}`)];
  return `    ${command.name})
      _arguments -s ${[...options, ...rest].join(' \\\n        ')}
      ;;
`;
}

function zshAction(completion: Completion | undefined): string {
  switch (completion) {
    case undefined:
      return ' ';
    case 'file':
      return '_files';
    case 'directory':
      return '_files -/';
    case 'job':
      return '_cairn_jobs';
    case 'snapshot':
      return '_cairn_snapshots';
    default:
      return `(${completion.map((word) => word.replaceAll(':', '\\:')).join(' ')})`;
  }
}

function fishScript(commands: readonly Command[]): string {
  const lines = [
    '# fish completion for cairn',
    `function __cairn_jobs; ${jobNames}; end`,
    `function __cairn_snapshots; begin; ${jobNames}; cairn snapshots 2>/dev/null | awk 'NR > 1 { print $1 }'; end; end`,
    'complete -c cairn -f',
  ];
  for (const command of commands) {
    lines.push(`complete -c cairn -n __fish_use_subcommand -a ${command.name} -d ${quote(command.summary)}`);
    const here = `complete -c cairn -n '__fish_seen_subcommand_from ${command.name}'`;
    const argument = fishAction(argumentCompletion(command));
    if (argument !== '') lines.push(`${here} ${argument}`);
    for (const option of allOptions(command)) {
      const short = option.short === undefined ? '' : ` -s ${option.short}`;
      const value = option.value === undefined ? '' : ` -x ${fishAction(option.completion)}`;
      lines.push(`${here} -l ${option.name}${short}${value.trimEnd()} -d ${quote(option.description)}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

function fishAction(completion: Completion | undefined): string {
  switch (completion) {
    case undefined:
      return '';
    case 'file':
      return "-a '(__fish_complete_path)'";
    case 'directory':
      return "-a '(__fish_complete_directories)'";
    case 'job':
      return "-a '(__cairn_jobs)'";
    case 'snapshot':
      return "-a '(__cairn_snapshots)'";
    default:
      return `-a ${quote(completion.join(' '))}`;
  }
}

function allOptions(command: Command): readonly Option[] {
  return [...command.options, ...commonOptions];
}

function optionWords(option: Option): string[] {
  return [`--${option.name}`, ...(option.short === undefined ? [] : [`-${option.short}`])];
}

/** What the first argument is; a command line to run is a file. */
function argumentCompletion(command: Command): Completion | undefined {
  const [first] = command.arguments;
  return first?.rest === true ? 'file' : first?.completion;
}

/** Text in single quotes, as all three shells read it. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
