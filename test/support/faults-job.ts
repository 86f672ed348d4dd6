import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { belongings, surplus } from './faults-belongings.ts';
import { NodeFixture } from './node-fixture.ts';
import { until } from './poll.ts';
import { buildProbes, programsInside } from './probe-programs.ts';

/** How long a node may take to bring everything in order after a fault. */
const settleMs = 30_000;

/** How an operation that was disturbed ended. */
export type Outcome = { kind: 'done' } | { kind: 'failed'; error: Error & { code?: string; class?: string } };

/** Waits for an operation, whatever comes of it. */
export function outcomeOf(operation: Promise<unknown>): Promise<Outcome> {
  return operation.then(
    () => ({ kind: 'done' }),
    (error: Error) => ({ kind: 'failed', error }),
  );
}

/** A job with the program `steadfast`, of which can be shown at any time that nothing of it is wrong. */
export class SteadyJob {
  readonly node: NodeFixture;
  readonly name: string;
  readonly mark: string;
  unit = '';
  /** What the node has on the host while the job runs, and while it rests. */
  readonly #usual = new Map<'running' | 'resting', string[]>();

  private constructor(node: NodeFixture, name: string, mark: string) {
    this.node = node;
    this.name = name;
    this.mark = mark;
  }

  /** `mark`: the value of the mark variable in the environment of the daemon. */
  static async start(node: NodeFixture, name: string, mark: string, mebibytes: number): Promise<SteadyJob> {
    const built = await buildProbes();
    await node.run(
      name,
      ['-v', `${built}:${programsInside}:ro`],
      [`${programsInside}/steadfast`, `${mebibytes}`],
    );
    const job = new SteadyJob(node, name, mark);
    job.unit = (await node.details(name)).unit?.id ?? '';
    await job.provesItself();
    return job;
  }

  checkpoint(): Promise<unknown> {
    return this.node.client.checkpoint(this.name, {}, { onProgress: () => {} });
  }

  restart(body: { lazy?: boolean; sequence?: number } = {}): Promise<unknown> {
    return this.node.client.restart(this.name, body, { onProgress: () => {} });
  }

  /** So many lines the log has. */
  async lines(): Promise<number> {
    return (await this.node.output(this.name)).length;
  }

  /** The rounds at whose end the program found everything right in the life that it has now, by its last lines; fails on anything else. */
  async rounds(tail: number): Promise<number[]> {
    let rounds: number[] = [];
    let wrong: string | undefined;
    for await (const { text } of this.node.client.logs(this.name, { follow: false, tail })) {
      const round = /^whole (\d+)$/.exec(text)?.[1];
      // It ends when something is wrong: what comes later is another life.
      if (round === undefined) rounds = [];
      else rounds.push(Number(round));
      wrong = round === undefined ? text : undefined;
    }
    assert.equal(wrong, undefined, `the program says: ${wrong}`);
    return rounds;
  }

  /** The program runs and finds everything right, twice from now on. Returns the last round. */
  async provesItself(): Promise<number> {
    const before = (await this.rounds(1)).at(-1) ?? 0;
    return until(
      `${this.name} finds everything right (after round ${before})`,
      async () => {
        // A restart may lead to lower numbers, so that only their order tells.
        const rounds = await this.rounds(6);
        return rounds.length - 1 - rounds.lastIndexOf(before) >= 2 && rounds.at(-1);
      },
      { timeoutMs: settleMs },
    ).catch(async (error: Error) => {
      const details = await this.node.details(this.name);
      throw new Error(`${error.message}; it is ${JSON.stringify(details.job.state)}`);
    });
  }

  /** After a restart: the first round of which the program tells after the `lines` that the log had. */
  async firstRoundAfter(lines: number): Promise<number> {
    const line = await until(
      `${this.name} writes after its restart`,
      async () => (await this.node.output(this.name))[lines],
      { timeoutMs: settleMs, intervalMs: 100 },
    );
    const round = /^whole (\d+)$/.exec(line)?.[1];
    assert.ok(round !== undefined, `the program says: ${line}`);
    return Number(round);
  }

  async #belongings(): Promise<string[]> {
    const { node, unit, mark } = this;
    const details = await node.details(this.name);
    return belongings({
      stateDirectory: node.stateDirectory,
      runDirectory: node.runDirectory,
      bridge: node.bridge.name,
      unit,
      unitPid: details.unit?.pid,
      daemon: node.pid,
      mark,
    });
  }

  /** Notes what is usual in this state, once it does not change any more. */
  async noteUsual(state: 'running' | 'resting'): Promise<void> {
    let last: string[] = [];
    await until('the node is calm', async () => {
      await delay(700);
      const now = await this.#belongings();
      const same = JSON.stringify(now) === JSON.stringify(last);
      last = now;
      return same;
    });
    this.#usual.set(state, last);
  }

  /** Everything that the node has on the host is what it had in this state before: nothing more, nothing less. */
  async nothingLeft(state: 'running' | 'resting'): Promise<void> {
    const usual = this.#usual.get(state);
    assert.ok(usual, `it is not known what is usual while ${state}`);
    let now: string[] = [];
    await until(
      'nothing is left behind',
      async () => {
        now = await this.#belongings();
        return surplus(now, usual).length === 0 && surplus(usual, now).length === 0;
      },
      { timeoutMs: settleMs, intervalMs: 100 },
    ).catch(() => {
      assert.fail(
        `left behind: ${surplus(now, usual).join(', ') || 'nothing'}; missing: ${surplus(usual, now).join(', ') || 'nothing'}`,
      );
    });
  }
}
