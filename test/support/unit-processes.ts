import { readFileSync } from 'node:fs';
import type { UnitDetails } from '../../src/api/schemas.ts';
import { openPidfd, signalPidfd, waitPidfd } from '../../src/linux/pidfd.ts';
import { closeSync } from 'node:fs';

const SIGKILL = 9;

/**
 * SIGKILL for the first process of a unit, which takes all others of its PID namespace along. Only after checking that the
 * PID is the unit's own: by its control group, its number inside and its start time.
 */
export async function killUnit(unit: UnitDetails): Promise<void> {
  const { id, pid, startTime } = unit;
  if (pid === undefined || pid <= 1) throw new Error(`unit ${id} has no first process`);
  const pidfd = openPidfd(pid);
  if (pidfd === undefined) throw new Error(`process ${pid} of unit ${id} has ended`);
  try {
    const cgroup = readFileSync(`/proc/${pid}/cgroup`, 'utf8');
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const started = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
    const inside = /^NSpid:.*\t(\d+)$/m.exec(status)?.[1];
    if (
      !cgroup.includes(`/cairn/${id}`) ||
      inside !== '1' ||
      (startTime !== undefined && started !== startTime)
    ) {
      throw new Error(`process ${pid} is not the first one of unit ${id}: ${cgroup}${inside} ${started}`);
    }
    signalPidfd(pidfd, SIGKILL);
    if (!waitPidfd(pidfd, 10_000)) throw new Error(`process ${pid} survives SIGKILL`);
  } finally {
    closeSync(pidfd);
  }
}
