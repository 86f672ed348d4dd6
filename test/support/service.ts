import { chmod, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { NodeFixture } from './node-fixture.ts';
import { projectRoot } from './probe-programs.ts';

/** Where the programs of `test/services/programs` are seen inside a unit. */
export const servicePrograms = '/service-programs';

/** Mounts of a job that runs one of them: the programs, and a directory with the file that tells it to check itself. */
export async function serviceMounts(
  node: NodeFixture,
  job: string,
): Promise<{ options: string[]; go: () => Promise<void> }> {
  const directory = path.join(node.directory, 'go', job);
  await mkdir(directory, { recursive: true });
  await chmod(directory, 0o755);
  const programs = path.join(projectRoot, 'test/services/programs');
  return {
    options: [
      ...['-v', `${programs}:${servicePrograms}:ro`, '-v', `${directory}:/probe-go:ro`],
      ...['-e', 'PROBE_GO=/probe-go/go', '-e', 'LANG=C.UTF-8', '-e', 'PYTHONDONTWRITEBYTECODE=1'],
    ],
    go: () => writeFile(path.join(directory, 'go'), ''),
  };
}

/** A checkpoint while the job works, SIGKILL for all of it some work later, a restart. */
export async function crashAndRestart(node: NodeFixture, job: string): Promise<void> {
  await node.checkpoint(job);
  await node.crash(job);
  await node.restart(job);
}

/** The address of a job on the bridge of its node. */
export async function addressOf(node: NodeFixture, job: string): Promise<string> {
  const { unit } = await node.details(job);
  if (unit?.address === undefined) throw new Error(`job ${job} has no address`);
  return unit.address;
}
