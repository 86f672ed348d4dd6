import { unlink } from 'node:fs/promises';
import { flushCompileCache } from 'node:module';
import { resolve } from 'node:path';
import { destination, pino } from 'pino';
import { listenOnSocket } from '../api/listen.ts';
import { createServer } from '../api/server.ts';
import { EventBus } from '../jobs/event-bus.ts';
import { logEvents } from '../node/event-log.ts';
import { Node } from '../node/node.ts';
import { cairnVersion } from '../node/version.ts';

export interface ServeOptions {
  stateDirectory: string;
  runDirectory: string;
  socket: string;
  level: string;
  bridge?: { name: string; subnet: string };
}

/** How long an orderly end may take before it is no longer waited for, in milliseconds. */
const shutdownMs = 20_000;

/** Is the daemon until SIGTERM or SIGINT; then ends what is under way and returns. Jobs run on. */
export async function serveNode(options: ServeOptions): Promise<void> {
  const logger = pino(
    { level: options.level, base: { pid: process.pid } },
    destination({ dest: 2, sync: true }),
  );
  const stopped = untilStopped();
  const events = new EventBus();
  using _log = logEvents(events, logger);
  const { bridge } = options;
  {
    await using node = await Node.open(
      {
        stateDirectory: resolve(options.stateDirectory),
        runDirectory: resolve(options.runDirectory),
        ...(bridge === undefined ? {} : { bridge }),
      },
      events,
    );
    const app = await createServer(node, { version: cairnVersion(), logger });
    await listenOnSocket(app, options.socket);
    logger.info({ socket: options.socket, state: options.stateDirectory }, 'the node serves');
    // Otherwise it is written at the end, which may be a SIGKILL.
    flushCompileCache();
    const signal = await stopped;
    logger.info({ signal }, 'the node stops; jobs run on');
    setTimeout(() => {
      logger.error('the node did not stop in time');
      process.exit(1);
    }, shutdownMs).unref();
    // Whoever waits for an operation is told before connections are closed.
    await node.jobs.close();
    await app.close();
    await unlink(options.socket).catch(() => {});
  }
  logger.info('the node has stopped');
}

function untilStopped(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
}
