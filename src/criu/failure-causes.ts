/**
 * What CRIU's error lines mean: a table from their text to a reason and a remedy.
 *
 * The texts are those of CRIU 4.x (criu/*.c, compel/); `message` completes "… failed: ".
 */

import type { FailureCause } from './failure-causes/cause.ts';
import { descriptorCauses } from './failure-causes/descriptors.ts';
import { generalCauses, hostCauses } from './failure-causes/host.ts';
import { processCauses } from './failure-causes/processes.ts';

export type { FailureCause };

/** Earlier entries win over later ones for the same line. */
export const failureCauses: readonly FailureCause[] = [...processCauses, ...descriptorCauses, ...hostCauses];

/** Asked only when no line has one of the others. */
export const generalFailureCauses: readonly FailureCause[] = generalCauses;
