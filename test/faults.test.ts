import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, beforeEach, describe, it, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CairnError } from '../src/errors.ts';
import { markVariable } from './support/faults-belongings.ts';
import { type Outcome, outcomeOf, SteadyJob } from './support/faults-job.ts';
import { Random } from './support/faults-random.ts';
import { criuOf, dumpingCriu, killProcess, restoringMonitor } from './support/faults-victims.ts';
import { NodeFixture } from './support/node-fixture.ts';

// Whatever dies at whatever moment of a checkpoint or of a restart: the job runs on, or is exactly as before; older snapshots are whole;
// nothing is left behind. The moments are chosen by chance; CAIRN_TEST_SEED brings them back.

/** Faults of each kind that must have hit an operation that was under way. */
const wanted = process.env['CAIRN_SOAK'] === '1' ? 20 : 5;
const mebibytes = 32;

/** A node with one job and one snapshot of it. */
class Scene implements AsyncDisposable {
  readonly node: NodeFixture;
  readonly job: SteadyJob;
  readonly random: Random;
  /** How long the operation takes undisturbed. */
  durationMs = 0;
  /** A round has failed: what it left would be blamed on the next test. */
  spoiled = false;

  private constructor(node: NodeFixture, job: SteadyJob) {
    this.node = node;
    this.job = job;
    this.random = new Random();
  }

  static async open(): Promise<Scene> {
    const mark = randomBytes(8).toString('hex');
    const node = await NodeFixture.start({ environment: { [markVariable]: mark } });
    try {
      return new Scene(node, await SteadyJob.start(node, 'steady', mark, mebibytes));
    } catch (error) {
      await node[Symbol.asyncDispose]().catch(() => {});
      throw error;
    }
  }

  async measure(operation: () => Promise<unknown>): Promise<void> {
    const started = performance.now();
    await operation();
    this.durationMs = performance.now() - started;
  }

  /** A random part of `ms`, a little more than all of it at most. */
  async someTime(ms: number): Promise<void> {
    await delay(this.random.next() * ms * 1.05);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.node[Symbol.asyncDispose]();
  }
}

/** Repeats a round until so many faults as are wanted have hit, and says what came of them. */
async function rounds(
  t: TestContext,
  scene: Scene,
  round: (number: number) => Promise<{ hit: boolean; outcome: string }>,
): Promise<void> {
  const { seed } = scene.random;
  const outcomes = new Map<string, number>();
  let hits = 0;
  let number = 0;
  for (; hits < wanted && number < wanted * 4; number++) {
    try {
      const { hit, outcome } = await round(number);
      if (hit) hits++;
      const key = `${hit ? '' : 'missed, '}${outcome}`;
      outcomes.set(key, (outcomes.get(key) ?? 0) + 1);
    } catch (error) {
      scene.spoiled = true;
      const log = scene.node.daemonLog().split('\n').slice(-12).join('\n');
      throw new Error(`round ${number}, CAIRN_TEST_SEED=${seed}: ${(error as Error).message}\n${log}`);
    }
  }
  const told = [...outcomes].map(([outcome, count]) => `${count} × ${outcome}`).join('; ');
  const line = `${hits} faults in ${number} rounds (seed ${seed}, ${Math.round(scene.durationMs)} ms): ${told}`;
  t.diagnostic(line);
  assert.ok(hits >= wanted, `only ${line}`);
}

/** After a failed test: another scene for the next one. */
async function again(scene: Scene, prepare: () => Promise<void>): Promise<void> {
  if (!scene.spoiled) return;
  await scene[Symbol.asyncDispose]().catch(() => {});
  await prepare();
}

function codeOf(outcome: Outcome): string {
  if (outcome.kind === 'done') return 'done';
  // Whatever is disturbed must be told as an expected failure.
  assert.ok(outcome.error instanceof CairnError, `not an expected failure: ${outcome.error.stack}`);
  return outcome.error.code;
}

describe('faults of a checkpoint', () => {
  let scene: Scene;
  async function prepare(): Promise<void> {
    scene = await Scene.open();
    await scene.job.checkpoint();
    await scene.measure(() => scene.job.checkpoint());
    await scene.node.client.removeSnapshot('steady', 2);
    await scene.job.noteUsual('running');
  }
  before(prepare);
  beforeEach(() => again(scene, prepare));
  after(() => scene?.[Symbol.asyncDispose]());

  /** The job runs, its network is open, its snapshots are whole, nothing is left, and the next checkpoint succeeds. */
  async function asBefore(): Promise<void> {
    const { node, job } = scene;
    await node.waitState('steady', 'running');
    await job.provesItself();
    await job.nothingLeft('running');
    const { snapshots } = await node.client.verify({}, { onProgress: () => {} });
    for (const { sequence, valid, damage } of snapshots)
      assert.ok(valid, `snapshot ${sequence} is damaged: ${damage.join('; ')}`);
    assert.equal(snapshots[0]?.sequence, 1, 'the older snapshot is missing');
    for (const { sequence } of snapshots)
      if (sequence > 1) await node.client.removeSnapshot('steady', sequence);
  }

  it('R19 R21 SIGKILL of the daemon', async (t) => {
    await rounds(t, scene, async () => {
      const { node, job } = scene;
      const running = outcomeOf(job.checkpoint());
      await scene.someTime(scene.durationMs);
      await node.endDaemon('SIGKILL');
      const outcome = await running;
      await node.startDaemon();
      await asBefore();
      return { hit: outcome.kind === 'failed', outcome: codeOf(outcome) };
    });
  });

  it('R19 R21 SIGKILL of CRIU', async (t) => {
    let criuMs = scene.durationMs / 2;
    await rounds(t, scene, async () => {
      const { node, job } = scene;
      const over = new AbortController();
      const running = outcomeOf(job.checkpoint()).finally(() => over.abort());
      const criu = await dumpingCriu(node.runDirectory, job.unit, over.signal);
      const seen = performance.now();
      await scene.someTime(criuMs);
      const hit = criu !== undefined && killProcess(criu);
      if (!hit) criuMs = Math.min(criuMs, (performance.now() - seen) * 0.95);
      const outcome = await running;
      await asBefore();
      return { hit, outcome: codeOf(outcome) };
    });
  });
});

describe('faults of a restart', () => {
  let scene: Scene;
  /** The first round of which the program tells after a restart: always the same. */
  let firstRound: number;
  async function prepare(): Promise<void> {
    scene = await Scene.open();
    const { job, node } = scene;
    const before = (await job.rounds(1)).at(-1) ?? 0;
    await job.checkpoint();
    await job.provesItself();
    await node.crash('steady');
    const lines = (await job.rounds()).length;
    await scene.measure(() => job.restart());
    firstRound = await job.firstRoundAfter(lines);
    assert.ok(firstRound > before, `the restart went on at round ${firstRound}, before the snapshot`);
    await job.provesItself();
    await job.noteUsual('running');
    await node.crash('steady');
    await job.noteUsual('resting');
  }
  before(prepare);
  beforeEach(() => again(scene, prepare));
  after(() => scene?.[Symbol.asyncDispose]());

  /** The job was restarted and is right, or it rests as before and can be restarted; then it crashes again. */
  async function restartedOrAsBefore(lines: number): Promise<string> {
    const { node, job } = scene;
    const state = await node.state('steady');
    if (state !== 'running') {
      assert.equal(state, 'crashed');
      await job.nothingLeft('resting');
      const { snapshots } = await node.client.verify({}, { onProgress: () => {} });
      assert.deepEqual(
        snapshots.map(({ sequence, valid }) => ({ sequence, valid })),
        [{ sequence: 1, valid: true }],
      );
      await job.restart();
    }
    assert.equal(await job.firstRoundAfter(lines), firstRound, 'it did not go on where the snapshot was');
    await job.provesItself();
    await job.nothingLeft('running');
    await node.crash('steady');
    return state;
  }

  it('R19 R23 SIGKILL of the daemon', async (t) => {
    await rounds(t, scene, async () => {
      const { node, job } = scene;
      const lines = (await job.rounds()).length;
      const running = outcomeOf(job.restart());
      await scene.someTime(scene.durationMs);
      await node.endDaemon('SIGKILL');
      const outcome = await running;
      await node.startDaemon();
      const state = await restartedOrAsBefore(lines);
      return { hit: outcome.kind === 'failed', outcome: `${codeOf(outcome)}, then ${state}` };
    });
  });

  for (const victim of ['CRIU', 'the monitor that serves the images'] as const)
    it(`R19 R23 SIGKILL of ${victim}`, async (t) => {
      let lifeMs = scene.durationMs;
      await rounds(t, scene, async () => {
        const { node, job } = scene;
        const lines = (await job.rounds()).length;
        const over = new AbortController();
        const running = outcomeOf(job.restart()).finally(() => over.abort());
        const monitor = await restoringMonitor(node.runDirectory, job.unit, node.pid, over.signal);
        const process =
          victim === 'CRIU' && monitor !== undefined
            ? await criuOf(monitor, 'restore', over.signal)
            : monitor;
        const seen = performance.now();
        await Promise.race([scene.someTime(lifeMs), running]);
        const hit = process !== undefined && !over.signal.aborted && killProcess(process);
        if (!hit) lifeMs = Math.min(lifeMs, (performance.now() - seen) * 0.95);
        const outcome = await running;
        const state = await restartedOrAsBefore(lines);
        return { hit, outcome: `${codeOf(outcome)}, then ${state}` };
      });
    });
});
