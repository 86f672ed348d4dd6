// `sudo npm run demo`: a Redis with a data set and a client runs in Cairn, is checkpointed while it serves, is killed, and
// comes back with every key and at the same place. Uses a daemon, directories and a bridge of its own, and removes them.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { styleText } from 'node:util';
import { NodeClient } from '../../src/api/client.ts';
import { CairnError } from '../../src/errors.ts';
import { parseSubnet } from '../../src/network/addresses.ts';
import { removeBridge } from '../../src/network/bridge.ts';
import { killUnit } from '../support/unit-processes.ts';
import { RedisClient } from './redis-client.ts';
import { compareShop, customers, fillShop, orders } from './shop-data.ts';
import { Visitors } from './visitors.ts';

const root = path.resolve(import.meta.dirname, '../..');
const limitMs = 5 * 60_000;
const job = 'shop';
// An own bridge, so that the demo disturbs no daemon that runs here already.
const bridge = { name: 'cairndemo0', subnet: '10.213.254.0/24' };

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function step(number: number, text: string): void {
  say(`\n${styleText('bold', `${number}. ${text}`)}`);
}

function fact(text: string): void {
  say(`   ${styleText('green', '✔')} ${text}`);
}

/** The demonstration's own daemon; at its end nothing of it is left. */
class DemoNode implements AsyncDisposable {
  readonly directory: string;
  readonly client: NodeClient;
  #daemon: ChildProcess | undefined;

  constructor(directory: string) {
    this.directory = directory;
    this.client = new NodeClient(path.join(directory, 'run'));
  }

  async start(): Promise<void> {
    const { directory } = this;
    const log = openSync(this.logFile, 'a');
    const argv = ['node', '--state', `${directory}/state`, '--run', `${directory}/run`];
    say(`   $ cairn ${argv.join(' ')} &`);
    const daemon = spawn(
      path.join(root, 'cairn'),
      [...argv, '--bridge', bridge.name, '--subnet', bridge.subnet],
      {
        stdio: ['ignore', log, log],
        // Ctrl-C is for the demo, which then ends the daemon in order.
        detached: true,
      },
    );
    closeSync(log);
    this.#daemon = daemon;
    const deadline = Date.now() + 20_000;
    for (;;) {
      const answered = await this.client.node().then(
        () => true,
        () => false,
      );
      if (answered) return;
      if (daemon.exitCode !== null) throw new Error(`the daemon has ended with code ${daemon.exitCode}`);
      if (Date.now() > deadline) throw new Error('the daemon does not answer');
      await delay(50);
    }
  }

  get logFile(): string {
    return path.join(this.directory, 'node.log');
  }

  /** Runs a command of the command line, visibly. */
  async cairn(...argv: string[]): Promise<void> {
    say(`   $ cairn ${argv.map((word) => (/^[\w@.:/=-]+$/.test(word) ? word : `'${word}'`)).join(' ')}`);
    const child = spawn(path.join(root, 'cairn'), argv, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, CAIRN_RUN: path.join(this.directory, 'run') },
    });
    const show = (data: Buffer) =>
      process.stdout.write(data.toString('utf8').replaceAll(/^(?=.)/gm, '     '));
    child.stdout.on('data', show);
    child.stderr.on('data', show);
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== 0) throw new Error(`cairn ${argv[0]} ended with code ${code}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const daemon = this.#daemon;
    if (daemon !== undefined && daemon.exitCode === null && daemon.signalCode === null) {
      for (const { id } of await this.client.jobs())
        await this.client.removeJob(id, { force: true, snapshots: true });
      const ended = once(daemon, 'exit');
      daemon.kill('SIGTERM');
      await ended;
    }
    await removeBridge({ name: bridge.name, subnet: parseSubnet(bridge.subnet) });
    await rm(this.directory, { recursive: true, force: true });
  }
}

async function demonstrate(node: DemoNode): Promise<void> {
  say(styleText('bold', 'Cairn demo: a Redis that is killed, and goes on where it was'));

  step(1, 'Start a node: the daemon that runs jobs on this machine.');
  await node.start();

  step(2, 'Run Redis as a job. Its own persistence is off: what comes back comes back through Cairn.');
  const command = [
    'redis-server',
    '--save',
    '',
    '--appendonly',
    'no',
    '--bind',
    '0.0.0.0',
    '--protected-mode',
    'no',
  ];
  await node.cairn('run', '-d', '--name', job, '--', ...command);
  const address = (await node.client.job(job)).unit?.address;
  if (address === undefined) throw new Error('the job has no address');
  await using redis = await RedisClient.open(address, 6379);
  const runId = await runIdOf(redis);

  step(3, `Fill it: a shop with ${count(customers)} customers and ${count(orders)} orders.`);
  const keys = await fillShop(redis);
  const memory = /used_memory_human:(\S+)/.exec(String(await redis.send('INFO', 'memory')))?.[1];
  fact(`${count(keys)} keys, ${memory ?? '?'} of memory in Redis`);

  step(4, 'Let a client count visitors over one connection, as fast as it can.');
  await using connection = await RedisClient.open(address, 6379);
  const visitors = new Visitors(connection, 0);
  await waitForVisitors(visitors, 1_000);

  step(5, 'Take a checkpoint while all that goes on.');
  const before = visitors.look();
  await node.cairn('checkpoint', job);
  await waitForVisitors(visitors, visitors.look().count + 1);
  const after = visitors.look();
  if (visitors.error !== undefined) throw visitors.error;
  fact(
    `the client went from visitor ${count(before.count)} to ${count(after.count)} meanwhile, without an error`,
  );

  step(6, 'Let it go on for a moment, then kill -9 all of it.');
  await waitForVisitors(visitors, after.count + 1_000);
  const { unit } = await node.client.job(job);
  if (unit === undefined) throw new Error('the job has no unit');
  say(`   $ kill -9 ${unit.pid}`);
  await killUnit(unit);
  await visitors.end;
  const lost = visitors.look().count;
  fact(`Redis is gone, the client lost its connection at visitor ${count(lost)}`);
  await waitForCrash(node);
  await node.cairn('jobs', '--all');

  step(7, 'Bring it back.');
  await node.cairn('restart', job);

  step(8, 'Look what is there.');
  await using again = await RedisClient.open((await node.client.job(job)).unit?.address ?? address, 6379);
  const counted = Number(await again.send('GET', 'visitors'));
  // What was acknowledged before the checkpoint began must be in it, and nothing from after its end can be.
  check(
    counted >= before.count && counted <= after.count,
    `it is at visitor ${count(counted)}, where the checkpoint was taken`,
  );
  const found = Number(await again.send('DBSIZE'));
  check(found === keys + 1, `${count(found)} keys, as before`);
  const wrong = await compareShop(again);
  check(
    wrong.length === 0,
    `every key compared: ${wrong.length === 0 ? 'all are right' : `wrong: ${wrong.slice(0, 5).join(' ')} …`}`,
  );
  check(
    (await runIdOf(again)) === runId,
    'it is still the same run of Redis (its run_id is the same), not a new one',
  );
  const more = new Visitors(again, counted);
  await waitForVisitors(more, counted + 1_000);
  fact('and it counts on');
  await node.cairn('snapshots', job);
}

async function runIdOf(redis: RedisClient): Promise<string> {
  const id = /run_id:(\w+)/.exec(String(await redis.send('INFO', 'server')))?.[1];
  if (id === undefined) throw new Error('Redis told no run_id');
  return id;
}

async function waitForVisitors(visitors: Visitors, wanted: number): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (visitors.count < wanted) {
    if (visitors.error !== undefined) throw visitors.error;
    if (Date.now() > deadline) throw new Error(`the client does not reach visitor ${wanted}`);
    await delay(10);
  }
}

async function waitForCrash(node: DemoNode): Promise<void> {
  const deadline = Date.now() + 20_000;
  while ((await node.client.job(job)).job.state.kind === 'running') {
    if (Date.now() > deadline) throw new Error('the daemon did not notice that the job is gone');
    await delay(20);
  }
}

function check(good: boolean, text: string): void {
  if (!good) throw new Error(`this is not as it should be: ${text}`);
  fact(text);
}

function count(number: number): string {
  return number.toLocaleString('en-US');
}

async function main(): Promise<number> {
  if (process.getuid?.() !== 0) {
    process.stderr.write(
      'The demo runs containers and takes checkpoints, so it has to run as root: sudo npm run demo\n',
    );
    return 5;
  }
  // A short path: it becomes part of the paths of unix sockets.
  const node = new DemoNode(await mkdtemp('/tmp/cairn-demo-'));
  const interrupted = new Promise<never>((_resolve, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => reject(new Error(`interrupted by ${signal}`)));
    }
    setTimeout(() => reject(new Error(`it took more than ${limitMs / 60_000} minutes`)), limitMs).unref();
  });
  let failure: unknown;
  try {
    await Promise.race([demonstrate(node), interrupted]);
  } catch (error) {
    failure = error;
    process.stderr.write(`\n${styleText('red', 'The demo failed:')} ${describe(error)}\n`);
    process.stderr.write(`The last lines of the node's log:\n${lastLog(node.logFile)}\n`);
  }
  try {
    await node[Symbol.asyncDispose]();
  } catch (error) {
    failure ??= error;
    process.stderr.write(`Cleaning up failed: ${describe(error)}; look at ${node.directory}\n`);
  }
  if (failure !== undefined) return failure instanceof CairnError && failure.class === 'environment' ? 5 : 1;
  say(`\n${styleText('green', 'All of it is there.')} Everything of the demo is removed again.`);
  say('Next: sudo ./cairn node &   sudo ./cairn run --help   README.md');
  return 0;
}

function describe(error: unknown): string {
  if (error instanceof CairnError) {
    return [error.message, ...error.lines, ...(error.remedy === undefined ? [] : [`→ ${error.remedy}`])].join(
      '\n',
    );
  }
  return error instanceof Error ? error.message : String(error);
}

function lastLog(file: string): string {
  try {
    return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-10).join('\n');
  } catch {
    return '(none)';
  }
}

// Not left to the event loop: a connection that is still open must not keep the demo alive.
process.exit(await main());
