import { Units } from '../src/units/units.ts';
import type { NodeFixture } from '../test/support/node-fixture.ts';
import { figure, milliseconds, type Row } from './figures.ts';
import { type PlainCriu, say } from './plain-criu.ts';

/** An empty Redis: the whole command beside what CRIU alone takes. */
export async function smallJob(node: NodeFixture, criu: PlainCriu, runs: number): Promise<Row> {
  await node.run('redis', [], ['redis-server', '--save', '', '--port', '6379']);
  await node.waitOutput('redis', /Ready to accept connections/);
  const { unit } = await node.details('redis');
  const units = new Units({
    stateDirectory: node.stateDirectory,
    runDirectory: node.runDirectory,
    tools: { runc: '/opt/cairn/bin/runc' },
    bridge: node.bridge,
  });
  const found = unit === undefined ? undefined : await units.open(unit.id);
  if (found === undefined) throw new Error('the Redis job has no unit');
  await node.checkpoint('redis');
  const ours: number[] = [];
  const plain: number[] = [];
  const differences: number[] = [];
  for (let i = 0; i < runs; i++) {
    say(`checkpoint of an empty Redis, ${i + 1} of ${runs}`);
    const { tookMs } = await criu.dump(found);
    const started = performance.now();
    await node.checkpoint('redis');
    const took = performance.now() - started;
    plain.push(tookMs);
    ours.push(took);
    differences.push(took - tookMs);
  }
  await node.remove('redis');
  const above = figure(differences);
  say(`empty Redis: ${milliseconds(figure(ours))} beside ${milliseconds(figure(plain))}`);
  return {
    what: '`cairn checkpoint` of an empty Redis, above CRIU alone',
    ours: milliseconds(figure(ours)),
    beside: milliseconds(figure(plain)),
    ratio: above.median,
    wanted: 100,
    unit: 'ms',
  };
}
