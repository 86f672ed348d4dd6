/** What a monitor needs for a restore: written by the daemon into the unit's run directory, read once, then removed. */

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { ReaderEnvironment } from '../store/chunk-reader.ts';
import { decodeReadPlan, encodeReadPlan, type ReadPlan } from '../store/read-plan.ts';
import type { ExternalMount } from './external-mounts.ts';
import type { SnapshotReference } from './monitor-start.ts';
import type { StdioKeys } from './monitor-stdio.ts';

/** One image that CRIU may ask for: bytes that were few, or a list of the read plan. */
export interface SnapshotImage {
  name: string;
  /** Bytes. */
  size: number;
  content: { inlineBase64: string } | { list: number };
}

/** Where the images of a restore are. */
export type ImageSource =
  /** Files, as CRIU wrote them. */
  | { kind: 'directory'; directory: string }
  /** The store; `lazy`: memory is brought while the unit runs already. */
  | {
      kind: 'snapshot';
      /** What it is, so that it is not removed while memory still comes from it. */
      snapshot: SnapshotReference;
      lazy: boolean;
      images: SnapshotImage[];
      plan: ReadPlan;
      environment: ReaderEnvironment;
    };

/** What a restore needs besides the plan of the monitor. */
export interface RestorePlan {
  /** The program and its version. */
  criu: string;
  criuVersion: string;
  source: ImageSource;
  /** How CRIU knew the unit's standard streams when the images were made. */
  stdio: StdioKeys;
  /** Further terminals of the unit's console in the images: `/dev/tty`, for example. Same form as `StdioKeys.terminal`. */
  consoleKeys: string[];
  externalMounts: ExternalMount[];
  /** State that the OCI runtime had of the unit (`state.json`), so that `exec` works again. */
  runtimeState?: Record<string, unknown>;
}

interface WrittenKeys {
  packDirectory: string;
  hashKey: string;
  packKeys: string;
}

/** Writes a plan as files that only root can read: it may hold the keys of the packs that are needed. */
export function writeRestorePlan(file: string, plan: RestorePlan): void {
  const { source } = plan;
  if (source.kind === 'directory') {
    writeFileSync(file, JSON.stringify(plan), { mode: 0o600 });
    return;
  }
  const { plan: readPlan, environment, ...rest } = source;
  const keys: WrittenKeys = {
    packDirectory: environment.packDirectory,
    hashKey: Buffer.from(environment.hashKey).toString('base64'),
    packKeys: Buffer.from(environment.packKeys).toString('base64'),
  };
  writeFileSync(readPlanFile(file), encodeReadPlan(readPlan), { mode: 0o600 });
  writeFileSync(file, JSON.stringify({ ...plan, source: { ...rest, environment: keys } }), { mode: 0o600 });
}

/** Reads a plan and removes its files. */
export function takeRestorePlan(file: string): RestorePlan {
  const written = JSON.parse(readFileSync(file, 'utf8')) as RestorePlan;
  if (written.source.kind === 'directory') return written;
  const plan = decodeReadPlan(readFileSync(readPlanFile(file)));
  removeRestorePlan(file);
  const keys = written.source.environment as unknown as WrittenKeys;
  const bytes = (text: string) => new Uint8Array(Buffer.from(text, 'base64'));
  const environment = {
    packDirectory: keys.packDirectory,
    hashKey: bytes(keys.hashKey),
    packKeys: bytes(keys.packKeys),
  };
  return { ...written, source: { ...written.source, plan, environment } };
}

/** Removes the files of a plan that nobody took. */
export function removeRestorePlan(file: string): void {
  rmSync(file, { force: true });
  rmSync(readPlanFile(file), { force: true });
}

function readPlanFile(file: string): string {
  return `${file}.reads`;
}
