import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { readDescriptors } from '../src/linux/process-descriptors.ts';
import { killProcess } from '../src/linux/pidfd.ts';
import type { ProcessIdentity } from '../src/linux/process.ts';
import { outcomeOf } from './support/faults-job.ts';
import { codeOf, hitsWanted, rounds, Scene, type SceneOptions } from './support/faults-scene.ts';
import { criuOf, restoringMonitor } from './support/faults-victims.ts';
import { until } from './support/poll.ts';

// Whatever dies at whatever moment of a restart: the job has been restarted and finds everything in it right, or it is as it was before
// and can be restarted; its snapshot is whole; nothing is left behind.

let scene: Scene;
/** The first round of which the program tells after a restart: always the same. */
let firstRound: number;

async function prepare(options: SceneOptions): Promise<void> {
  scene = await Scene.open(options);
  const { job, node } = scene;
  const reached = (await job.rounds(1)).at(-1) ?? 0;
  await job.checkpoint();
  await job.provesItself();
  await node.crash('steady');
  const lines = await job.lines();
  await job.restart();
  firstRound = await job.firstRoundAfter(lines);
  assert.ok(firstRound > reached, `the restart went on at round ${firstRound}, before the snapshot`);
  await job.provesItself();
  await job.noteUsual('running');
  await node.crash('steady');
  await job.noteUsual('resting');
  await scene.measure(() => job.restart());
  await node.crash('steady');
}

function withScene(options: SceneOptions): void {
  before(() => prepare(options));
  beforeEach(async () => {
    if (!scene.spoiled) return;
    await scene[Symbol.asyncDispose]().catch(() => {});
    await prepare(options);
  });
  after(() => scene?.[Symbol.asyncDispose]());
}

/** The job was restarted and is right, or it rests as before and is restarted now; then it crashes again. `lines`: of its log before. */
async function restartedOrAsBefore(lines: number): Promise<string> {
  const { node, job } = scene;
  // A job whose memory is still arriving may yet end: what was to bring it may be what has been killed.
  const state = await until(
    'all memory is there, or the job has ended',
    async () => {
      const arriving = isArriving(scene);
      const now = await node.state('steady');
      return (now !== 'running' || !arriving) && now;
    },
    { timeoutMs: 30_000 },
  );
  if (state !== 'running') {
    assert.equal(state, 'crashed');
    await job.nothingLeft('resting');
    await job.restart();
  }
  assert.deepEqual(await scene.verify(), [1]);
  assert.equal(await job.firstRoundAfter(lines), firstRound, 'it did not go on where the snapshot was');
  await job.provesItself();
  await job.nothingLeft('running');
  await node.crash('steady');
  return state;
}

/** The monitor that looks after the job now. */
function monitorOf({ node, job }: Scene): ProcessIdentity | undefined {
  const file = path.join(node.stateDirectory, 'units', job.unit, 'status.json');
  return (JSON.parse(readFileSync(file, 'utf8')) as { monitor?: ProcessIdentity }).monitor;
}

function isArriving({ node, job }: Scene): boolean {
  return existsSync(path.join(node.runDirectory, 'units', job.unit, 'arriving'));
}

describe('faults of a restart', () => {
  withScene({ mebibytes: 32 });

  for (const lazy of [false, true]) {
    const how = lazy ? ' of a restart --lazy' : '';
    const wantedHits = hitsWanted(lazy ? 2 : 4);

    it(`R19 R23 SIGKILL of the daemon${how}`, async (t) => {
      await rounds(t, scene, wantedHits, async () => {
        const { node, job } = scene;
        const lines = await job.lines();
        const running = outcomeOf(job.restart({ lazy }));
        await scene.someTime(scene.durationMs);
        await node.endDaemon('SIGKILL');
        const outcome = await running;
        if (outcome.kind === 'done') scene.durationMs *= 0.9;
        await node.startDaemon();
        const state = await restartedOrAsBefore(lines);
        return { hit: outcome.kind === 'failed', outcome: `${codeOf(outcome)}, then ${state}` };
      });
    });

    for (const victim of ['CRIU', 'the monitor that serves the images'] as const)
      it(`R19 R23 SIGKILL of ${victim}${how}`, async (t) => {
        /** Restarts, and tells when the process that is to be killed was seen. */
        async function restartWith(strike: (found: ProcessIdentity) => Promise<boolean>) {
          const { node, job } = scene;
          const over = new AbortController();
          let endedMs = 0;
          const running = outcomeOf(job.restart({ lazy })).finally(() => {
            endedMs = performance.now();
            over.abort();
          });
          const monitor = await restoringMonitor(node.runDirectory, job.unit, node.pid, over.signal);
          const found =
            monitor === undefined || victim !== 'CRIU' ? monitor : await criuOf(monitor, over.signal);
          const seenMs = performance.now();
          const hit =
            found !== undefined && (await strike(found)) && !over.signal.aborted && killProcess(found);
          const outcome = await running;
          return { hit, outcome, lifeMs: endedMs - seenMs };
        }
        let { lifeMs } = await restartWith(async () => false);
        await scene.node.crash('steady');
        await rounds(t, scene, wantedHits, async () => {
          const lines = await scene.job.lines();
          const round = await restartWith(async () => {
            await scene.someTime(lifeMs);
            return true;
          });
          // It lived less long than the one before.
          if (!round.hit) lifeMs = Math.min(lifeMs * 0.9, round.lifeMs);
          const { hit, outcome } = round;
          const state = await restartedOrAsBefore(lines);
          return { hit, outcome: `${codeOf(outcome)}, then ${state}` };
        });
      });
  }
});

/** How many userfaultfds a process has. */
function userfaultfdsOf(pid: number): number {
  return (readDescriptors(pid) ?? []).filter(({ target }) => target === 'anon_inode:[userfaultfd]').length;
}

describe('faults of a monitor', () => {
  withScene({ mebibytes: 128 });

  it('R19 SIGKILL of the monitor of a running job: another one takes it over', async (t) => {
    await scene.job.restart();
    await rounds(t, scene, hitsWanted(2), async () => {
      const { job } = scene;
      await scene.someTime(500);
      const monitor = monitorOf(scene);
      const hit = monitor !== undefined && killProcess(monitor);
      await job.provesItself();
      await job.nothingLeft('running');
      return { hit, outcome: 'running' };
    });
    await scene.node.crash('steady');
  });

  it('R23 SIGKILL of the monitor while memory of a restart --lazy is still arriving: the job ends, and is restarted', async (t) => {
    let arrivalMs = 300;
    await rounds(t, scene, hitsWanted(4), async () => {
      const { node, job } = scene;
      const before = await job.lines();
      await job.restart({ lazy: true });
      await scene.someTime(arrivalMs);
      const monitor = monitorOf(scene);
      assert.ok(monitor);
      // In this order: the daemon closes its copies after the originals.
      const copies = userfaultfdsOf(node.pid);
      const originals = userfaultfdsOf(monitor.pid);
      if (isArriving(scene) && originals > 0)
        assert.ok(copies >= originals, `the daemon holds ${copies} of ${originals} userfaultfds`);
      const hit = isArriving(scene) && killProcess(monitor);
      if (!hit) {
        arrivalMs *= 0.8;
        await until('all memory has arrived', () => !isArriving(scene));
        await job.provesItself();
        for (const pid of [monitor.pid, node.pid])
          await until(
            `${pid} lets go of the userfaultfds of a job that is whole`,
            () => userfaultfdsOf(pid) === 0,
          );
        await node.crash('steady');
        return { hit, outcome: 'running' };
      }
      const { job: found } = await until('the job has ended', async () => {
        const details = await node.details('steady');
        return ['crashed', 'exited'].includes(details.job.state.kind) && details;
      });
      // Where memory is missing it waits, and never reads zeros.
      assert.equal(found.state.kind, 'crashed', 'it has not ended by itself');
      for (const line of (await node.output('steady')).slice(before)) assert.match(line, /^whole \d+$/);
      await job.nothingLeft('resting');
      const lines = await job.lines();
      await job.restart();
      assert.equal(await job.firstRoundAfter(lines), firstRound);
      await job.provesItself();
      await node.crash('steady');
      return { hit, outcome: found.state.kind };
    });
  });
});

describe('a restart on a full disk', () => {
  withScene({ mebibytes: 16, stateSize: '200m' });

  it('R19 R23 no space is left at some point', async (t) => {
    // The writable layer of the program has 4 MiB.
    let needed = 6 * 1024 ** 2;
    await rounds(t, scene, hitsWanted(4), async () => {
      const { job } = scene;
      const lines = await job.lines();
      let outcome;
      {
        using _full = scene.disk.fill(scene.random.next() * needed);
        outcome = await outcomeOf(job.restart());
      }
      if (outcome.kind === 'done') needed *= 0.9;
      else assert.match(codeOf(outcome), /^(store-full|disk-full|state-write)$/);
      const state = await restartedOrAsBefore(lines);
      return { hit: outcome.kind === 'failed', outcome: `${codeOf(outcome)}, then ${state}` };
    });
  });
});
