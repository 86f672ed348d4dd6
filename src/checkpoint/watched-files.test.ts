import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { decodeImage } from '../criu/image-file.ts';
import { irmapCacheName } from '../criu/irmap-cache.ts';
import { tellWatchedFiles, WatchFinder } from './watched-files.ts';

/** Watches its arguments one after the other; one that begins with - is removed afterwards. */
const program = `
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(0)
os.makedirs('/new/a, b')
open('/new/file', 'w').close()
os.chmod(sys.argv.pop(1) + '/below/copied', 0o600)
held = open('/new/gone', 'w')
for path in sys.argv[1:]:
  if libc.inotify_add_watch(fd, path.lstrip('-').encode(), 2) < 0: sys.exit(path + ': ' + os.strerror(ctypes.get_errno()))
  if path.startswith('-'): os.unlink(path[1:])
print(fd, flush=True)
sys.stdin.read()
`;

/** The tree that the program sees: an overlay over the host, in a mount namespace of its own. */
const surroundings = `
set -e
mkdir "$1/upper" "$1/work" "$1/root"
mkdir "$1/below" && touch "$1/below/copied" "$1/below/untouched"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
directory=$1 program=$2; shift 2
exec chroot "$directory/root" python3 -c "$program" "$directory" "$@"
`;

test('R07 watched files of an overlay are found by their handles, and CRIU is told their paths', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('needs root');
  const directory = mkdtempSync('/tmp/cairn-watch-');
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const below = ['/below', '/below/copied', '/below/untouched'].map((name) => directory + name);
  const kept = ['/', '/new', '/new/a, b', '/new/file', ...below, '/usr/bin', '/proc'];
  const child = spawn(
    'unshare',
    [
      '--mount',
      '--propagation',
      'private',
      'sh',
      '-c',
      surroundings,
      'sh',
      directory,
      program,
      ...kept,
      '-/new/gone',
      '/proc/self',
    ],
    { stdio: ['pipe', 'pipe', 'pipe'] },
  );
  const errors: Buffer[] = [];
  child.stderr.on('data', (piece: Buffer) => errors.push(piece));
  t.after(async () => {
    if (child.exitCode === null && child.kill('SIGKILL')) await once(child, 'exit');
  });
  const said = await Promise.race([
    once(child.stdout, 'data').then(([bytes]: Buffer[]) => Number(bytes)),
    once(child, 'exit').then(() => Buffer.concat(errors).toString()),
  ]);
  if (typeof said === 'string') return t.skip(`an overlay of its own could not be made here: ${said.trim()}`);
  const pid = child.pid ?? 0;
  // The kernel lists the newest watch first.
  const fates = new WatchFinder(pid).fates(pid, said).reverse();
  if (fates.some((fate) => fate.kind === 'lost' && fate.reason.includes('kernel')))
    return t.skip('this kernel does not tell which file of an overlay is watched');
  assert.deepEqual(
    fates.map((fate) => (fate.kind === 'told' ? fate.file.path : fate.kind)),
    [...kept, 'lost', 'lost'],
  );
  const work = `${directory}-work`;
  mkdirSync(work);
  t.after(() => rmSync(work, { recursive: true, force: true }));
  tellWatchedFiles(work, pid);
  const entries = decodeImage(readFileSync(`${work}/${irmapCacheName}`), 'irmap-cache');
  assert.deepEqual(entries.map((entry) => entry.text(3)).sort(), kept.toSorted());
  assert.ok(entries.every((entry) => (entry.uint64(2) ?? 0n) > 0n && entry.uint(1) !== undefined));
});

test('where nothing is watched nothing is told', (t) => {
  const directory = mkdtempSync('/tmp/cairn-watch-');
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  t.after(() => child.kill('SIGKILL'));
  tellWatchedFiles(directory, child.pid ?? 0);
  assert.throws(() => readFileSync(`${directory}/${irmapCacheName}`), { code: 'ENOENT' });
});
