import Type from 'typebox';
import { Compile } from 'typebox/compile';
import { Settings } from 'typebox/system';
import { CairnError } from '../errors.ts';
import { jobNamePattern } from './job-reference.ts';
import { bytesPattern, durationPattern } from './quantities.ts';

const strict = { additionalProperties: false };
const Bytes = (description: string) =>
  Type.String({ pattern: bytesPattern, description, examples: ['512m', '2g'] });
const Duration = (description: string) =>
  Type.String({ pattern: durationPattern, description, examples: ['30s', '1h30m'] });
const absolutePath = '^/[^\\u0000]*$';

/** When a job is checkpointed by itself, and which of its snapshots are kept. */
export const CheckpointPolicy = Type.Object(
  {
    every: Type.Optional(Duration('Take a checkpoint each time this long has passed since the last one.')),
    keep: Type.Optional(
      Type.Integer({
        minimum: 1,
        description: 'Keep this many of the newest snapshots (5 if "every" is given).',
      }),
    ),
    maxAge: Type.Optional(Duration('Remove snapshots that are older, except the newest.')),
    maxBytes: Type.Optional(
      Bytes('Remove the oldest snapshots while all together are larger, except the newest.'),
    ),
    timeout: Type.Optional(Duration('Give a checkpoint up after this time; the job runs on (default 60s).')),
    preSave: Type.Optional(
      Type.Boolean({ description: 'Save memory and files ahead, while the job still runs (default true).' }),
    ),
    stagingLimit: Type.Optional(Bytes('Hold at most this much new data in memory while the job is frozen.')),
  },
  { ...strict, title: 'CheckpointPolicy' },
);

/** What happens when the processes of a job end without being asked to. */
export const RestartPolicy = Type.Object(
  {
    policy: Type.Optional(
      Type.Union([Type.Literal('no'), Type.Literal('on-failure'), Type.Literal('always')], {
        description:
          'no: nothing. on-failure: after a crash (a signal, or an exit code that is not 0) the job goes on from its newest valid snapshot. always: the same, and after exit code 0 it starts again from the beginning.',
      }),
    ),
    limit: Type.Optional(
      Type.Integer({
        minimum: 0,
        description: 'Give up after so many restarts that did not last a minute (default 5).',
      }),
    ),
    fromStart: Type.Optional(
      Type.Boolean({
        description:
          'Start from the beginning when there is no valid snapshot (default: only with policy always).',
      }),
    ),
  },
  { ...strict, title: 'RestartPolicy' },
);

/** The description of a job: what `cairn run` sends and what a job file holds. */
export const JobDescription = Type.Object(
  {
    name: Type.Optional(
      Type.String({
        pattern: jobNamePattern,
        description: 'Name of the job; made from the command if it is missing.',
      }),
    ),
    command: Type.Optional(
      Type.Array(Type.String(), {
        description: 'Program and arguments. May be missing when an OCI image brings its own.',
        examples: [['redis-server', '--port', '6379']],
      }),
    ),
    environment: Type.Optional(
      Type.Record(Type.String({ pattern: '^[^=\\u0000]+$' }), Type.String(), {
        description: 'Environment variables.',
      }),
    ),
    user: Type.Optional(
      Type.String({
        pattern: '^[^:\\s]+(:[^:\\s]+)?$',
        description: 'Name or number of the user, and of the group after a colon (default root).',
        examples: ['postgres', '1000:1000'],
      }),
    ),
    workingDirectory: Type.Optional(
      Type.String({ pattern: absolutePath, examples: ['/srv'], description: 'Where the command starts.' }),
    ),
    hostname: Type.Optional(
      Type.String({
        pattern: '^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$',
        examples: ['redis-1'],
        description: 'Host name (default: the name).',
      }),
    ),
    terminal: Type.Optional(Type.Boolean({ description: 'Give the command a terminal.' })),
    stdin: Type.Optional(Type.Boolean({ description: 'Keep standard input open, for "cairn attach".' })),
    rootFileSystem: Type.Optional(
      Type.String({
        pattern: '^(host|(dir|oci):[^\\u0000]+)$',
        examples: ['host', 'dir:/srv/root', 'oci:/srv/redis.tar'],
        description:
          'host: that of this machine, read-only below a writable layer of the job (default). dir:PATH: a directory. oci:PATH: an OCI image, an archive or a layout directory; "oci:PATH@REFERENCE" chooses one of several.',
      }),
    ),
    mounts: Type.Optional(
      Type.Array(
        Type.String({
          pattern: '^[^:]+:/[^:]*(:(ro|rw))?$',
          examples: ['/srv/data:/data', '/etc/app:/etc/app:ro'],
        }),
        {
          description: 'Directories and files of the host: SOURCE:TARGET or SOURCE:TARGET:ro.',
        },
      ),
    ),
    resources: Type.Optional(
      Type.Object(
        {
          memory: Type.Optional(Bytes('Limit of memory.')),
          cpus: Type.Optional(
            Type.Number({
              exclusiveMinimum: 0,
              description: 'Limit of processor time: 1.5 is one and a half.',
            }),
          ),
          pids: Type.Optional(Type.Integer({ minimum: 1, description: 'Limit of processes and threads.' })),
        },
        strict,
      ),
    ),
    network: Type.Optional(
      Type.Object(
        {
          mode: Type.Optional(
            Type.Union([Type.Literal('bridge'), Type.Literal('none')], {
              description: 'bridge: an address on the bridge of the node (default). none: only the loopback.',
            }),
          ),
          address: Type.Optional(
            Type.String({
              pattern: '^[0-9]{1,3}(\\.[0-9]{1,3}){3}$',
              examples: ['10.213.0.9'],
              description: 'A wanted address.',
            }),
          ),
          ports: Type.Optional(
            Type.Array(
              Type.String({
                pattern: '^([0-9.]+:)?[0-9]+:[0-9]+(/(tcp|udp))?$',
                examples: ['8080:80', '127.0.0.1:5353:53/udp'],
              }),
              {
                description: 'Published ports: [ADDRESS:]HOST:UNIT[/udp].',
              },
            ),
          ),
        },
        strict,
      ),
    ),
    checkpoint: Type.Optional(CheckpointPolicy),
    restart: Type.Optional(RestartPolicy),
    capabilities: Type.Optional(
      Type.Object(
        {
          add: Type.Optional(
            Type.Array(Type.String({ pattern: '^CAP_[A-Z_]+$', examples: ['CAP_NET_ADMIN'] })),
          ),
          drop: Type.Optional(
            Type.Array(Type.String({ pattern: '^(CAP_[A-Z_]+|ALL)$', examples: ['CAP_NET_RAW', 'ALL'] })),
          ),
        },
        { ...strict, description: 'Changes to the default capabilities of a container.' },
      ),
    ),
    seccomp: Type.Optional(
      Type.Union([Type.Literal('default'), Type.Literal('unconfined')], {
        description: 'Filter of system calls.',
      }),
    ),
    logs: Type.Optional(
      Type.Object(
        {
          maxBytes: Type.Optional(Bytes('Size at which a log file is rotated (default 10m).')),
          files: Type.Optional(Type.Integer({ minimum: 1, description: 'How many are kept (default 5).' })),
        },
        strict,
      ),
    ),
    runtime: Type.Optional(
      Type.Union([Type.Literal('runc'), Type.Literal('crun')], {
        description: 'OCI runtime (default runc).',
      }),
    ),
  },
  {
    ...strict,
    title: 'Cairn job',
    description: 'A job: one program with its surroundings, and how it is checkpointed and restarted.',
  },
);
export type JobDescription = Type.Static<typeof JobDescription>;

const compiled = Compile(JobDescription);

/** One thing that is wrong with a description: where (JSON pointer) and what. */
export interface DescriptionFault {
  pointer: string;
  message: string;
}

/** What is wrong with a value that should describe a job; empty if nothing is. */
export function descriptionFaults(value: unknown): DescriptionFault[] {
  if (compiled.Check(value)) return [];
  // TypeBox stops after 8 errors unless told otherwise, and counts the alternatives of a union among them.
  Settings.Set({ maxErrors: 100 });
  const faults: DescriptionFault[] = [];
  for (const error of compiled.Errors(value)) {
    // The alternatives of a union and the list of unknown keys repeat what is also reported by itself.
    if (error.keyword === 'const' || error.keyword === 'additionalProperties') continue;
    if (faults.some((fault) => fault.pointer === error.instancePath)) continue;
    const field = error.instancePath === '' ? 'the job' : error.instancePath.slice(1).replaceAll('/', '.');
    faults.push({ pointer: error.instancePath, message: `${field} ${complaint(error, value)}` });
  }
  return faults;
}

/** Parses a description that came from outside. Error: `job-description-invalid` with one line for each fault. */
export function parseDescription(value: unknown): JobDescription {
  if (compiled.Check(value)) return value;
  throw new CairnError('argument', 'job-description-invalid', 'The description of the job is not valid.', {
    lines: descriptionFaults(value).map((fault) => fault.message),
    remedy: 'See docs/job.schema.json, or "cairn run --help".',
  });
}

function complaint(
  error: { keyword: string; schemaPath: string; instancePath: string; message: string },
  value: unknown,
): string {
  const schema = follow(JobDescription, error.schemaPath.split('/').slice(1));
  switch (error.keyword) {
    case 'boolean':
      return 'is not known';
    case 'anyOf': {
      const options = follow(schema, ['anyOf']);
      const words = Array.isArray(options)
        ? options.map((option) => JSON.stringify(follow(option, ['const'])))
        : [];
      return `must be ${words.join(' or ')}`;
    }
    case 'pattern': {
      const examples = follow(schema, ['examples']);
      const found = JSON.stringify(follow(value, error.instancePath.split('/').slice(1)));
      const hint = Array.isArray(examples) ? `; valid are for example ${examples.join(' and ')}` : '';
      return `is ${found}, which does not have the right form${hint}`;
    }
    default:
      return error.message;
  }
}

/** The value inside a value that one reaches by these keys. */
function follow(value: unknown, keys: readonly string[]): unknown {
  let place = value;
  for (const key of keys)
    place = typeof place === 'object' && place !== null ? Reflect.get(place, key) : undefined;
  return place;
}
