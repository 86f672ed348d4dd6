/** What a monitor needs for a restore: written by the daemon into the unit's run directory, read once, then removed. */

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { ReaderEnvironment } from '../store/chunk-reader.ts';
import { decodeReadPlan, encodeReadPlan, type ReadPlan } from '../store/read-plan.ts';
import type { StdioKeys } from './monitor-stdio.ts';

/** One image that CRIU may ask for: bytes that were few, or a list of the read plan. */
export interface RestoreImage {
  name: string;
  size: number;
  content: { inlineBase64: string } | { list: number };
}

/** A restore of one unit. */
export interface RestoreTask {
  /** The program. */
  criu: string;
  images: RestoreImage[];
  /** As CRIU takes them: `mnt[/dev/shm]:/run/…`. */
  externals: string[];
  /** Keys of the descriptors that led to the monitor when the image was made. */
  stdio: StdioKeys;
  /** State of the OCI runtime, already adapted but for the process. */
  runtimeState: unknown;
  /** Memory is brought while the unit runs already. */
  lazy: boolean;
  plan: ReadPlan;
  environment: ReaderEnvironment;
}

type Written = Omit<RestoreTask, 'plan' | 'environment'> & {
  environment: { packDirectory: string; hashKey: string; packKeys: string };
};

/** Writes a task; two files, readable by root alone: it holds the keys of the packs that are needed. */
export function writeRestoreTask(file: string, task: RestoreTask): void {
  const { plan, environment, ...rest } = task;
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
  const written: Written = {
    ...rest,
    environment: {
      packDirectory: environment.packDirectory,
      hashKey: base64(environment.hashKey),
      packKeys: base64(environment.packKeys),
    },
  };
  writeFileSync(`${file}.plan`, encodeReadPlan(plan), { mode: 0o600 });
  writeFileSync(file, JSON.stringify(written), { mode: 0o600 });
}

/** Reads a task and removes its files. */
export function takeRestoreTask(file: string): RestoreTask {
  const written = JSON.parse(readFileSync(file, 'utf8')) as Written;
  const plan = decodeReadPlan(readFileSync(`${file}.plan`));
  removeRestoreTask(file);
  const bytes = (text: string) => new Uint8Array(Buffer.from(text, 'base64'));
  return {
    ...written,
    plan,
    environment: {
      packDirectory: written.environment.packDirectory,
      hashKey: bytes(written.environment.hashKey),
      packKeys: bytes(written.environment.packKeys),
    },
  };
}

/** Removes the files of a task that nobody took. */
export function removeRestoreTask(file: string): void {
  rmSync(file, { force: true });
  rmSync(`${file}.plan`, { force: true });
}
