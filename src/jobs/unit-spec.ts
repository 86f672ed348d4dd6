import { CairnError } from '../errors.ts';
import { commandOf, type ImageConfig } from '../units/oci-image.ts';
import type { PublishedPort, UnitSpec } from '../units/spec.ts';
import type { ResolvedUser } from '../units/users.ts';
import type { JobDescription } from './description.ts';
import type { UnitRequest } from './ports.ts';
import { parseBytes } from './quantities.ts';

/** What has to be looked up before a description can become a unit. */
export interface UnitSurroundings {
  /** Capabilities of a unit that asks for nothing else. */
  defaultCapabilities: readonly string[];
  /** What an OCI image says about the program in it; `undefined` for other root file systems. */
  image: ImageConfig | undefined;
  /** Numbers of the user, and where they are at home, from the root file system of the unit. */
  user: ResolvedUser;
}

const searchPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const defaultLogs = { maxBytes: 10 * 2 ** 20, files: 5 };

/** What a unit of this job is made of. Pure. Errors: `command-missing`, `path-relative`, `port-invalid`, `quantity-invalid`. */
export function unitSpecOf(job: UnitRequest, surroundings: UnitSurroundings): UnitSpec {
  const { description } = job;
  const { image } = surroundings;
  const given = description.command ?? [];
  const command = image === undefined ? given : commandOf(image, given);
  if (command.length === 0) {
    throw new CairnError('argument', 'command-missing', `The job ${job.name} has no command.`, {
      remedy: 'Give one after --, or in the job file as "command".',
    });
  }
  const { memory, cpus, pids } = description.resources ?? {};
  const address = description.network?.address;
  return {
    id: job.unit,
    hostname: description.hostname ?? job.name.replaceAll('_', '-').replace(/[.-]+$/, ''),
    command,
    environment: environmentOf(description, surroundings),
    user: surroundings.user.user,
    workingDirectory: description.workingDirectory ?? image?.workingDirectory ?? '/',
    terminal: description.terminal ?? false,
    stdin: description.stdin ?? false,
    rootFileSystem: rootFileSystemOf(description),
    mounts: (description.mounts ?? []).map(mountOf),
    resources: {
      ...(memory === undefined ? {} : { memoryBytes: parseBytes(memory, 'resources.memory') }),
      ...(cpus === undefined ? {} : { cpus }),
      ...(pids === undefined ? {} : { pids }),
    },
    capabilities: capabilitiesOf(description, surroundings.defaultCapabilities),
    seccomp: description.seccomp ?? 'default',
    network: {
      mode: description.network?.mode ?? 'bridge',
      ...(address === undefined ? {} : { address }),
      ports: (description.network?.ports ?? []).map(portOf),
    },
    logs: {
      maxBytes:
        description.logs?.maxBytes === undefined
          ? defaultLogs.maxBytes
          : parseBytes(description.logs.maxBytes, 'logs.maxBytes'),
      files: description.logs?.files ?? defaultLogs.files,
    },
    runtime: description.runtime ?? 'runc',
  };
}

/** The root file system that a description asks for. Error: `path-relative`. */
export function rootFileSystemOf(description: JobDescription): UnitSpec['rootFileSystem'] {
  const text = description.rootFileSystem ?? 'host';
  if (text === 'host') return { kind: 'host' };
  const kind = text.startsWith('dir:') ? 'directory' : 'oci';
  const rest = text.slice(4);
  requireAbsolute(rest, 'rootFileSystem');
  if (kind === 'directory') return { kind, path: rest };
  const at = rest.lastIndexOf('@');
  // An @ before a slash belongs to the path.
  if (at <= 0 || rest.indexOf('/', at) !== -1) return { kind, path: rest };
  return { kind, path: rest.slice(0, at), reference: rest.slice(at + 1) };
}

/** Reads `[ADDRESS:]HOST:UNIT[/tcp|/udp]`. Error: `port-invalid`. */
export function portOf(text: string): PublishedPort {
  const match = /^(?:(\d{1,3}(?:\.\d{1,3}){3}):)?(\d+):(\d+)(?:\/(tcp|udp))?$/.exec(text);
  const hostPort = Number(match?.[2]);
  const unitPort = Number(match?.[3]);
  if (match === null || !isPort(hostPort) || !isPort(unitPort)) {
    throw new CairnError('argument', 'port-invalid', `"${text}" is not a published port.`, {
      remedy: 'Write [ADDRESS:]HOST:UNIT[/udp], for example 8080:80 or 127.0.0.1:5353:53/udp.',
    });
  }
  return {
    hostAddress: match[1] ?? '0.0.0.0',
    hostPort,
    unitPort,
    protocol: match[4] === 'udp' ? 'udp' : 'tcp',
  };
}

/** A name for a job that has none: that of its program, with a number if it is taken. */
export function defaultJobName(
  command: readonly string[] | undefined,
  taken: (name: string) => boolean,
): string {
  const program = command?.[0]?.split('/').at(-1) ?? '';
  const cleaned = program
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/^[^a-z0-9]+/, '')
    .slice(0, 50);
  const base = cleaned === '' ? 'job' : cleaned;
  if (!taken(base)) return base;
  for (let n = 2; ; n++) if (!taken(`${base}-${n}`)) return `${base}-${n}`;
}

function environmentOf(
  description: JobDescription,
  { image, user }: UnitSurroundings,
): Record<string, string> {
  return {
    PATH: searchPath,
    HOME: user.home,
    ...(description.terminal === true ? { TERM: 'xterm' } : {}),
    ...image?.environment,
    ...description.environment,
  };
}

function mountOf(text: string): UnitSpec['mounts'][number] {
  const [source = '', target = '', mode] = text.split(':');
  requireAbsolute(source, 'mounts');
  return { source, target, readonly: mode === 'ro' };
}

function capabilitiesOf(description: JobDescription, defaults: readonly string[]): string[] {
  const { add = [], drop = [] } = description.capabilities ?? {};
  const kept = drop.includes('ALL') ? [] : defaults.filter((name) => !drop.includes(name));
  return [...new Set([...kept, ...add])];
}

function requireAbsolute(path: string, what: string): void {
  if (path.startsWith('/')) return;
  throw new CairnError(
    'argument',
    'path-relative',
    `${what}: the path "${path}" does not begin with a slash.`,
    {
      remedy: 'Give the whole path.',
    },
  );
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 1 && port <= 65535;
}
