import type { MonitorPlan } from './monitor-plan.ts';
import type { StartedUnit } from './monitor-start.ts';
export async function restoreUnit(_plan: MonitorPlan, _file: string): Promise<StartedUnit> {
  throw new Error('not yet');
}
