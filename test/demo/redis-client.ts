import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** What Redis answers, as the demo needs it. */
export type Reply = string | number | null | Reply[];

/** A connection to Redis: commands are sent as they come, answers arrive in the same order (RESP2). */
export class RedisClient implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #waiting: { resolve: (reply: Reply) => void; reject: (error: Error) => void }[] = [];
  #data: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (data: Buffer) => this.#receive(data));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('the connection was closed')));
  }

  /** Connects; tries again until Redis listens, at most `timeoutMs`. */
  static async open(host: string, port: number, timeoutMs = 10_000): Promise<RedisClient> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const socket = connect({ host, port });
      try {
        await once(socket, 'connect', { signal: AbortSignal.timeout(Math.max(1, deadline - Date.now())) });
        const client = new RedisClient(socket);
        // It answers LOADING while it reads its files.
        await client.send('PING');
        return client;
      } catch (error) {
        socket.destroy();
        if (Date.now() > deadline) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  /** Sends a command; rejects with the error that Redis answers, or when the connection ends. */
  send(...words: string[]): Promise<Reply> {
    return this.pipeline([words]).then(([reply]) => reply ?? null);
  }

  /** Sends many commands at once; one answer for each. */
  pipeline(commands: readonly (readonly string[])[]): Promise<Reply[]> {
    const replies = commands.map(
      () => new Promise<Reply>((resolve, reject) => void this.#waiting.push({ resolve, reject })),
    );
    const text = commands.map((words) => {
      const parts = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`);
      return `*${words.length}\r\n${parts.join('')}`;
    });
    this.#socket.write(text.join(''));
    return Promise.all(replies);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
  }

  #fail(error: Error): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  #receive(data: Buffer): void {
    this.#data = this.#data.length === 0 ? data : Buffer.concat([this.#data, data]);
    let offset = 0;
    for (;;) {
      const parsed = parse(this.#data, offset);
      if (parsed === undefined) break;
      offset = parsed.end;
      const waiting = this.#waiting.shift();
      if (parsed.value instanceof Error) waiting?.reject(parsed.value);
      else waiting?.resolve(parsed.value);
    }
    this.#data = this.#data.subarray(offset);
  }
}

/** One reply at an offset, or `undefined` when it has not arrived whole. */
function parse(data: Buffer, offset: number): { value: Reply | Error; end: number } | undefined {
  const lineEnd = data.indexOf('\r\n', offset);
  if (lineEnd === -1) return undefined;
  const text = data.toString('utf8', offset + 1, lineEnd);
  const start = lineEnd + 2;
  switch (String.fromCharCode(data[offset] ?? 0)) {
    case '+':
      return { value: text, end: start };
    case '-':
      return { value: new Error(text), end: start };
    case ':':
      return { value: Number(text), end: start };
    case '$': {
      const length = Number(text);
      if (length === -1) return { value: null, end: start };
      if (data.length < start + length + 2) return undefined;
      return { value: data.toString('utf8', start, start + length), end: start + length + 2 };
    }
    case '*': {
      const list: Reply[] = [];
      let end = start;
      for (let i = 0; i < Number(text); i++) {
        const item = parse(data, end);
        if (item === undefined) return undefined;
        list.push(item.value instanceof Error ? item.value.message : item.value);
        end = item.end;
      }
      return { value: list, end };
    }
    default:
      return { value: new Error(`not a reply of Redis: ${text}`), end: start };
  }
}
