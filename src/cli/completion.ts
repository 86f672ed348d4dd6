import type { Command } from './command.ts';
import { completionScript, shells } from './completion-script.ts';
import { usage } from './parse-arguments.ts';

/** `cairn completion` */
export const completion: Command = {
  name: 'completion',
  summary: 'Print the completion script of a shell',
  arguments: [{ name: 'SHELL', required: true, completion: shells }],
  options: [],
  examples: [
    { command: 'source <(cairn completion bash)', comment: 'for this shell' },
    { command: 'cairn completion zsh > "${fpath[1]}/_cairn"', comment: 'for zsh, for good' },
    {
      command: 'cairn completion fish > ~/.config/fish/completions/cairn.fish',
      comment: 'for fish, for good',
    },
  ],
  async run(input, { write }) {
    const wanted = input.required('SHELL');
    const shell = shells.find((name) => name === wanted);
    if (shell === undefined) throw usage(`SHELL must be ${shells.join(', ')}, not "${wanted}".`, completion);
    const { commands } = await import('./commands.ts');
    write(completionScript(shell, await Promise.all(commands.map((command) => command.load()))));
    return 0;
  },
};
