/**
 * The benchmark: each figure beside its alternative, in turns, in one run; the median of several.
 *
 *     npm run bench [-- --runs 7] [--mib 1024] [--large-mib 4096] [--only frozen,changed,restart,lazy,memory,small]
 */

import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import type { CheckpointResult } from '../src/api/schemas.ts';
import { NodeFixture } from '../test/support/node-fixture.ts';
import { until } from '../test/support/poll.ts';
import { type Figure, figure, mebibytes, milliseconds, type Row, table } from './figures.ts';
import { MemoryJob } from './memory-job.ts';
import { describeMachine, PlainCriu, say } from './plain-criu.ts';
import { smallJob } from './small-job.ts';

const { values: options } = parseArgs({
  options: {
    runs: { type: 'string', default: '7' },
    mib: { type: 'string', default: '1024' },
    'large-mib': { type: 'string', default: '4096' },
    only: { type: 'string', default: 'frozen,large,changed,restart,lazy,memory,small' },
  },
});
const runs = Number(options.runs);
const chosen = new Set(options.only.split(','));
const rows: Row[] = [];

function ratioRow(what: string, ours: Figure, beside: Figure, wanted: number | undefined): void {
  const ratio = ours.median / beside.median;
  rows.push({ what, ours: milliseconds(ours), beside: milliseconds(beside), ratio, wanted, unit: '×' });
  say(`${what}: ${milliseconds(ours)} beside ${milliseconds(beside)}: ${ratio.toFixed(2)} ×`);
}

await using node = await NodeFixture.start();
using criu = new PlainCriu(path.join(node.directory, 'tmpfs'));

/** Frozen time of a checkpoint in which all memory is new to the store, as the program itself sees it. */
async function frozenFull(mib: number, count: number): Promise<void> {
  const job = await (await MemoryJob.start(node, 'full', mib)).find();
  const unit = await job.unit();
  const ours: number[] = [];
  const direct: number[] = [];
  const plain: number[] = [];
  for (let i = 0; i < count; i++) {
    say(`full checkpoint of ${mib} MiB, ${i + 1} of ${count}`);
    await job.refill();
    plain.push(await job.gapDuring(() => criu.dump(unit)));
    ours.push(await job.gapDuring(() => node.checkpoint('full', '--timeout', '300s')));
    await job.refill();
    direct.push(await job.gapDuring(() => node.checkpoint('full', '--timeout', '300s', '--no-pre-save')));
    await node.ok(['rm', '-f', `full@${i * 2 + 1}`, `full@${i * 2 + 2}`]);
  }
  ratioRow(`frozen, ${mib} MiB all new`, figure(ours), figure(plain), 0.6);
  ratioRow(`the same without pre-save`, figure(direct), figure(plain), undefined);
  await node.remove('full');
}

/** Frozen time and bytes of a checkpoint after one page in a hundred was changed. */
async function frozenChanged(mib: number): Promise<void> {
  const job = await (await MemoryJob.start(node, 'changed', mib)).find();
  const unit = await job.unit();
  await node.checkpoint('changed', '--timeout', '300s');
  const ours: number[] = [];
  const plain: number[] = [];
  const bytes: number[] = [];
  for (let i = 0; i < runs; i++) {
    say(`checkpoint with 1 % changed, ${i + 1} of ${runs}`);
    plain.push(await job.gapDuring(() => criu.dump(unit)));
    const windows = await job.change();
    ours.push(
      await job.gapDuring(async () => {
        const snapshot = await node.checkpoint('changed', '--timeout', '300s');
        bytes.push(storedBytes(snapshot) / (windows * 65536));
      }),
    );
  }
  ratioRow(`frozen, ${mib} MiB, 1 % of the pages changed`, figure(ours), figure(plain), 0.6);
  const added = figure(bytes);
  rows.push({
    what: 'bytes added by it',
    ours: `${added.median.toFixed(2)} ×`,
    beside: 'the 64 KiB chunks that changed',
    ratio: added.median,
    wanted: 1.2,
    unit: '×',
  });
  await node.remove('changed');
}

/** Restart from the store, beside CRIU that reads from a tmpfs. */
async function restart(mib: number): Promise<void> {
  const job = await (await MemoryJob.start(node, 'back', mib)).find();
  const unit = await job.unit();
  await node.checkpoint('back', '--timeout', '300s');
  const { externals } = await criu.dump(unit);
  const ours: number[] = [];
  const plain: number[] = [];
  await node.crash('back');
  for (let i = 0; i < runs; i++) {
    say(`restart of ${mib} MiB, ${i + 1} of ${runs}`);
    const started = performance.now();
    await node.restart('back', '-d');
    ours.push(performance.now() - started);
    await node.crash('back');
    // The daemon takes away what a unit needs to run in.
    await until('the unit is taken down', () => !existsSync(unit.paths.run), { timeoutMs: 20_000 });
    const again = await job.units.renew(unit.spec);
    plain.push(await criu.restore(again, externals));
    await again.release();
  }
  ratioRow(`restart, ${mib} MiB`, figure(ours), figure(plain), 1.5);
  await node.remove('back');
}

/** From the command to the first thing that the program does, when memory comes later. */
async function lazy(sizes: readonly [small: number, large: number]): Promise<void> {
  const jobs = [];
  for (const mib of sizes) {
    const name = `lazy${mib}`;
    jobs.push({
      name,
      mib,
      job: await (await MemoryJob.start(node, name, mib)).find(),
      times: [] as number[],
    });
    await node.checkpoint(name, '--timeout', '600s', '--then', 'terminate');
  }
  for (let i = 0; i < runs; i++) {
    for (const { name, mib, job, times } of jobs) {
      say(`lazy restart of ${mib} MiB, ${i + 1} of ${runs}`);
      const started = Date.now();
      await node.restart(name, '--lazy', '-d');
      times.push((await job.runsAgain(started)) - started);
      await node.crash(name);
    }
  }
  const [small, large] = jobs.map(({ times }) => figure(times));
  if (small === undefined || large === undefined) return;
  rows.push({
    what: `lazy restart, ${sizes[1]} MiB: runs after`,
    ours: milliseconds(large),
    beside: '',
    ratio: large.median / 1000,
    wanted: 0.3,
    unit: 's',
  });
  ratioRow(`the same beside ${sizes[0]} MiB`, large, small, 1.3);
  for (const { name } of jobs) await node.remove(name);
}

/** Peak memory of the daemon during a full checkpoint, beyond the new chunks. */
async function daemonMemory(mib: number): Promise<void> {
  const measured: [string, string[], number][] = [
    ['daemon memory beyond the new chunks', [], mib * 2 ** 20],
    ['the same with --staging-limit 128m', ['--no-pre-save', '--staging-limit', '128m'], 128 * 2 ** 20],
  ];
  for (const [what, extra, allowance] of measured) {
    await node.endDaemon('SIGTERM');
    await node.startDaemon();
    await MemoryJob.start(node, 'peak', mib);
    const snapshot = await node.checkpoint('peak', '--timeout', '300s', ...extra);
    const peak = peakBytes(node.pid);
    say(`${what}: peak ${mebibytes(peak)}, stored ${mebibytes(storedBytes(snapshot))}`);
    rows.push({
      what,
      ours: mebibytes(peak),
      beside: mebibytes(allowance),
      ratio: Math.max(0, peak - allowance) / 2 ** 20,
      wanted: 256,
      unit: 'MiB',
    });
    await node.remove('peak');
  }
}

/** What a checkpoint added to the store. */
function storedBytes(result: unknown): number {
  return (result as CheckpointResult).bytes.stored ?? Number.NaN;
}

/** VmHWM: the most that was resident so far. */
function peakBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

if (chosen.has('frozen')) await frozenFull(Number(options.mib), runs);
if (chosen.has('large')) await frozenFull(Number(options['large-mib']), runs);
if (chosen.has('changed')) await frozenChanged(Number(options.mib));
if (chosen.has('restart')) await restart(Number(options.mib));
if (chosen.has('lazy')) await lazy([64, Number(options['large-mib'])]);
if (chosen.has('memory')) await daemonMemory(Number(options.mib));
if (chosen.has('small')) rows.push(await smallJob(node, criu, runs));

console.log(`\n${describeMachine()}; median of ${runs} (least–most), taken in turns\n`);
console.log(table(rows));
