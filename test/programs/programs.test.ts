import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { before, describe, it } from 'node:test';
import { buildProbes, type Probe, probeCommand, probeMounts, probes } from '../support/probe-programs.ts';

// A probe proves something only if it passes undisturbed and fails when what it checks is spoiled. Neither Cairn nor CRIU
// takes part in these tests.

const heavyToo = process.env.CAIRN_SOAK === '1';
const seen = new Set<string>();

describe('probe programs', { concurrency: 2 }, () => {
  let built: string;
  before(async () => {
    built = await buildProbes();
  });

  for (const probe of probes) {
    const key = `${probe.program} ${probe.arguments?.join(' ')} ${probe.static}`;
    if (seen.has(key) || (probe.heavy === true && !heavyToo && probe.program === 'unlinked-file')) continue;
    seen.add(key);
    const name =
      `${probe.program}${probe.static === true ? ' (static)' : ''} ${probe.arguments?.join(' ') ?? ''}`.trim();

    it(`${name} passes undisturbed and fails when spoiled`, async (t) => {
      const passed = await runOnHost(probe, built, {});
      if (passed.code === 77) return t.skip(passed.output.match(/SKIP: (.*)/)?.[1] ?? 'no reason given');
      assert.equal(passed.code, 0, passed.output);
      assert.match(passed.output, /^ready\n(.*\n)*PASS\n$/);
      const spoiled = await runOnHost(probe, built, { PROBE_BREAK: '1' });
      assert.equal(spoiled.code, 1, `it passed although spoiled: ${spoiled.output}`);
      assert.match(spoiled.output, /^FAIL: /m);
      assert.doesNotMatch(spoiled.output, /^PASS/m);
    });
  }
});

async function runOnHost(
  probe: Probe,
  built: string,
  environment: Record<string, string>,
): Promise<{ code: number | null; output: string }> {
  const directory = await mkdtemp(path.join(tmpdir(), 'cairn-probe-'));
  try {
    const go = path.join(directory, 'go');
    const places = probeMounts(built).map((mount) => mount.split(':') as [string, string]);
    const [file, ...rest] = probeCommand(probe).map((part) => {
      const place = places.find(([, inside]) => part.startsWith(`${inside}/`));
      return place === undefined ? part : place[0] + part.slice(place[1].length);
    });
    const child = spawn(file ?? '', rest, {
      env: { PATH: process.env.PATH, HOME: '/root', PROBE_GO: go, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
      // Some probes end their process group; that must not be ours.
      detached: true,
      timeout: 60_000,
      killSignal: 'SIGKILL',
    });
    let output = '';
    const onData = (chunk: Buffer): void => {
      const wasReady = /^ready$/m.test(output);
      output += chunk.toString('latin1');
      if (!wasReady && /^ready$/m.test(output)) setTimeout(() => void writeFile(go, ''), 150);
    };
    child.stdout.on('data', onData);
    child.stderr.on('data', onData);
    const [code] = (await once(child, 'close')) as [number | null];
    return { code, output };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
