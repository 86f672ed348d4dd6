import { PassThrough } from 'node:stream';

/** A line of output of a fake unit. */
export interface FakeLine {
  time: string;
  stream: 'stdout' | 'stderr';
  text: string;
  partial: boolean;
}

/** A line with this text. */
export function fakeLine(text: string): FakeLine {
  return { time: '2026-11-27T10:00:00.000000000Z', stream: 'stdout', text, partial: false };
}

/** Input and output of a fake unit. */
export interface FakeSession {
  stdout: PassThrough;
  stderr: PassThrough;
  write(bytes: Uint8Array): void;
  endInput(): void;
  resize(size: { columns: number; rows: number }): void;
  end: Promise<{ exitCode: number } | undefined>;
  close(): void;
}

/** A program that writes what it reads, and ends with 3 when its input ends. */
export function echo(): FakeSession {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const end = Promise.withResolvers<{ exitCode: number } | undefined>();
  const finish = (result: { exitCode: number } | undefined): void => {
    stdout.end();
    stderr.end();
    end.resolve(result);
  };
  return {
    stdout,
    stderr,
    write: (bytes) => void stdout.write(bytes),
    endInput: () => finish({ exitCode: 3 }),
    resize: ({ columns, rows }) => void stderr.write(`${columns}x${rows}`),
    end: end.promise,
    close: () => finish(undefined),
  };
}
