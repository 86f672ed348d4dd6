/** What a dump or restore has in common. */
export interface CommandOptions {
  /** Directory of the images, or of the streamer's socket. Short: with the socket's name at most 107 bytes. */
  imageDirectory: string;
  /** Where CRIU writes its log and statistics; default: the image directory. */
  workDirectory?: string;
  /** Name of the log file in the work directory. */
  logFile: string;
  /** 1 errors, 2 warnings (default), 3 information, 4 everything (much: it costs time while the tree is frozen). */
  logLevel?: 1 | 2 | 3 | 4;
  /** Images go through the image streamer's socket instead of files. */
  stream?: boolean;
  /** Root of the tree's mount namespace as the host sees it. */
  root?: string;
  /** External resources, as CRIU writes them: `mnt[/proc/keys]:/proc/keys`, `pipe[x]`, `unix[123]` … */
  externals?: readonly string[];
  /** Default `ignore`: Cairn makes the cgroups. */
  manageCgroups?: 'ignore' | 'none' | 'soft' | 'full' | 'strict';
  /** The network namespace is made empty; whoever restores gives it its devices. */
  emptyNetwork?: boolean;
  /** `established`: connections are kept; `close`: they are restored closed; nothing: a connection fails the dump. */
  tcp?: 'established' | 'close';
  /** How CRIU locks connections meanwhile; `skip` where the caller has locked the network itself. */
  networkLock?: 'nftables' | 'iptables' | 'skip';
  fileLocks?: boolean;
  /** The terminal of the session is not part of the tree. */
  shellJob?: boolean;
  /** Unlinked files that still have a name elsewhere are linked back for a moment. */
  linkRemap?: boolean;
  actionScripts?: readonly string[];
  /** Directory of CRIU's plug-ins. */
  pluginDirectory?: string;
  /** Further arguments, as they are. */
  extra?: readonly string[];
}

/** A dump (`criu dump`). */
export interface DumpOptions extends CommandOptions {
  /** Root of the tree, in this PID namespace. */
  pid: number;
  /** What becomes of the tree: `run` on, `stop` (SIGSTOP), or `kill`. */
  afterwards: 'run' | 'stop' | 'kill';
  /**
   * Private anonymous memory is left out: CRIU says on the status descriptor that all else is written, and keeps the tree
   * frozen until the other end of this socket (the child's descriptor number) is closed.
   */
  lazySocket?: number;
  /** Child's descriptor number that gets one byte when the lazy dump waits. */
  statusDescriptor?: number;
  /** Largest unlinked file whose content goes into the images, in bytes (CRIU's default is 1 MiB). */
  ghostLimitBytes?: number;
  /** Seconds for stopping the tree and all else that has to happen (CRIU's default is 10). */
  timeoutSeconds?: number;
  /** Freezes with this cgroup (v1 freezer or v2) instead of one process at a time. */
  freezeCgroup?: string;
  /** Connections that a listening socket has not yet accepted are dropped instead of failing the dump. */
  skipInFlight?: boolean;
}

/** Arguments of `criu dump`, without the program. Pure. */
export function dumpCommand(options: DumpOptions): string[] {
  const argv = ['dump', '--tree', String(options.pid), ...commonArguments(options)];
  if (options.afterwards === 'run') argv.push('--leave-running');
  if (options.afterwards === 'stop') argv.push('--leave-stopped');
  if (options.lazySocket !== undefined) argv.push('--lazy-pages', '--ps-socket', String(options.lazySocket));
  if (options.statusDescriptor !== undefined) argv.push('--status-fd', String(options.statusDescriptor));
  if (options.ghostLimitBytes !== undefined) argv.push('--ghost-limit', String(options.ghostLimitBytes));
  if (options.timeoutSeconds !== undefined) argv.push('--timeout', String(options.timeoutSeconds));
  if (options.freezeCgroup !== undefined) argv.push('--freeze-cgroup', options.freezeCgroup);
  if (options.skipInFlight) argv.push('--skip-in-flight');
  return argv;
}

/** The arguments that a dump and a restore share; nothing of the host's CRIU configuration is read. */
export function commonArguments(options: CommandOptions): string[] {
  const argv = ['--no-default-config', '--images-dir', options.imageDirectory];
  if (options.workDirectory !== undefined) argv.push('--work-dir', options.workDirectory);
  argv.push('--log-file', options.logFile, `--verbosity=${options.logLevel ?? 2}`);
  argv.push(`--manage-cgroups=${options.manageCgroups ?? 'ignore'}`);
  if (options.stream) argv.push('--stream');
  if (options.root !== undefined) argv.push('--root', options.root);
  for (const external of options.externals ?? []) argv.push('--external', external);
  if (options.emptyNetwork) argv.push('--empty-ns', 'net');
  if (options.tcp === 'established') argv.push('--tcp-established');
  if (options.tcp === 'close') argv.push('--tcp-close');
  if (options.networkLock !== undefined) argv.push('--network-lock', options.networkLock);
  if (options.fileLocks) argv.push('--file-locks');
  if (options.shellJob) argv.push('--shell-job');
  if (options.linkRemap) argv.push('--link-remap');
  for (const script of options.actionScripts ?? []) argv.push('--action-script', script);
  if (options.pluginDirectory !== undefined) argv.push('--libdir', options.pluginDirectory);
  argv.push(...(options.extra ?? []));
  return argv;
}
