import { type CommandOptions, commonArguments } from './dump-command.ts';

/** A restore (`criu restore`). */
export interface RestoreOptions extends CommandOptions {
  /** CRIU ends when the tree runs, and the tree's root becomes a child of this process or of the nearest subreaper. */
  detached?: boolean;
  /** The tree's root becomes a child of the process that started CRIU (only with `detached`). */
  sibling?: boolean;
  /** The tree stays stopped (SIGSTOP). */
  leaveStopped?: boolean;
  /** Gets the root's PID in this PID namespace. */
  pidFile?: string;
  /** Descriptors of the child that stand for descriptors of the dumped tree: `pipe:[123]`, `socket:[123]`, `tty[8800:5]` … */
  inheritDescriptors?: readonly { descriptor: number; resource: string }[];
  /** Memory marked lazy is brought by who listens in the work directory (`LazyServer`). */
  lazyPages?: boolean;
  /** How files by reference are compared: by size, or also by build-id (CRIU's default). */
  fileValidation?: 'filesize' | 'buildid';
  /** Existing namespaces to restore into, by kind: a path or PID. */
  joinNamespaces?: Readonly<Record<string, string>>;
  /** `apparmor:NAME` or `selinux:CONTEXT` instead of the dumped one. */
  securityProfile?: string;
}

/** Arguments of `criu restore`, without the program. Pure. */
export function restoreCommand(options: RestoreOptions): string[] {
  const argv = ['restore', ...commonArguments(options)];
  if (options.detached) argv.push('--restore-detached');
  if (options.sibling) argv.push('--restore-sibling');
  if (options.leaveStopped) argv.push('--leave-stopped');
  if (options.pidFile !== undefined) argv.push('--pidfile', options.pidFile);
  for (const { descriptor, resource } of options.inheritDescriptors ?? []) {
    argv.push('--inherit-fd', `fd[${descriptor}]:${resource}`);
  }
  if (options.lazyPages) argv.push('--lazy-pages');
  if (options.fileValidation !== undefined) argv.push('--file-validation', options.fileValidation);
  for (const [kind, where] of Object.entries(options.joinNamespaces ?? {})) {
    argv.push('--join-ns', `${kind}:${where}`);
  }
  if (options.securityProfile !== undefined) argv.push('--lsm-profile', options.securityProfile);
  return argv;
}
