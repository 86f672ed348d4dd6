import { after, before, describe, it } from 'node:test';
import { NodeFixture } from './support/node-fixture.ts';
import { buildProbes, type Probe, probes } from './support/probe-programs.ts';
import { probeIsRefused, ProbeSkipped, probeSurvives, startProbe } from './support/probe-run.ts';

// Every probe runs as a job, is checkpointed, loses all its processes by SIGKILL, is restarted, and then checks itself. The
// quick ones go through that twice, so that what was restored is also saved again.

describe('probes', { concurrency: 2 }, () => {
  let node: NodeFixture;
  let built: string;
  before(async () => {
    [node, built] = await Promise.all([NodeFixture.start(), buildProbes()]);
  });
  after(() => node?.[Symbol.asyncDispose]());

  for (const probe of probes) {
    it(probe.title, async (t) => {
      try {
        if (probe.outcome === 'refused') await probeIsRefused(node, built, probe);
        else await probeSurvives(node, built, probe, { generations: probe.heavy === true ? 1 : 2 });
      } catch (error) {
        if (!(error instanceof ProbeSkipped)) throw error;
        t.skip(error.message);
      }
    });
  }

  for (const probe of probes) {
    // What `restart --lazy` does differently is memory; these have something in every kind of it.
    if (
      ![
        'memory-private',
        'shifting-memory',
        'memory-shared',
        'memory-files',
        'thread-registers',
        'counter.mjs',
      ].includes(probe.program)
    )
      continue;
    it(`${probe.title}, with restart --lazy`, async () => {
      await probeSurvives(node, built, probe, { generations: 2, restartOptions: ['--lazy'] });
    });
  }

  for (const probe of probes) {
    // The pages of large processes Cairn lists itself instead of CRIU; these have what there is to be listed.
    const programs = [
      'memory-private',
      'guards',
      'memory-shared',
      'memory-files',
      'memory-vdso',
      'thread-local',
    ];
    if (!programs.includes(probe.program)) continue;
    it(`${probe.title}, with much memory besides`, async (t) => {
      try {
        await probeSurvives(node, built, probe, {
          generations: 2,
          runOptions: ['-e', 'PROBE_BALLAST=24'],
        });
      } catch (error) {
        if (!(error instanceof ProbeSkipped)) throw error;
        t.skip(error.message);
      }
    });
  }

  it('R06 R20 two jobs with much memory are saved at the same time, again and again', async () => {
    const probe: Probe = { title: '', program: 'shifting-memory' };
    const two = await Promise.all([1, 2].map(() => startProbe(node, built, probe)));
    for (let round = 0; round < 4; round++)
      await Promise.all(two.map(({ job }) => node.ok(['checkpoint', '--json', job])));
    await Promise.all(
      two.map(async ({ job, go, passes }) => {
        await node.crash(job);
        const lines = (await node.output(job)).length;
        await node.restart(job);
        await go();
        await passes(lines);
        await node.remove(job);
      }),
    );
  });
});
