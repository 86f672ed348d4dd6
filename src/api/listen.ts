import { chmod, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { CairnError, systemCode } from '../errors.ts';

/** How long a daemon may take to accept a connection before its socket counts as stale, in milliseconds. */
const answerMs = 2000;

/**
 * Lets a server listen on a unix socket that only its owner can use (0600). A socket that a dead daemon left is replaced; error
 * `node-running` if somebody answers on it.
 */
export async function listenOnSocket(app: FastifyInstance, path: string): Promise<void> {
  if (await isAnswered(path)) {
    throw new CairnError('environment', 'node-running', `A node daemon already serves ${path}.`, {
      remedy: 'Use that one, stop it first, or give this one other directories with --run and --state.',
    });
  }
  await unlink(path).catch((error: unknown) => {
    if (systemCode(error) !== 'ENOENT') throw error;
  });
  await app.listen({ path });
  await chmod(path, 0o600);
}

async function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const done = (answered: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answered);
    };
    // A daemon that is too busy to answer is one too.
    const timer = setTimeout(() => done(true), answerMs);
    socket.once('connect', () => done(true));
    socket.once('error', () => done(false));
  });
}
