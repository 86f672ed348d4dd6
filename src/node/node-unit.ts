import { rmSync } from 'node:fs';
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { JobUnit, JobUnits } from '../jobs/ports.ts';
import type { ExecSession } from '../units/exec.ts';
import { type LogLine, readLog } from '../units/log-reader.ts';
import { isCarriedOut } from '../units/monitor-plan.ts';
import type { UnitSpec } from '../units/spec.ts';
import type { Unit } from '../units/unit.ts';
import type { UnitStatus } from '../units/unit-status.ts';
import type { Units } from '../units/units.ts';
import { resolveUser } from '../units/users.ts';
import type { AttachRequest, ExecRequest, LogRequest, SessionEnd, StreamSession } from './unit-session.ts';

/** How long a unit may take to start or to be restored after its daemon has died, in milliseconds. */
const settleMs = 60_000;

/** A unit of the units room as the jobs and the API want it. */
export class NodeUnit implements JobUnit {
  readonly unit: Unit;

  constructor(unit: Unit) {
    this.unit = unit;
  }

  get id(): string {
    return this.unit.id;
  }

  get address(): string | undefined {
    return this.unit.address;
  }

  async start(): Promise<void> {
    await this.unit.start();
  }

  status(): Promise<UnitStatus> {
    return this.unit.status();
  }

  waitExit(signal?: AbortSignal): Promise<UnitStatus> {
    return this.unit.waitExit(signal);
  }

  sendSignal(signal: number): Promise<void> {
    return this.unit.sendSignal(signal);
  }

  async stop(options: { graceMs: number }): Promise<void> {
    await this.unit.stop(options);
  }

  suspend(): Promise<void> {
    return this.unit.suspend();
  }

  resume(): void {
    this.unit.resume();
  }

  processes(): Promise<number[]> {
    return this.unit.processes();
  }

  async release(): Promise<void> {
    await this.unit.release();
  }

  async remove(): Promise<void> {
    await this.unit.remove();
  }

  /** Waits while a monitor that an earlier daemon launched is still starting or restoring the unit. */
  async settle(): Promise<void> {
    const deadline = performance.now() + settleMs;
    while (performance.now() < deadline) {
      const { state } = await this.unit.status();
      if (state !== 'prepared' || !isCarriedOut(this.unit.paths.plan)) return;
      await sleep(20);
    }
  }

  /** A running unit whose monitor was killed gets a new one, which takes its output and its end over. */
  async ensureMonitored(): Promise<void> {
    await this.unit.ensureMonitored();
  }

  /** Its output. Followed, it goes on over restarts until `ended` says that nothing more will come. */
  logs(request: LogRequest): AsyncIterable<LogLine> {
    return readLog(this.unit.paths.logs, request);
  }

  async attach(request: AttachRequest): Promise<StreamSession> {
    const attachment = await this.unit.attach(request);
    return {
      stdout: attachment.stdout,
      stderr: attachment.stderr,
      write: (bytes) => attachment.write(bytes),
      endInput: () => attachment.endInput(),
      resize: (size) => attachment.resize(size),
      end: attachment.done.then((done) => (done.kind === 'exited' ? endOf(done.end) : undefined)),
      close: () => attachment.detach(),
    };
  }

  async exec(request: ExecRequest): Promise<StreamSession> {
    const { user, stdin, ...command } = request;
    const resolved = user === undefined ? {} : { user: resolveUser(this.unit.paths.rootfs, user).user };
    const session = await this.unit.exec({ ...command, ...resolved });
    if (!stdin && !request.terminal) session.stdin.end();
    return sessionOf(session);
  }
}

/** The units of a node as the jobs want them. */
export class NodeUnits implements JobUnits<NodeUnit> {
  readonly #units: Units;

  constructor(units: Units) {
    this.#units = units;
  }

  async open(id: string): Promise<NodeUnit | undefined> {
    const unit = await this.#units.open(id);
    return unit === undefined ? undefined : new NodeUnit(unit);
  }

  /** A new unit, or one with this id made anew: what it had written to its files goes, its logs stay. */
  async prepare(spec: UnitSpec): Promise<NodeUnit> {
    const existing = await this.#units.open(spec.id);
    if (existing === undefined) return new NodeUnit(await this.#units.prepare(spec));
    await existing.release();
    rmSync(existing.paths.upper, { recursive: true, force: true });
    return new NodeUnit(await this.#units.renew(spec));
  }
}

function sessionOf(session: ExecSession): StreamSession {
  return {
    stdout: session.stdout,
    stderr: session.stderr,
    write: (bytes) => new Promise<void>((resolve) => session.stdin.write(bytes, () => resolve())),
    endInput: () => void session.stdin.end(),
    resize: (size) => session.resize(size),
    end: session.exit.then(({ exitCode, signal }) =>
      exitCode === undefined ? { signal: numberOfSignal(signal) } : { exitCode },
    ),
    close: () => session.kill(),
  };
}

function endOf(end: { exitCode?: number; signal?: number }): SessionEnd {
  return {
    ...(end.exitCode === undefined ? {} : { exitCode: end.exitCode }),
    ...(end.signal === undefined ? {} : { signal: end.signal }),
  };
}

function numberOfSignal(name: string | undefined): number {
  return (
    Object.entries(constants.signals).find(([known]) => known === name)?.[1] ?? constants.signals.SIGKILL
  );
}
