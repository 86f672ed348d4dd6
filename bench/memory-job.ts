import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Unit } from '../src/units/unit.ts';
import { Units } from '../src/units/units.ts';
import type { NodeFixture } from '../test/support/node-fixture.ts';

/** The memory program as a job of a daemon, and its unit for what goes past the daemon. */
export class MemoryJob {
  readonly node: NodeFixture;
  readonly name: string;

  private constructor(node: NodeFixture, name: string) {
    this.node = node;
    this.name = name;
  }

  static async start(node: NodeFixture, name: string, mib: number): Promise<MemoryJob> {
    const program = compile(node.directory);
    await node.run(
      name,
      ['-v', `${path.dirname(program)}:/opt/bench:ro`],
      ['/opt/bench/memory', String(mib)],
    );
    const job = new MemoryJob(node, name);
    await node.waitOutput(name, /^ready$/, 300_000);
    return job;
  }

  /** The units of the node, past its daemon. */
  get units(): Units {
    return new Units({
      stateDirectory: this.node.stateDirectory,
      runDirectory: this.node.runDirectory,
      tools: { runc: '/opt/cairn/bin/runc' },
      bridge: this.node.bridge,
    });
  }

  async unit(): Promise<Unit> {
    const { unit } = await this.node.details(this.name);
    const { units } = this;
    const found = unit === undefined ? undefined : await units.open(unit.id);
    if (found === undefined) throw new Error(`job ${this.name} has no unit`);
    return found;
  }

  /** Fills all memory anew. */
  async refill(): Promise<void> {
    await this.#order('SIGUSR1', /^filled$/);
  }

  /** Changes one page in a hundred; returns the 64 KiB windows that hold one. */
  async change(): Promise<number> {
    const line = await this.#order('SIGUSR2', /^changed \d+$/);
    return Number(line.split(' ')[1]);
  }

  /** Does something and returns the longest gap, in milliseconds, that the program saw meanwhile. */
  async gapDuring(action: () => Promise<unknown>): Promise<number> {
    const before = this.#lines().length;
    await action();
    await delay(100);
    const gaps = this.#lines()
      .slice(before)
      .flatMap(({ text }) => /^gap ([\d.]+)$/.exec(text)?.[1] ?? [])
      .map(Number);
    return Math.max(0, ...gaps);
  }

  /** Milliseconds since 1970 of the first line that the program wrote after `sinceMs`: it writes one when it runs again. */
  async runsAgain(sinceMs: number, timeoutMs = 120_000): Promise<number> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const line = this.#lines().find(({ atMs, text }) => atMs > sinceMs && text.startsWith('gap'));
      if (line !== undefined) return line.atMs;
      if (Date.now() > deadline) throw new Error(`${this.name} does not run again`);
      await delay(20);
    }
  }

  async #order(signal: NodeJS.Signals, answer: RegExp): Promise<string> {
    const before = this.#lines().length;
    const { pid } = await (await this.unit()).status();
    if (pid === undefined) throw new Error(`${this.name} does not run`);
    process.kill(pid, signal);
    const deadline = Date.now() + 300_000;
    for (;;) {
      const line = this.#lines()
        .slice(before)
        .find(({ text }) => answer.test(text));
      if (line !== undefined) return line.text;
      if (Date.now() > deadline) throw new Error(`${this.name} does not answer ${signal}`);
      await delay(20);
    }
  }

  /** Its output so far, with times; read from the log itself, because that is what the monitor writes first. */
  #lines(): { atMs: number; text: string }[] {
    const directory = this.#logDirectory;
    return readdirSync(directory)
      .filter((name) => name.startsWith('unit.log'))
      .sort()
      .toReversed()
      .flatMap((name) => readFileSync(path.join(directory, name), 'utf8').split('\n'))
      .flatMap((line) => {
        const match = /^(\S+) std(?:out|err) [FP] (.*)$/.exec(line);
        return match === null ? [] : [{ atMs: Date.parse(match[1] ?? ''), text: match[2] ?? '' }];
      });
  }

  #unitId: string | undefined;

  get #logDirectory(): string {
    if (this.#unitId === undefined) throw new Error('call `find` first');
    return path.join(this.node.stateDirectory, 'units', this.#unitId, 'logs');
  }

  /** Looks up where its output is. */
  async find(): Promise<this> {
    this.#unitId = (await this.unit()).id;
    return this;
  }
}

function compile(directory: string): string {
  const target = path.join(directory, 'bench', 'memory');
  mkdirSync(path.dirname(target), { recursive: true });
  execFileSync('cc', ['-O2', '-o', target, path.join(import.meta.dirname, 'programs', 'memory.c')]);
  return target;
}
