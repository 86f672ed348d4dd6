import { Cgroup } from '../linux/cgroups.ts';
import { readStat } from '../linux/process.ts';

/**
 * Lets CRIU go so that the unit stays suspended without having executed anything since the moment that was saved.
 *
 * CRIU leaves the processes stopped (SIGSTOP). They are then frozen as a control group, which is how a unit is suspended, and the
 * stop is taken back from those that were not stopped before: thawing the group continues them.
 */
export async function keepStopped(
  unitId: string,
  pids: readonly number[],
  stoppedBefore: readonly number[],
  release: () => Promise<void>,
): Promise<void> {
  const cgroup = new Cgroup(unitId);
  await release();
  await cgroup.freeze();
  for (const pid of pids) {
    if (!stoppedBefore.includes(pid) && readStat(pid)?.state === 'T') process.kill(pid, 'SIGCONT');
  }
}
