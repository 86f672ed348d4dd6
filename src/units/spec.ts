/** What a unit is made of: everything that is decided before its sandbox is built. Kept as `units/UNIT/spec.json`. */

import { randomBytes } from 'node:crypto';
import Type from 'typebox';
import { Check, Errors } from 'typebox/value';
import { CairnError } from '../errors.ts';

const id = Type.Integer({ minimum: 0, maximum: 4294967294 });
const port = Type.Integer({ minimum: 1, maximum: 65535 });
const absolutePath = Type.String({ pattern: '^/[^\\0]*$' });

/** Schema of `UnitSpec`. */
export const unitSpecSchema = Type.Object({
  /** `u-` and twelve hexadecimal digits; see `newUnitId`. */
  id: Type.String({ pattern: '^u-[0-9a-f]{12}$' }),
  hostname: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$' }),
  command: Type.Array(Type.String({ pattern: '^[^\\0]*$' }), { minItems: 1 }),
  environment: Type.Record(Type.String({ pattern: '^[^=\\0]+$' }), Type.String({ pattern: '^[^\\0]*$' })),
  user: Type.Object({ uid: id, gid: id, additionalGids: Type.Array(id) }),
  workingDirectory: absolutePath,
  /** Standard input, output and error are a pseudo terminal. */
  terminal: Type.Boolean(),
  /** Standard input is a pipe that stays open and that `attach` feeds; otherwise it is /dev/null. */
  stdin: Type.Boolean(),
  rootFileSystem: Type.Union([
    Type.Object({ kind: Type.Literal('host') }),
    Type.Object({ kind: Type.Literal('directory'), path: absolutePath }),
    /** An image archive or layout directory; `reference` names one of several images in it. */
    Type.Object({
      kind: Type.Literal('oci'),
      path: absolutePath,
      reference: Type.Optional(Type.String()),
    }),
  ]),
  mounts: Type.Array(Type.Object({ source: absolutePath, target: absolutePath, readonly: Type.Boolean() })),
  resources: Type.Object({
    /** The runtime itself needs some megabytes. */
    memoryBytes: Type.Optional(Type.Integer({ minimum: 6 * 2 ** 20 })),
    /** Processors, for example 0.5. */
    cpus: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
    /** Tasks (threads count). */
    pids: Type.Optional(Type.Integer({ minimum: 1 })),
  }),
  /** Names such as `CAP_CHOWN`; see `defaultCapabilities`. */
  capabilities: Type.Array(Type.String({ pattern: '^CAP_[A-Z_]+$' })),
  seccomp: Type.Union([Type.Literal('default'), Type.Literal('unconfined')]),
  network: Type.Object({
    /** `bridge`: an address on the node's bridge; `none`: only a loopback interface. */
    mode: Type.Union([Type.Literal('bridge'), Type.Literal('none')]),
    /** A wanted IPv4 address; one is chosen otherwise. */
    address: Type.Optional(Type.String({ pattern: '^\\d{1,3}(\\.\\d{1,3}){3}$' })),
    ports: Type.Array(
      Type.Object({
        /** IPv4 address of the host; `0.0.0.0` for all. */
        hostAddress: Type.String({ pattern: '^\\d{1,3}(\\.\\d{1,3}){3}$' }),
        hostPort: port,
        unitPort: port,
        protocol: Type.Union([Type.Literal('tcp'), Type.Literal('udp')]),
      }),
    ),
  }),
  /** A log file is rotated when it reaches `maxBytes`; at most `files` are kept, the current one included. */
  logs: Type.Object({ maxBytes: Type.Integer({ minimum: 4096 }), files: Type.Integer({ minimum: 1 }) }),
  runtime: Type.Union([Type.Literal('runc'), Type.Literal('crun')]),
});

/** See `unitSpecSchema`. */
export type UnitSpec = Type.Static<typeof unitSpecSchema>;

/** A published port of a unit. */
export type PublishedPort = UnitSpec['network']['ports'][number];

/** A fresh unit id. */
export function newUnitId(): string {
  return `u-${randomBytes(6).toString('hex')}`;
}

/** True for what `newUnitId` makes: such a string is safe as a file and cgroup name. */
export function isUnitId(text: string): boolean {
  return /^u-[0-9a-f]{12}$/.test(text);
}

/** Checks a value from outside. Throws `unit-spec-invalid` (argument) that names the first wrong place. */
export function parseUnitSpec(value: unknown): UnitSpec {
  if (Check(unitSpecSchema, value)) return value;
  const first = Errors(unitSpecSchema, value)[0];
  const where = first === undefined ? 'the whole' : first.instancePath || 'the whole';
  throw new CairnError(
    'argument',
    'unit-spec-invalid',
    `the unit specification is not valid: ${where}: ${first?.message ?? 'does not match'}`,
  );
}
