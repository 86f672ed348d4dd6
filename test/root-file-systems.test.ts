import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { NodeFixture } from './support/node-fixture.ts';
import { until } from './support/poll.ts';
import { mustRun } from './support/run-command.ts';

// A job on each kind of root file system writes to files of its layer and counts, is saved, loses its processes and what it wrote since, and
// comes back to exactly what it had. All programs are BusyBox: nothing of the host is needed inside.

/** Counts in a file and on its output; has one file of the root changed and one removed. */
const program = `
echo changed > /etc/changed; rm /etc/removed; n=0
while :; do echo $n > /srv/count; echo $n; n=$((n+1)); sleep 0.05; done`;

const applets = ['sh', 'cat', 'echo', 'rm', 'sleep', 'ls'];

/** A root directory with BusyBox and three files. */
function makeRoot(directory: string): void {
  for (const name of ['bin', 'etc', 'srv', 'proc', 'sys', 'dev', 'tmp'])
    mkdirSync(path.join(directory, name), { recursive: true });
  copyFileSync('/bin/busybox', path.join(directory, 'bin/busybox'));
  chmodSync(path.join(directory, 'bin/busybox'), 0o755);
  for (const applet of applets) symlinkSync('busybox', path.join(directory, 'bin', applet));
  for (const name of ['changed', 'removed', 'kept'])
    writeFileSync(path.join(directory, 'etc', name), `${name} of the image\n`);
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** An image layout (the OCI image specification) with one layer, tagged `counter:1`. */
async function makeLayout(root: string, layout: string): Promise<void> {
  const blobs = path.join(layout, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const add = (bytes: Uint8Array, mediaType: string) => {
    const digest = sha256(bytes);
    writeFileSync(path.join(blobs, digest), bytes);
    return { mediaType, digest: `sha256:${digest}`, size: bytes.length };
  };
  const json = (value: unknown, mediaType: string) => add(Buffer.from(JSON.stringify(value)), mediaType);
  const file = path.join(layout, 'layer.tar');
  await mustRun(['tar', '-C', root, '-cf', file, '.']);
  const tar = readFileSync(file);
  const layer = add(tar, 'application/vnd.oci.image.layer.v1.tar');
  const config = json(
    {
      os: 'linux',
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      config: { Cmd: ['/bin/sh', '-c', program], WorkingDir: '/srv', Env: ['PATH=/bin', 'COLOR=blue'] },
      rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(tar)}`] },
    },
    'application/vnd.oci.image.config.v1+json',
  );
  const manifest = json(
    {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config,
      layers: [layer],
    },
    'application/vnd.oci.image.manifest.v1+json',
  );
  writeFileSync(path.join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  writeFileSync(
    path.join(layout, 'index.json'),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [{ ...manifest, annotations: { 'org.opencontainers.image.ref.name': 'counter:1' } }],
    }),
  );
}

describe('root file systems', { concurrency: 1 }, () => {
  let node: NodeFixture;
  let directory: string;
  before(async () => {
    node = await NodeFixture.start();
    directory = path.join(node.directory, 'images');
    makeRoot(path.join(directory, 'root'));
    await makeLayout(path.join(directory, 'root'), path.join(directory, 'layout'));
    await mustRun([
      'tar',
      '-C',
      path.join(directory, 'layout'),
      '-cf',
      path.join(directory, 'image.tar'),
      '.',
    ]);
  });
  after(() => node?.[Symbol.asyncDispose]());

  for (const [name, rootfs, command] of [
    ['directory', 'dir:root', ['/bin/sh', '-c', program]],
    ['layout', 'oci:layout@counter:1', []],
    ['archive', 'oci:image.tar', []],
  ] as const) {
    it(`P02 a job whose root is ${name === 'directory' ? 'a directory' : `an image ${name}`} comes back with the files that it had`, async () => {
      const [kind, file] = rootfs.split(/:(.*)/s);
      const exec = async (text: string) =>
        (await node.cairn(['exec', name, '--', '/bin/sh', '-c', text])).stdout;
      await node.ok([
        'run',
        '-d',
        '--name',
        name,
        '--rootfs',
        `${kind}:${path.join(directory, file ?? '')}`,
        ...(command.length > 0 ? ['--', ...command] : []),
      ]);
      await node.waitOutput(name, /^10$/);
      if (name !== 'directory')
        assert.equal(await exec('echo $COLOR'), 'blue\n', 'the environment of the image');
      await node.checkpoint(name);
      const atCheckpoint = Number((await node.output(name)).at(-1));
      await exec('echo later > /etc/kept; echo new > /srv/new');
      await until('it counts on', async () => Number((await node.output(name)).at(-1)) > atCheckpoint + 5);
      await node.crash(name);
      const before = (await node.output(name)).length;
      await node.restart(name);
      await until('it counts again', async () => (await node.output(name)).length > before + 5);
      const again = (await node.output(name)).slice(before).map(Number);
      assert.ok(
        (again[0] ?? Number.NaN) <= atCheckpoint + 1,
        `it went on with ${again[0]}, after ${atCheckpoint}`,
      );
      again.forEach((value, i) => assert.equal(value, (again[0] ?? 0) + i));
      assert.equal(
        await exec('cat /etc/changed /etc/kept; ls /etc/removed /srv/new 2>&1'),
        'changed\nkept of the image\nls: /etc/removed: No such file or directory\nls: /srv/new: No such file or directory\n',
      );
      const count = Number(await exec('cat /srv/count'));
      assert.ok(count >= (again.at(-1) ?? 0), `the file has ${count}, the output ${again.at(-1)}`);
      assert.equal(readFileSync(path.join(directory, 'root/etc/changed'), 'utf8'), 'changed of the image\n');
      await node.remove(name);
    });
  }
});
