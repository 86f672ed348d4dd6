/** A place for units of a test: own directories, own bridge, and nothing left of it afterwards. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findProgram } from '../linux/find-program.ts';
import { unmountBelow } from '../linux/mounts.ts';
import { readStat } from '../linux/process.ts';
import { removeBridge } from '../network/bridge.ts';
import { defaultCapabilities } from './bundle.ts';
import { newUnitId, type UnitSpec } from './spec.ts';
import type { Unit } from './unit.ts';
import { Units } from './units.ts';

/** Why units cannot be run here; `undefined` if they can. For `test(…, { skip })`. */
export async function whyNoUnits(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'needs root';
  if ((await findProgram('runc')) === undefined) return 'needs runc (npm run setup)';
  return undefined;
}

/** Units of a test. */
export class TestNode implements AsyncDisposable {
  readonly directory: string;
  readonly units: Units;

  private constructor(directory: string, units: Units) {
    this.directory = directory;
    this.units = units;
  }

  static async create(): Promise<TestNode> {
    const directory = mkdtempSync(path.join(tmpdir(), 'cairn-units-'));
    const runc = await findProgram('runc');
    // Tests may run at the same time: a bridge and a subnet for each process.
    const own = process.pid % 250;
    const units = new Units({
      stateDirectory: path.join(directory, 'state'),
      runDirectory: path.join(directory, 'run'),
      tools: { runc: runc?.path ?? 'runc' },
      bridge: { name: `cairnt${own}`, subnet: `10.215.${own}.0/24` },
    });
    return new TestNode(directory, units);
  }

  /** A prepared unit that runs `command` on the host's root file system. */
  prepare(command: string[], changes: Partial<UnitSpec> = {}): Promise<Unit> {
    return this.units.prepare({ ...testSpec(command), ...changes });
  }

  /** A unit that runs. */
  async start(command: string[], changes: Partial<UnitSpec> = {}): Promise<Unit> {
    const unit = await this.prepare(command, changes);
    await unit.start();
    return unit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const id of this.units.list()) await (await this.units.open(id))?.remove();
    await this.units.sweep();
    this.units.close();
    await removeBridge(this.units.bridge);
    unmountBelow(this.directory);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** The specification of an ordinary unit. */
export function testSpec(command: string[]): UnitSpec {
  return {
    id: newUnitId(),
    hostname: 'unit',
    command,
    environment: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root' },
    user: { uid: 0, gid: 0, additionalGids: [] },
    workingDirectory: '/',
    terminal: false,
    stdin: false,
    rootFileSystem: { kind: 'host' },
    mounts: [],
    resources: {},
    capabilities: [...defaultCapabilities],
    seccomp: 'default',
    network: { mode: 'none', ports: [] },
    logs: { maxBytes: 2 ** 20, files: 3 },
    runtime: 'runc',
  };
}

/** All output of a unit that has ended or is running. */
export async function outputOf(unit: Unit): Promise<{ stdout: string; stderr: string }> {
  const output = { stdout: '', stderr: '' };
  for await (const line of unit.logs()) output[line.stream] += line.text + (line.partial ? '' : '\n');
  return output;
}

/** Asks again and again until the answer is not `undefined`. Throws when 15 s have passed. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  const deadline = performance.now() + 15_000;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > deadline) throw new Error(`waited in vain for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A shell makes its child the foreground group of the terminal before the child becomes the program. */
export function inForeground(unit: Unit, program: string): Promise<true> {
  return eventually(program, async () =>
    (await unit.processes()).some((pid) => readStat(pid)?.name === program) ? true : undefined,
  );
}

/** Rejects instead of waiting for ever. */
export function within<T>(promise: Promise<T>, timeoutMs = 15_000): Promise<T> {
  const late = new Promise<never>((_, reject) => {
    setTimeout(() => reject(new Error(`not within ${timeoutMs} ms`)), timeoutMs).unref();
  });
  return Promise.race([promise, late]);
}

/** All of a stream as text. */
export async function textOf(stream: AsyncIterable<unknown>): Promise<string> {
  let text = '';
  for await (const bytes of stream) text += String(bytes);
  return text;
}
