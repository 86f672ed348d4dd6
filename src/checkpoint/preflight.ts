import { readFileSync } from 'node:fs';
import { CairnError } from '../errors.ts';
import { unlessGone } from '../linux/process.ts';
import { runProgram } from '../linux/run-program.ts';
import type { Unit } from '../units/unit.ts';
import { findObstacles, type Obstacle } from './obstacles.ts';
import { readUnitResources } from './unit-resources.ts';
import { hasRing, hasToHold } from './hold.ts';

/** What a look at a running unit tells about a checkpoint of it (R18, H08). */
export interface Preflight {
  rootPid: number;
  /** Processes that will be saved. */
  pids: number[];
  /**
   * Those of them whose mappings CRIU is shown by a `MappingCover`: they have, or have reserved, so much memory that it is worth while to spare CRIU the
   * sight, or use asynchronous I/O.
   */
  covered: number[];
  /** Whether CRIU has to stop half-way, so that files and memory are read later; see `hasToHold`. */
  hold: boolean;
  obstacles: Obstacle[];
  warnings: Obstacle[];
  estimate: {
    /** Resident anonymous and shared memory, and what is swapped. */
    memoryBytes: number;
    /** Blocks that the writable layer takes; 0 unless it was asked for (`measureLayer`), because it takes time. */
    layerBytes: number;
    /** Milliseconds, from the rates below. */
    frozenMs: number;
    totalMs: number;
  };
}

/** Rates that were measured on 2 virtual cores; good for an order of magnitude, not for a promise. */
const rates = {
  /** Bytes per millisecond that are compared while frozen. */
  frozen: 3_000_000,
  /** Bytes per millisecond that are stored while running. */
  stored: 400_000,
  /** CRIU itself, per process and for a unit. */
  processMs: 2,
  unitMs: 60,
};

/** Below these CRIU is as quick with everything as it takes to make a cover. */
const largeBytes = 16 * 1024 * 1024;
const largeReservedBytes = 256 * 1024 * 1024;

/** Looks at a unit without touching it. Throws `unit-not-running` (argument) if nothing runs in it. */
export async function preflightUnit(
  unit: Unit,
  options: { signal: AbortSignal; measureLayer?: boolean },
): Promise<Preflight> {
  const status = await unit.status();
  if (status.pid === undefined || (status.state !== 'running' && status.state !== 'suspended'))
    throw new CairnError('argument', 'unit-not-running', `unit ${unit.id} is not running (${status.state})`, {
      remedy: 'restart the job first',
    });
  if (status.state === 'suspended')
    throw new CairnError('argument', 'unit-suspended', `unit ${unit.id} is suspended`, {
      remedy: 'resume the job first',
    });
  if (unit.arrivingFrom() !== undefined)
    throw new CairnError(
      'temporary',
      'memory-arriving',
      'memory of the job is still arriving after a lazy restart',
      {
        remedy: 'try again when `cairn inspect` no longer shows it',
      },
    );
  const resources = await readUnitResources(status.pid, await unit.processes(), options.signal);
  const { obstacles, warnings } = findObstacles(resources);
  const pids = resources.processes.map(({ pid }) => pid);
  const sizes = pids.map((pid) => ({ pid, ...memoryOf(pid) }));
  const memoryBytes = sizes.reduce((sum, { savedBytes }) => sum + savedBytes, 0);
  const layerBytes = options.measureLayer ? await blocksBelow(unit.paths.upper, options.signal) : 0;
  return {
    rootPid: status.pid,
    pids,
    covered: sizes.flatMap(({ pid, savedBytes, reservedBytes }) =>
      savedBytes >= largeBytes || reservedBytes >= largeReservedBytes || hasRing(pid) ? [pid] : [],
    ),
    hold: hasToHold(pids),
    obstacles,
    warnings,
    estimate: {
      memoryBytes,
      layerBytes,
      frozenMs: Math.round(rates.unitMs + pids.length * rates.processMs + memoryBytes / rates.frozen),
      totalMs: Math.round(
        rates.unitMs + pids.length * rates.processMs + (memoryBytes + layerBytes) / rates.stored,
      ),
    },
  };
}

async function blocksBelow(directory: string, signal: AbortSignal): Promise<number> {
  const result = await runProgram('du', ['-sx', '--block-size=1', directory], { signal, timeoutMs: 60_000 });
  return Number.parseInt(result.stdout, 10) || 0;
}

/** Memory of a process that has no file behind it, and its address space, bytes. */
function memoryOf(pid: number): { savedBytes: number; reservedBytes: number } {
  const status = unlessGone(() => readFileSync(`/proc/${pid}/status`, 'utf8')) ?? '';
  const bytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * 1024;
  return {
    savedBytes: ['RssAnon', 'RssShmem', 'VmSwap', 'HugetlbPages'].reduce((sum, name) => sum + bytes(name), 0),
    reservedBytes: bytes('VmData'),
  };
}
