/** The daemon that brings memory to a tree that already runs (`criu lazy-pages`). */
export interface LazyPagesOptions {
  /** Directory with the small images (inventory, pstree, core, mm, pagemap, pages of what is not lazy). */
  imageDirectory: string;
  /** The same directory as the restore's: its `lazy-pages.socket` connects the two. */
  workDirectory: string;
  logFile: string;
  /**
   * Default 1 (errors): with a unix socket as page server CRIU would warn at each request that TCP options do not apply.
   */
  logLevel?: 1 | 2 | 3 | 4;
  /** Child's descriptor number of a connected stream socket to a page server. */
  pageServerSocket: number;
  /** Child's descriptor number that gets one byte when the daemon listens, so that the restore may start. */
  statusDescriptor?: number;
}

/** Arguments of `criu lazy-pages`, without the program. Pure. */
export function lazyPagesCommand(options: LazyPagesOptions): string[] {
  const argv = ['lazy-pages', '--no-default-config', '--images-dir', options.imageDirectory];
  argv.push('--work-dir', options.workDirectory, '--log-file', options.logFile);
  argv.push(`--verbosity=${options.logLevel ?? 1}`);
  argv.push('--page-server', '--ps-socket', String(options.pageServerSocket));
  if (options.statusDescriptor !== undefined) argv.push('--status-fd', String(options.statusDescriptor));
  return argv;
}
