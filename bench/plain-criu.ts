import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { dumpCommand } from '../src/criu/dump-command.ts';
import { findCriu } from '../src/criu/find.ts';
import { readLog } from '../src/criu/log.ts';
import { mount, unmount } from '../src/linux/file.ts';
import { Program } from '../src/linux/spawn.ts';
import { dumpExternals } from '../src/units/external-mounts.ts';
import { writeRestorePlan } from '../src/units/restore-file.ts';
import type { Unit, UnitExternals } from '../src/units/unit.ts';

/** The alternative: CRIU alone, which writes its images to a tmpfs and reads them from there. */
export class PlainCriu implements Disposable {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true });
    mount('tmpfs', directory, 'tmpfs', 0, 'size=90%');
  }

  get #images(): string {
    return path.join(this.#directory, 'images');
  }

  /** Dumps a unit, which runs on; with the options that Cairn uses. Returns how long CRIU ran, milliseconds. */
  async dump(unit: Unit): Promise<{ tookMs: number; externals: UnitExternals }> {
    rmSync(this.#images, { recursive: true, force: true });
    mkdirSync(this.#images);
    const criu = await findCriu();
    const { pid } = await unit.status();
    if (pid === undefined) throw new Error(`unit ${unit.id} does not run`);
    const externals = await unit.externals();
    const argv = dumpCommand({
      imageDirectory: this.#images,
      logFile: 'dump.log',
      pid,
      afterwards: 'run',
      root: unit.paths.rootfs,
      externals: [...dumpExternals(externals.mounts), ...externals.consoleKeys],
      emptyNetwork: true,
      tcp: 'established',
      networkLock: 'nftables',
      fileLocks: true,
      linkRemap: true,
      ghostLimitBytes: 2 ** 40,
    });
    const started = performance.now();
    await using program = new Program([criu.path, ...argv]);
    const end = await program.ended;
    if (end.exitCode !== 0) throw new Error(readLog(path.join(this.#images, 'dump.log')));
    return { tookMs: performance.now() - started, externals };
  }

  /** Restores what was dumped last, into the same unit. Returns how long that took, milliseconds: until the unit runs. */
  async restore(unit: Unit, externals: UnitExternals): Promise<number> {
    const criu = await findCriu();
    const file = path.join(unit.paths.run, 'plain-restore.json');
    writeRestorePlan(file, {
      criu: criu.path,
      criuVersion: criu.version,
      source: { kind: 'directory', directory: this.#images },
      stdio: externals.stdio,
      consoleKeys: externals.consoleKeys,
      externalMounts: externals.mounts,
      ...(externals.runtimeState === undefined ? {} : { runtimeState: externals.runtimeState }),
    });
    const started = performance.now();
    await unit.launch({ kind: 'restore', file });
    return performance.now() - started;
  }

  [Symbol.dispose](): void {
    unmount(this.#directory);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** One line about the machine. */
export function describeMachine(): string {
  const cpu =
    /^model name\s*: (.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? 'unknown processor';
  const processors = readFileSync('/proc/cpuinfo', 'utf8').match(/^processor/gm)?.length ?? 0;
  const memory = Number(/^MemTotal:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0) / 2 ** 20;
  const kernel = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
  return `${processors} × ${cpu}, ${memory.toFixed(0)} GiB, Linux ${kernel}, Node.js ${process.versions.node}`;
}

/** Writes a line of progress where a person sees it. */
export function say(text: string): void {
  writeFileSync(2, `${text}\n`);
}
