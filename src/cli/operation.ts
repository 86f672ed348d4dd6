import type { ClientOperation } from '../api/client.ts';
import type { CommandContext } from './command.ts';
import { ProgressDisplay } from './progress.ts';

/** Runs a long operation with its progress on standard error (none with --json); SIGINT and SIGTERM break it off. */
export async function runOperation<T>(
  context: CommandContext,
  operation: (options: ClientOperation) => Promise<T>,
): Promise<T> {
  using display = new ProgressDisplay({ terminal: process.stderr.isTTY === true, write: context.note });
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  process.once('SIGINT', abort);
  process.once('SIGTERM', abort);
  try {
    return await operation({ onProgress: context.json ? () => {} : display.show, signal: controller.signal });
  } finally {
    process.off('SIGINT', abort);
    process.off('SIGTERM', abort);
  }
}
