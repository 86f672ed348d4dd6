import { setTimeout as delay } from 'node:timers/promises';
import type { NodeFixture } from './node-fixture.ts';
import { until } from './poll.ts';

/** Environment of a daemon whose worker threads `DaemonWorkers` shall reach: the debugger on a port that is free. */
export const debuggableEnvironment = { NODE_OPTIONS: '--inspect-port=127.0.0.1:0' };

interface Message {
  id?: number;
  method?: string;
  params?: { sessionId?: string; workerInfo?: { title: string; url: string } };
}

/**
 * Worker threads of a daemon, reached through the debugger of Node.js: a thread cannot be killed from outside, but the
 * debugger can make it end in the middle of what it does.
 */
export class DaemonWorkers implements Disposable {
  readonly #socket: WebSocket;
  readonly #sessions = new Map<string, string>();
  #next = 1;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener('message', ({ data }) => this.#receive(JSON.parse(String(data)) as Message));
  }

  static async attach(node: NodeFixture): Promise<DaemonWorkers> {
    const listening = /Debugger listening on (ws:\/\/\S+)/g;
    const before = [...node.daemonLog().matchAll(listening)].length;
    process.kill(node.pid, 'SIGUSR1');
    const url = await until(
      'the debugger listens',
      () => [...node.daemonLog().matchAll(listening)].slice(before).at(-1)?.[1],
    );
    const socket = new WebSocket(url);
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve, { once: true });
      socket.addEventListener('error', reject, { once: true });
    });
    const workers = new DaemonWorkers(socket);
    workers.#send('NodeWorker.enable', { waitForDebuggerOnStart: false });
    return workers;
  }

  /** Names of the workers that run. */
  get names(): string[] {
    return [...this.#sessions.values()];
  }

  /** Ends one worker, by the number `choice` among those that run; returns its name, or `undefined` if there is none. */
  end(choice: number): string | undefined {
    const sessions = [...this.#sessions];
    const chosen = sessions[choice % Math.max(1, sessions.length)];
    if (chosen === undefined) return undefined;
    const message = JSON.stringify({
      id: this.#next++,
      method: 'Runtime.evaluate',
      params: { expression: 'process.exit(9)' },
    });
    this.#send('NodeWorker.sendMessageToWorker', { sessionId: chosen[0], message });
    return chosen[1];
  }

  async someRun(): Promise<void> {
    for (let i = 0; i < 100 && this.#sessions.size === 0; i++) await delay(20);
  }

  #receive({ method, params }: Message): void {
    if (method === 'NodeWorker.attachedToWorker' && params?.sessionId !== undefined) {
      this.#sessions.set(params.sessionId, params.workerInfo?.title ?? '?');
    }
    if (method === 'NodeWorker.detachedFromWorker' && params?.sessionId !== undefined) {
      this.#sessions.delete(params.sessionId);
    }
  }

  #send(method: string, params: object): void {
    this.#socket.send(JSON.stringify({ id: this.#next++, method, params }));
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}
