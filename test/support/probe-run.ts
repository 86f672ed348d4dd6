import assert from 'node:assert/strict';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { PreflightResult } from '../../src/api/schemas.ts';
import { exitCodes } from '../../src/errors.ts';
import type { NodeFixture } from './node-fixture.ts';
import { until } from './poll.ts';
import { type Probe, probeCommand, probeMounts } from './probe-programs.ts';

/** A probe that runs as a job. */
export interface RunningProbe {
  job: string;
  /** Lets it verify itself, in the next of its lives. */
  go(): Promise<void>;
  /** Waits until it has ended, and checks what it found, without its first `ignoredLines` of output. Its exit code must be 0. */
  passes(ignoredLines?: number): Promise<void>;
}

/** Why a probe cannot show anything on this host. */
export class ProbeSkipped extends Error {}

let jobs = 0;

/** Starts a probe as a job, and returns when it has set everything up. Throws `ProbeSkipped`. */
export async function startProbe(
  node: NodeFixture,
  built: string,
  probe: Probe,
  options: readonly string[] = [],
): Promise<RunningProbe> {
  const job = `probe-${++jobs}-${path.parse(probe.program).name.toLowerCase()}`;
  const goDirectory = path.join(node.directory, 'go', job);
  await mkdir(goDirectory, { recursive: true });
  await chmod(goDirectory, 0o755);
  const mounts = [...probeMounts(built), `${goDirectory}:/probe-go:ro`].flatMap((mount) => ['-v', mount]);
  const user = probe.uid === undefined ? [] : ['-u', `${probe.uid}:${probe.uid}`];
  const environment = ['-e', 'PROBE_GO=/probe-go/go', '-e', 'LANG=C.UTF-8'];
  await node.run(job, [...mounts, ...user, ...environment, ...options], probeCommand(probe));
  const first = await node.waitOutput(job, /^(ready|FAIL|SKIP|PASS)/, 120_000);
  if (first.startsWith('SKIP: ')) {
    await node.remove(job);
    throw new ProbeSkipped(first.slice(6));
  }
  assert.equal(first, 'ready', `the probe could not set up: ${(await node.output(job)).join('\n')}`);
  return {
    job,
    go: () => writeFile(path.join(goDirectory, 'go'), ''),
    passes: (ignoredLines = 0) => probePasses(node, job, ignoredLines),
  };
}

async function probePasses(node: NodeFixture, job: string, ignoredLines: number): Promise<void> {
  const details = await until(
    `probe ${job} ends`,
    async () => {
      const found = await node.details(job);
      return ['exited', 'crashed', 'failed', 'stopped'].includes(found.job.state.kind) && found;
    },
    { timeoutMs: 120_000 },
  );
  const output = (await node.output(job)).slice(ignoredLines);
  const failures = output.filter((line) => line.startsWith('FAIL'));
  assert.deepEqual(
    failures,
    [],
    `the probe found differences: ${JSON.stringify(details.job.state)}\n${output.join('\n')}`,
  );
  assert.deepEqual(
    { kind: details.job.state.kind, last: output.at(-1) },
    { kind: 'exited', last: 'PASS' },
    output.join('\n'),
  );
  assert.equal('code' in details.job.state && details.job.state.code, 0);
}

/**
 * The life of a probe: run, checkpoint, SIGKILL of the whole unit, restart, as often as `generations` says, then it must
 * find everything as it was.
 */
export async function probeSurvives(
  node: NodeFixture,
  built: string,
  probe: Probe,
  {
    generations = 1,
    restartOptions = [],
    runOptions = [],
  }: {
    generations?: number;
    restartOptions?: readonly string[];
    runOptions?: readonly string[];
  } = {},
): Promise<void> {
  const running = await startProbe(node, built, probe, runOptions);
  let lines = 0;
  for (let generation = 0; generation < generations; generation++) {
    await checkpointWhenWhole(node, running.job);
    await node.crash(running.job);
    // The first process dies a moment before the others, some of which complain about that.
    lines = (await node.output(running.job)).length;
    await node.restart(running.job, ...restartOptions);
  }
  await running.go();
  await running.passes(lines);
  await node.remove(running.job);
}

/** A job whose memory still arrives after `restart --lazy` cannot be saved yet, and says so. */
async function checkpointWhenWhole(node: NodeFixture, job: string): Promise<void> {
  await until(
    `the memory of ${job} has arrived`,
    async () => {
      const result = await node.cairn(['checkpoint', '--json', job]);
      assert.ok(result.code === 0 || result.stderr.includes('"memory-arriving"'), result.stderr);
      return result.code === 0;
    },
    { timeoutMs: 60_000, intervalMs: 200 },
  );
}

/** The life of a probe that cannot be saved: Cairn says so by name, takes no snapshot, and the probe runs on as if nothing was. */
export async function probeIsRefused(node: NodeFixture, built: string, probe: Probe): Promise<void> {
  const running = await startProbe(node, built, probe);
  const names = probe.names ?? /./;
  const dry = await node.cairn(['checkpoint', '--json', '--dry-run', running.job]);
  assert.equal(dry.code, exitCodes.permanent, dry.stderr);
  const { possible, obstacles } = JSON.parse(dry.stdout) as PreflightResult;
  assert.equal(possible, false);
  const obstacle = obstacles.find(({ resource, reason }) => names.test(`${resource} ${reason}`));
  assert.ok(obstacle, `no obstacle names ${names}: ${JSON.stringify(obstacles)}`);
  assert.ok(obstacle.pid > 1 && obstacle.unitPid > 0 && obstacle.command !== '', 'the process is not named');
  assert.ok(obstacle.reason.length > 5 && obstacle.remedy.length > 5, 'reason or remedy is missing');
  const error = await node.fails(['checkpoint', running.job]);
  assert.equal(error.class, 'permanent');
  assert.equal(error.exitCode, exitCodes.permanent);
  assert.match(`${error.message} ${error.lines.join(' ')}`, names);
  assert.deepEqual((await node.details(running.job)).snapshots, []);
  assert.equal(await node.state(running.job), 'running');
  await running.go();
  await running.passes();
  await node.remove(running.job);
}
