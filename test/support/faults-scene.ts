import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CairnError } from '../../src/errors.ts';
import { MNT_DETACH, mount, unmount } from '../../src/linux/file.ts';
import { markVariable } from './faults-belongings.ts';
import { type Outcome, SteadyJob } from './faults-job.ts';
import { Random } from './faults-random.ts';
import { NodeFixture } from './node-fixture.ts';

/** Faults of a kind that must have hit an operation that was under way: 20 in a soak, otherwise as many as are given. */
export function hitsWanted(otherwise: number): number {
  return process.env['CAIRN_SOAK'] === '1' ? 20 : otherwise;
}

export interface SceneOptions {
  /** Memory of the job. */
  mebibytes: number;
  environment?: Record<string, string>;
  /** Size of a file system of its own for the state of the node, in mount(8)'s notation. */
  stateSize?: string;
}

/** A node with one job, and moments by chance; CAIRN_TEST_SEED brings the same ones back. */
export class Scene implements AsyncDisposable {
  readonly node: NodeFixture;
  readonly job: SteadyJob;
  readonly random: Random = new Random();
  /** How long the operation takes undisturbed. */
  durationMs = 0;
  /** A round has failed: what it left would be blamed on the next test. */
  spoiled = false;
  readonly #disk: SmallDisk | undefined;

  private constructor(node: NodeFixture, job: SteadyJob, disk: SmallDisk | undefined) {
    this.node = node;
    this.job = job;
    this.#disk = disk;
  }

  static async open({ mebibytes, environment = {}, stateSize }: SceneOptions): Promise<Scene> {
    const mark = randomBytes(8).toString('hex');
    await using owned = new AsyncDisposableStack();
    const disk = stateSize === undefined ? undefined : owned.use(new SmallDisk(stateSize));
    const node = owned.use(
      await NodeFixture.start({
        environment: { ...environment, [markVariable]: mark },
        ...(disk === undefined ? {} : { stateDirectory: path.join(disk.directory, 'state') }),
      }),
    );
    const job = await SteadyJob.start(node, 'steady', mark, mebibytes);
    owned.move();
    return new Scene(node, job, disk);
  }

  get disk(): SmallDisk {
    assert.ok(this.#disk, 'the state has no file system of its own');
    return this.#disk;
  }

  async measure(operation: () => Promise<unknown>): Promise<void> {
    const started = performance.now();
    await operation();
    this.durationMs = performance.now() - started;
  }

  /** A random part of so many milliseconds. */
  async someTime(ms: number): Promise<void> {
    await delay(this.random.next() * ms);
  }

  /** Every snapshot is whole; returns their numbers. */
  async verify(): Promise<number[]> {
    const { snapshots } = await this.node.client.verify({}, { onProgress: () => {} });
    for (const { sequence, valid, damage } of snapshots)
      assert.ok(valid, `snapshot ${sequence} is damaged: ${damage.join('; ')}`);
    return snapshots.map(({ sequence }) => sequence);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.node[Symbol.asyncDispose]();
    } finally {
      this.#disk?.[Symbol.dispose]();
    }
  }
}

/** A small file system in memory that can be filled. */
export class SmallDisk implements Disposable {
  readonly directory: string = mkdtempSync(path.join(tmpdir(), 'cairn-d'));

  constructor(size: string) {
    mount('cairn-faults', this.directory, 'tmpfs', 0, `size=${size},mode=0700`);
  }

  /** Leaves so many bytes free, until disposed. */
  fill(freeBytes: number): Disposable {
    const { bavail, bsize } = statfsSync(this.directory);
    const ballast = path.join(this.directory, 'ballast');
    writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - freeBytes)));
    return { [Symbol.dispose]: () => rmSync(ballast, { force: true }) };
  }

  [Symbol.dispose](): void {
    unmount(this.directory, MNT_DETACH);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Repeats a round until so many faults as are wanted have hit, and tells what came of them. */
export async function rounds(
  t: TestContext,
  scene: Scene,
  wantedHits: number,
  round: () => Promise<{ hit: boolean; outcome: string }>,
): Promise<void> {
  const { seed } = scene.random;
  const outcomes = new Map<string, number>();
  let hits = 0;
  let number = 0;
  for (; hits < wantedHits && number < wantedHits * 5; number++) {
    try {
      const { hit, outcome } = await round();
      if (hit) hits++;
      const key = hit ? outcome : `too late (${outcome})`;
      outcomes.set(key, (outcomes.get(key) ?? 0) + 1);
    } catch (error) {
      scene.spoiled = true;
      const said = (await scene.node.output('steady').catch(() => [])).slice(-3).join('; ');
      const log = scene.node.daemonLog().split('\n').slice(-12).join('\n');
      throw new Error(
        `round ${number}, CAIRN_TEST_SEED=${seed}: ${(error as Error).message}\nthe job: ${said}\n${log}`,
        { cause: error },
      );
    }
  }
  const told = [...outcomes].map(([outcome, count]) => `${count} × ${outcome}`).join('; ');
  const line = `${hits} faults in ${number} rounds (CAIRN_TEST_SEED=${seed}, ${Math.round(scene.durationMs)} ms): ${told}`;
  t.diagnostic(line);
  assert.ok(hits >= wantedHits, `only ${line}`);
}

/** The code of a failure, or `done`. Whatever is disturbed must be told as an expected failure. */
export function codeOf(outcome: Outcome): string {
  if (outcome.kind === 'done') return 'done';
  const { error } = outcome;
  assert.ok(
    error instanceof CairnError && error.code !== 'internal',
    `not an expected failure: ${error.stack}`,
  );
  return error.code;
}
