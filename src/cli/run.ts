import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { text as textOf } from 'node:stream/consumers';
import { CairnError, messageOf } from '../errors.ts';
import type { JobDescription } from '../jobs/description.ts';
import { checkJobName } from '../jobs/job-reference.ts';
import { parseBytes } from '../jobs/quantities.ts';
import type { Command } from './command.ts';
import { environmentFrom } from './environment.ts';
import { notATerminal } from './exec.ts';
import { followJob } from './follow-job.ts';
import { formatJson } from './format.ts';
import { type Input, usage } from './parse-arguments.ts';

/** `cairn run` */
export const run: Command = {
  name: 'run',
  summary: 'Run a program as a job',
  description: `Stays with the job, shows its output and ends with its exit code; with -d it only starts it and prints its id. Ctrl-C is passed on; with
a terminal, Ctrl-P Ctrl-Q leaves the job running. Without --rootfs the program sees the files of this machine, and what it writes
stays in the job. What is given here goes before what is in the job file.`,
  arguments: [{ name: 'COMMAND', required: false, rest: true }],
  options: [
    { name: 'name', value: 'NAME', description: 'name of the job (default: that of the program)' },
    { name: 'detach', short: 'd', description: 'do not stay with it' },
    { name: 'interactive', short: 'i', description: 'keep standard input open' },
    { name: 'tty', short: 't', description: 'give it a terminal' },
    {
      name: 'file',
      short: 'f',
      value: 'FILE',
      description: 'job file (YAML), - for standard input',
      completion: 'file',
    },
    {
      name: 'rootfs',
      value: 'WHAT',
      description: 'host (default), dir:PATH or oci:PATH[@REFERENCE] (image archive or layout)',
      completion: ['host', 'dir:', 'oci:'],
    },
    {
      name: 'volume',
      short: 'v',
      value: 'SRC:DST[:ro]',
      repeat: true,
      description: 'show a file or directory of the host',
    },
    {
      name: 'env',
      short: 'e',
      value: 'NAME=VALUE',
      repeat: true,
      description: 'set an environment variable',
    },
    {
      name: 'user',
      short: 'u',
      value: 'USER[:GROUP]',
      description: 'name or number of the user (default root)',
    },
    { name: 'workdir', short: 'w', value: 'DIR', description: 'where the program starts' },
    { name: 'hostname', value: 'NAME', description: 'host name (default: name of the job)' },
    { name: 'memory', short: 'm', value: 'BYTES', description: 'limit of memory: 512m, 2g' },
    { name: 'cpus', value: 'N', description: 'limit of processor time: 1.5' },
    { name: 'pids-limit', value: 'N', description: 'limit of processes and threads' },
    {
      name: 'publish',
      short: 'p',
      value: '[ADDR:]HOST:UNIT[/udp]',
      repeat: true,
      description: 'publish a port of the job on this machine',
    },
    { name: 'address', value: 'IPV4', description: 'a wanted address on the bridge' },
    {
      name: 'network',
      value: 'MODE',
      description: 'bridge (default) or none',
      completion: ['bridge', 'none'],
    },
    {
      name: 'every',
      value: 'TIME',
      description: 'take a checkpoint each time this long has passed: 30s, 10m',
    },
    { name: 'keep', value: 'N', description: 'keep the N newest snapshots (default 5 with --every)' },
    {
      name: 'restart',
      value: 'POLICY',
      description: 'no (default), on-failure or always: bring it back after a crash',
      completion: ['no', 'on-failure', 'always'],
    },
    {
      name: 'runtime',
      value: 'NAME',
      description: 'OCI runtime: runc (default) or crun',
      completion: ['runc', 'crun'],
    },
    { name: 'cap-add', value: 'CAP', repeat: true, description: 'add a capability: CAP_NET_ADMIN' },
    { name: 'cap-drop', value: 'CAP', repeat: true, description: 'take a capability away, or ALL' },
    {
      name: 'seccomp',
      value: 'PROFILE',
      description: 'default or unconfined',
      completion: ['default', 'unconfined'],
    },
  ],
  examples: [
    { command: 'cairn run -- python3 train.py', comment: 'run a program and see its output' },
    {
      command: 'cairn run -d --name redis -p 6379:6379 --every 30s --restart on-failure -- redis-server',
      comment: 'a service that is saved every 30 seconds and comes back after a crash',
    },
    { command: 'cairn run -it --name shell -- bash', comment: 'a terminal that can be saved' },
    { command: 'cairn run -d -f job.yaml', comment: 'as a job file says' },
  ],
  async run(input, context) {
    const description = await descriptionFrom(input);
    const detach = input.flag('detach');
    const { terminal = false, stdin = false } = description;
    if (!detach && terminal && stdin && !process.stdin.isTTY) throw notATerminal();
    // Ctrl-C before the job runs: it shall not run. Later ones are passed on to it; see `followJob`.
    const interrupted = new AbortController();
    if (!detach) process.on('SIGINT', () => interrupted.abort());
    const job = await context.client.run(description, interrupted.signal);
    if (detach) {
      context.write(context.json ? formatJson(job) : `${job.id}\n`);
      return 0;
    }
    return followJob(context, job, { fromStart: true });
  },
};

/** The description that a command line asks for. Errors: `usage`, `job-name-invalid`, `job-file-unreadable`, `job-file-invalid` … */
export async function descriptionFrom(
  input: Input,
  directory: string = process.cwd(),
): Promise<JobDescription> {
  const file = input.option('file');
  const base: JobDescription = file === undefined ? {} : await readJobFile(file);
  const command = input.arguments('COMMAND');
  const name = input.option('name');
  if (name !== undefined) checkJobName(name);
  const rootfs = input.option('rootfs');
  if (command.length === 0 && file === undefined && rootfs?.startsWith('oci:') !== true) {
    throw usage('COMMAND is missing.', run);
  }
  const given: JobDescription = { ...base };
  if (name !== undefined) given.name = name;
  if (command.length > 0) given.command = [...command];
  if (input.flag('tty')) given.terminal = true;
  if (input.flag('interactive')) given.stdin = true;
  if (rootfs !== undefined) given.rootFileSystem = rootFileSystem(rootfs, directory);
  const mounts = input.options('volume').map((text) => mount(text, directory));
  if (mounts.length > 0) given.mounts = [...(base.mounts ?? []), ...mounts];
  if (input.flag('env'))
    given.environment = { ...base.environment, ...environmentFrom(input.options('env')) };
  const user = input.option('user');
  if (user !== undefined) given.user = user;
  const workdir = input.option('workdir');
  if (workdir !== undefined) given.workingDirectory = workdir;
  const hostname = input.option('hostname');
  if (hostname !== undefined) given.hostname = hostname;
  const resources = resourcesFrom(input);
  if (Object.keys(resources).length > 0) given.resources = { ...base.resources, ...resources };
  const network = networkFrom(input, base);
  if (Object.keys(network).length > 0) given.network = { ...base.network, ...network };
  const checkpoint = checkpointFrom(input);
  if (Object.keys(checkpoint).length > 0) given.checkpoint = { ...base.checkpoint, ...checkpoint };
  if (input.flag('restart')) {
    given.restart = { ...base.restart, policy: choice(input, 'restart', ['no', 'on-failure', 'always']) };
  }
  if (input.flag('runtime')) given.runtime = choice(input, 'runtime', ['runc', 'crun']);
  if (input.flag('seccomp')) given.seccomp = choice(input, 'seccomp', ['default', 'unconfined']);
  const add = input.options('cap-add').map(capability);
  const drop = input.options('cap-drop').map(capability);
  if (add.length + drop.length > 0) {
    given.capabilities = {
      add: [...(base.capabilities?.add ?? []), ...add],
      drop: [...(base.capabilities?.drop ?? []), ...drop],
    };
  }
  return given;
}

async function readJobFile(file: string): Promise<JobDescription> {
  let text: string;
  try {
    text = file === '-' ? await textOf(process.stdin) : await readFile(file, 'utf8');
  } catch (error) {
    throw new CairnError(
      'argument',
      'job-file-unreadable',
      `The job file ${file} cannot be read: ${messageOf(error)}.`,
      {
        cause: error,
      },
    );
  }
  // Only now: reading YAML and checking it takes longer than all the rest.
  const { parseJobFile } = await import('../jobs/job-file.ts');
  return parseJobFile(text, file);
}

/** `host`, `dir:PATH` or `oci:PATH`, with the path made absolute. */
function rootFileSystem(text: string, directory: string): string {
  const match = /^(dir|oci):(.+)$/s.exec(text);
  if (match?.[2] !== undefined) return `${match[1]}:${resolve(directory, match[2])}`;
  if (text === 'host') return text;
  throw usage(`--rootfs: "${text}" is not host, dir:PATH or oci:PATH[@REFERENCE].`, run);
}

function mount(text: string, directory: string): string {
  const match = /^([^:]+):(\/[^:]*)(:ro|:rw)?$/.exec(text);
  if (match?.[1] === undefined) throw usage(`-v: "${text}" is not SRC:DST or SRC:DST:ro.`, run);
  return `${resolve(directory, match[1])}:${match[2]}${match[3] ?? ''}`;
}

function resourcesFrom(input: Input): NonNullable<JobDescription['resources']> {
  const memory = input.option('memory');
  // Refused here in the words of the command line.
  if (memory !== undefined) parseBytes(memory, '--memory');
  const cpus = input.option('cpus');
  const pids = input.integer('pids-limit', 1);
  if (cpus !== undefined && !(Number(cpus) > 0 && Number.isFinite(Number(cpus)))) {
    throw usage(`--cpus: "${cpus}" is not a number above 0.`, run);
  }
  return {
    ...(memory === undefined ? {} : { memory }),
    ...(cpus === undefined ? {} : { cpus: Number(cpus) }),
    ...(pids === undefined ? {} : { pids }),
  };
}

function networkFrom(input: Input, base: JobDescription): NonNullable<JobDescription['network']> {
  const ports = input.options('publish');
  const address = input.option('address');
  return {
    ...(input.flag('network') ? { mode: choice(input, 'network', ['bridge', 'none']) } : {}),
    ...(address === undefined ? {} : { address }),
    ...(ports.length === 0 ? {} : { ports: [...(base.network?.ports ?? []), ...ports] }),
  };
}

function checkpointFrom(input: Input): NonNullable<JobDescription['checkpoint']> {
  const every = input.option('every');
  const keep = input.integer('keep', 1);
  return { ...(every === undefined ? {} : { every }), ...(keep === undefined ? {} : { keep }) };
}

function capability(text: string): string {
  const upper = text.toUpperCase();
  return upper === 'ALL' || upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
}

function choice<const T extends string>(input: Input, name: string, words: readonly T[]): T {
  const given = input.option(name);
  const found = words.find((word) => word === given);
  if (found === undefined) throw usage(`--${name} must be ${words.join(' or ')}, not "${given}".`, run);
  return found;
}
