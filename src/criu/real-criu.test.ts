/** The image streamer and the page server against CRIU itself. Needs root and a CRIU (CAIRN_CRIU, or as `findCriu` finds it). */

import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { type TestContext, test } from 'node:test';
import { setImmediate, setTimeout } from 'node:timers/promises';
import { close, pipe, read } from '../linux/libc.ts';
import { readMemory } from '../linux/memory.ts';
import { becomeSubreaper, reapChild } from '../linux/pidfd.ts';
import { readStat, readTree } from '../linux/process.ts';
import { socketPair } from '../linux/socket.ts';
import { Program } from '../linux/spawn.ts';
import { dumpCommand } from './dump-command.ts';
import { explainFailure } from './explain.ts';
import { type Criu, findCriu } from './find.ts';
import { pagemapId } from './image-file.ts';
import { lazyPagesCommand } from './lazy-pages-command.ts';
import { readLog } from './log.ts';
import { decodeCore, decodeInventory, decodeTaskTree } from './messages.ts';
import { PageServer, pageHeaderBytes } from './page-server.ts';
import {
  decodePagemap,
  encodePagemap,
  pageFlags,
  runFields,
  withLazyPages,
  withoutLazyPages,
} from './pagemap.ts';
import { restoreCommand } from './restore-command.ts';
import { decodeDumpStats } from './stats.ts';
import { StreamCapture } from './stream-capture.ts';
import { StreamServe } from './stream-serve.ts';

const pageSize = 4096;
const mebibytes = 16;

/** Two processes with random memory that check it themselves when a file asks them to. */
const program = String.raw`
my ($d, $n) = @ARGV; my ($m, $b) = ('', '');
open(my $u, '<', '/dev/urandom'); for (1..$n) { read($u, $b, 1<<20); $m .= $b } close $u;
my $role = fork() ? 'parent' : 'child';
substr($m, 12345, 4) = 'kid!' if $role eq 'child';
my $want = unpack('%64C*', $m);
open(my $r, '>', "$d/ready-$role"); close $r;
while (1) {
  if (-e "$d/verify" && ! -e "$d/verified-$role") {
    open(my $v, '>', "$d/verified-$role.new"); print $v unpack('%64C*', $m) eq $want ? 'good' : 'bad'; close $v;
    rename "$d/verified-$role.new", "$d/verified-$role";
  }
  select(undef, undef, undef, 0.005);
}`;

type Images = Map<string, Buffer>;

async function poll(what: string, condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 20_000; !condition(); ) {
    if (Date.now() > deadline) throw new Error(`waited 20 s for ${what}`);
    await setTimeout(2);
  }
}

/** CRIU, or `undefined` after skipping the test. */
async function criuOrSkip(t: TestContext): Promise<Criu | undefined> {
  if (process.getuid?.() !== 0) t.skip('needs root');
  else {
    try {
      return await findCriu();
    } catch (error) {
      t.skip((error as Error).message);
    }
  }
  return undefined;
}

class Subject {
  readonly directory = mkdtempSync('/tmp/cairn-criu-');
  readonly pid: number;
  tree: number[] = [];
  #program: Program | undefined;

  constructor(t: TestContext) {
    becomeSubreaper();
    const nothing = openSync('/dev/null', 'r+');
    const argv = ['perl', '-e', program, this.directory, String(mebibytes)];
    this.#program = new Program(argv, { stdin: nothing, stdout: nothing, stderr: nothing, cwd: '/' });
    closeSync(nothing);
    this.pid = this.#program.pid ?? 0;
    t.after(async () => {
      await this.kill();
      rmSync(this.directory, { recursive: true, force: true });
    });
  }

  async ready(): Promise<void> {
    await poll('the program', () =>
      ['parent', 'child'].every((role) => existsSync(`${this.directory}/ready-${role}`)),
    );
    this.tree = readTree(this.pid);
    assert.equal(this.tree.length, 2);
  }

  /** Asks both processes to check their memory. */
  async verify(): Promise<void> {
    writeFileSync(`${this.directory}/verify`, '');
    for (const role of ['parent', 'child']) {
      const file = `${this.directory}/verified-${role}`;
      await poll(`${role}'s answer`, () => existsSync(file));
      assert.equal(readFileSync(file, 'utf8'), 'good', role);
      rmSync(file);
    }
    rmSync(`${this.directory}/verify`);
    for (const role of ['parent', 'child']) rmSync(`${this.directory}/verified-${role}`, { force: true });
  }

  /** Ends both processes and waits until their PIDs are free. */
  async kill(): Promise<void> {
    for (const pid of this.tree) {
      if (readStat(pid) !== undefined) process.kill(pid, 'SIGKILL');
    }
    if (this.#program) await this.#program[Symbol.asyncDispose]();
    this.#program = undefined;
    await poll('the end of the program', () =>
      this.tree.every((pid) => {
        reapChild(pid);
        return readStat(pid) === undefined;
      }),
    );
  }
}

/** Dumps with streamer and page socket, reads the lazy pages itself, and returns complete images. */
async function dump(t: TestContext, criu: Criu, subject: Subject): Promise<Images> {
  const chunks = new Map<string, Buffer[]>();
  const [ours, theirs] = socketPair();
  const status = pipe();
  using capture = new StreamCapture(subject.directory);
  capture.watch(status.read);
  const started = performance.now();
  await using run = new Program(
    [
      criu.path,
      ...dumpCommand({
        pid: subject.pid,
        imageDirectory: subject.directory,
        logFile: 'dump.log',
        afterwards: 'run',
        stream: true,
        lazySocket: 3,
        statusDescriptor: 4,
      }),
    ],
    { descriptors: [theirs, status.write] },
  );
  close(theirs);
  close(status.write);
  let said = 0;
  const take = (events: ReturnType<StreamCapture['poll']>) => {
    for (const event of events) {
      if (event.kind === 'open') chunks.set(event.name, []);
      if (event.kind === 'data') chunks.get(event.name)?.push(Buffer.from(event.bytes));
      if (event.kind === 'ready') {
        said = read(event.fd, new Uint8Array(1)) ?? 0;
        capture.unwatch(event.fd);
        return true;
      }
      if (event.kind === 'finished') return true;
    }
    return false;
  };
  while (!take(capture.poll(20))) await setImmediate();
  if (said === 0) {
    const failure = { attempt: 'Dump', end: await run.ended, log: readLog(`${subject.directory}/dump.log`) };
    throw explainFailure(failure);
  }
  take(capture.drain(5000));
  const frozenMs = performance.now() - started;
  for (const pid of subject.tree) assert.equal(readStat(pid)?.state, 't', 'frozen while CRIU waits');

  const images: Images = new Map();
  for (const [name, parts] of chunks) images.set(name, Buffer.concat(parts));
  const bytes = fillLazyPages(images);
  t.diagnostic(
    `images after ${frozenMs.toFixed(0)} ms, ${(bytes / 2 ** 20).toFixed(0)} MiB read from frozen memory`,
  );
  close(ours);
  close(status.read);
  assert.equal((await run.ended).exitCode, 0, readLog(`${subject.directory}/dump.log`));
  return images;
}

/** Puts the pages that CRIU left out into the pages images; returns how many bytes. */
function fillLazyPages(images: Images): number {
  let bytes = 0;
  for (const [name, image] of images) {
    const id = pagemapId(name);
    if (id?.kind !== 'process') continue;
    const pagemap = decodePagemap(image, name);
    const pagesName = `pages-${pagemap.pagesId}.img`;
    const eager = images.get(pagesName) ?? Buffer.alloc(0);
    const parts: Buffer[] = [];
    let offset = 0;
    for (let i = 0; i < pagemap.runs.length; i += runFields) {
      const [address = 0, pages = 0, flags = 0] = pagemap.runs.subarray(i, i + runFields);
      const length = pages * pageSize;
      if ((flags & pageFlags.present) !== 0) {
        parts.push(eager.subarray(offset, offset + length));
        offset += length;
      } else if ((flags & pageFlags.lazy) !== 0) {
        const part = Buffer.alloc(length);
        assert.equal(readMemory(id.id, part, BigUint64Array.of(BigInt(address), BigInt(length)), 1), length);
        parts.push(part);
        bytes += length;
      }
    }
    assert.equal(offset, eager.length, `${pagesName} holds what ${name} says`);
    images.set(pagesName, Buffer.concat(parts));
    images.set(name, Buffer.from(encodePagemap({ ...pagemap, runs: withLazyPages(pagemap.runs) })));
  }
  return bytes;
}

test('R04 R06 a dump through the streamer is restored from the streamer, twice', async (t) => {
  const criu = await criuOrSkip(t);
  if (criu === undefined) return;
  const subject = new Subject(t);
  await subject.ready();
  const images = await dump(t, criu, subject);
  await subject.verify();
  assert.equal(decodeInventory(images.get('inventory.img') ?? Buffer.alloc(0)).imageVersion, 2);
  const tasks = decodeTaskTree(images.get('pstree.img') ?? Buffer.alloc(0));
  assert.deepEqual(
    tasks.map(({ pid }) => pid),
    subject.tree,
  );
  const core = images.get(`core-${subject.pid}.img`) ?? Buffer.alloc(0);
  assert.deepEqual(decodeCore(core), { name: 'perl', state: 1, exitCode: 0 });

  for (const round of [1, 2]) {
    await subject.kill();
    const directory = `${subject.directory}/restore-${round}`;
    mkdirSync(directory);
    using serve = new StreamServe(directory, {
      has: (name) => images.has(name),
      read(name, offset, into) {
        const bytes = images.get(name)?.subarray(offset, offset + into.length) ?? Buffer.alloc(0);
        into.set(bytes);
        return bytes.length;
      },
    });
    const started = performance.now();
    await using run = new Program([
      criu.path,
      ...restoreCommand({ imageDirectory: directory, logFile: 'restore.log', stream: true, detached: true }),
    ]);
    let finished = false;
    while (!finished) {
      for (const event of serve.poll(20)) {
        finished ||= event.kind === 'finished';
        if (event.kind === 'end') assert.ok(event.complete, `${event.name} was read to its end`);
      }
      await setImmediate();
    }
    assert.equal((await run.ended).exitCode, 0, readLog(`${directory}/restore.log`));
    t.diagnostic(`restore ${round}: ${(performance.now() - started).toFixed(0)} ms`);
    assert.deepEqual(readTree(subject.pid), subject.tree);
    await subject.verify();
  }
});

test('R23 a restore that does not wait for memory gets it from the page server', async (t) => {
  const criu = await criuOrSkip(t);
  if (criu === undefined) return;
  const subject = new Subject(t);
  await subject.ready();
  const images = await dump(t, criu, subject);
  await subject.kill();

  const directory = `${subject.directory}/lazy`;
  mkdirSync(directory);
  const memory = new Map<number, { runs: Float64Array<ArrayBufferLike>; pages: Buffer }>();
  const eagerPages = new Map<string, Buffer>();
  for (const [name, image] of images) {
    const id = pagemapId(name);
    if (id?.kind !== 'process') continue;
    const pagemap = decodePagemap(image, name);
    const pagesName = `pages-${pagemap.pagesId}.img`;
    const pages = images.get(pagesName) ?? Buffer.alloc(0);
    memory.set(id.id, { runs: pagemap.runs, pages });
    const runs = withoutLazyPages(pagemap.runs);
    const eager: Buffer[] = [];
    for (let i = 0, offset = 0; i < runs.length; i += runFields) {
      const length = (runs[i + 1] ?? 0) * pageSize;
      if (((runs[i + 2] ?? 0) & pageFlags.present) !== 0) eager.push(pages.subarray(offset, offset + length));
      offset += length;
    }
    eagerPages.set(pagesName, Buffer.concat(eager));
    eagerPages.set(name, Buffer.from(encodePagemap({ ...pagemap, runs })));
  }
  for (const [name, image] of images) writeFileSync(`${directory}/${name}`, eagerPages.get(name) ?? image);

  const [ours, theirs] = socketPair();
  const status = pipe();
  const common = { imageDirectory: directory, workDirectory: directory };
  await using daemon = new Program(
    [
      criu.path,
      ...lazyPagesCommand({ ...common, logFile: 'lazy.log', pageServerSocket: 3, statusDescriptor: 4 }),
    ],
    { descriptors: [theirs, status.write] },
  );
  close(theirs);
  close(status.write);
  assert.equal(read(status.read, new Uint8Array(1)), 1, readLog(`${directory}/lazy.log`));
  close(status.read);

  let served = 0;
  const server = new PageServer(
    ours,
    (pid, address, pages, into) => {
      const { runs, pages: content } = memory.get(pid) ?? assert.fail(`asked for process ${pid}`);
      for (let i = 0, offset = 0; i < runs.length; i += runFields) {
        const [start = 0, count = 0] = runs.subarray(i, i + 2);
        const end = start + count * pageSize;
        if (address >= start && address < end) {
          const given = Math.min(pages, (end - address) / pageSize);
          const at = offset + address - start;
          into.set(content.subarray(at, at + given * pageSize));
          served += given * pageSize;
          return given;
        }
        offset += count * pageSize;
      }
      assert.fail(`asked for ${address.toString(16)} of process ${pid}`);
    },
    { headerBytes: pageHeaderBytes(criu.version), pageSize },
  );
  const started = performance.now();
  await using run = new Program([
    criu.path,
    ...restoreCommand({ ...common, logFile: 'restore.log', detached: true, lazyPages: true }),
  ]);
  let restoredMs = 0;
  run.ended.then(
    () => {
      restoredMs = performance.now() - started;
    },
    () => {},
  );
  let finished = false;
  while (!finished) {
    for (const event of server.poll(restoredMs === 0 ? 2 : 20)) {
      if (event.kind === 'finished') {
        assert.ok(event.complete, readLog(`${directory}/lazy.log`) + readLog(`${directory}/restore.log`));
        finished = true;
      }
    }
    await setImmediate();
  }
  t.diagnostic(
    `runs after ${restoredMs.toFixed(0)} ms, whole after ${(performance.now() - started).toFixed(0)} ms`,
  );
  assert.ok(served >= 2 * mebibytes * 2 ** 20, `${served} bytes served`);
  assert.equal((await daemon.ended).exitCode, 0);
  assert.equal((await run.ended).exitCode, 0, readLog(`${directory}/restore.log`));
  close(ours);
  assert.deepEqual(readTree(subject.pid), subject.tree);
  await subject.verify();
});

test('R18 what cannot be saved is explained; the program runs on', async (t) => {
  const criu = await criuOrSkip(t);
  if (criu === undefined) return;
  const subject = new Subject(t);
  await subject.ready();
  // The child is no session leader: a tree that begins there belongs to a session outside it.
  const child = subject.tree[1] ?? 0;
  await using run = new Program([
    criu.path,
    ...dumpCommand({ pid: child, imageDirectory: subject.directory, logFile: 'dump.log', afterwards: 'run' }),
  ]);
  const end = await run.ended;
  assert.notEqual(end.exitCode, 0);
  const log = readLog(`${subject.directory}/dump.log`);
  const error = explainFailure({ attempt: 'Dump of job x', end, log });
  assert.equal(error.code, 'session-outside', log);
  await subject.verify();
});

test('R21 closing the sockets ends a dump; the program runs on', async (t) => {
  const criu = await criuOrSkip(t);
  if (criu === undefined) return;
  const subject = new Subject(t);
  await subject.ready();
  const capture = new StreamCapture(subject.directory);
  await using run = new Program([
    criu.path,
    ...dumpCommand({
      pid: subject.pid,
      imageDirectory: subject.directory,
      logFile: 'dump.log',
      afterwards: 'run',
      stream: true,
    }),
  ]);
  let opened = false;
  while (!opened) {
    for (const event of capture.poll(20)) opened ||= event.kind === 'data' && event.name.startsWith('pages-');
    await setImmediate();
  }
  capture[Symbol.dispose]();
  assert.notEqual((await run.ended).exitCode, 0);
  const stats = `${subject.directory}/stats-dump`;
  assert.ok(!existsSync(stats) || decodeDumpStats(readFileSync(stats)) !== undefined);
  await subject.verify();
});
