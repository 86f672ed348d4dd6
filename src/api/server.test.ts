import assert from 'node:assert/strict';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { createServer as createNetServer } from 'node:net';
import { join } from 'node:path';
import test from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import type { FastifyInstance } from 'fastify';
import type { TSchema } from 'typebox';
import { Check, Errors } from 'typebox/value';
import { CairnError } from '../errors.ts';
import { settle } from '../jobs/fake-node.ts';
import { encodeFrame, encodeSize, FrameDecoder, frameKind } from '../units/attach-frames.ts';
import { NodeClient } from './client.ts';
import { rig, served, sleeper } from './fake-server.ts';
import { listenOnSocket } from './listen.ts';
import { openApiDocument } from './openapi.ts';
import {
  CheckpointResult,
  Failure,
  Job,
  JobDetails,
  NodeInformation,
  PreflightResult,
  RestartResult,
  Snapshot,
  SnapshotDetails,
  VerifyResult,
  WaitResult,
} from './schemas.ts';
import { readSessionEnd } from './session-end.ts';
import { Type } from 'typebox';

/** Asks the server, without a socket, and checks the answer against its schema. */
async function ask<T>(
  app: FastifyInstance,
  method: 'GET' | 'POST' | 'DELETE' | 'PATCH',
  url: string,
  expected: { status: number; schema?: TSchema },
  body?: object,
): Promise<T> {
  const answer = await app.inject({ method, url, ...(body === undefined ? {} : { payload: body }) });
  assert.equal(answer.statusCode, expected.status, `${method} ${url}: ${answer.body}`);
  const value: unknown = answer.body === '' || expected.status === 204 ? null : JSON.parse(answer.body);
  if (expected.schema !== undefined) checkSchema(expected.schema, value);
  return value as T;
}

/** Asks for a long operation; the lines that it answers with. */
async function operate(
  app: FastifyInstance,
  url: string,
  body: object,
): Promise<{ kind: string; result?: unknown; error?: { code: string } }[]> {
  const answer = await app.inject({ method: 'POST', url, payload: body });
  assert.equal(answer.statusCode, 200, answer.body);
  assert.equal(answer.headers['content-type'], 'application/x-ndjson');
  return answer.body
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

function checkSchema(schema: TSchema, value: unknown): void {
  assert.ok(Check(schema, value), JSON.stringify(Errors(schema, value)[0]));
}

test('the life of a job over HTTP', async () => {
  await using node = await rig();
  const { app, fake } = node;
  const job = await ask<Job>(app, 'POST', '/jobs', { status: 201, schema: Job }, sleeper);
  assert.equal(job.state.kind, 'running');
  assert.deepEqual(await ask(app, 'GET', '/jobs', { status: 200, schema: Type.Array(Job) }), [job]);
  const details = await ask<JobDetails>(app, 'GET', '/jobs/sleeper', { status: 200, schema: JobDetails });
  assert.deepEqual(details.unit?.processes, [1, 2]);
  assert.equal(details.unit?.address, '10.213.0.2');
  assert.equal(
    (await ask<Job>(app, 'POST', '/jobs/sleeper/suspend', { status: 200 })).state.kind,
    'suspended',
  );
  assert.equal((await ask<Job>(app, 'POST', '/jobs/sleeper/resume', { status: 200 })).state.kind, 'running');
  const waiting = ask<WaitResult>(app, 'GET', '/jobs/sleeper/wait', { status: 200, schema: WaitResult });
  await settle();
  await ask(app, 'POST', '/jobs/sleeper/signals', { status: 204 }, { signal: 9 });
  assert.equal((await waiting).exitCode, 137);
  await ask(app, 'DELETE', '/jobs/sleeper', { status: 204 });
  assert.equal(fake.units.size, 0);
});

test('checkpoint, restart, clone and verification answer line by line', async () => {
  await using node = await rig();
  const { app, fake } = node;
  const job = await ask<Job>(app, 'POST', '/jobs', { status: 201 }, sleeper);
  fake.script.checkpoint = async ({ onEvent }) => onEvent({ kind: 'phase', phase: 'freeze', atMs: 1 });
  const [phase, last] = await operate(app, '/jobs/sleeper/checkpoints', { note: 'x' });
  assert.deepEqual(phase, { kind: 'phase', phase: 'freeze', atMs: 1 });
  assert.equal(last?.kind, 'result');
  checkSchema(CheckpointResult, last?.result);

  const refused = await operate(app, '/jobs/sleeper/restarts', {});
  assert.deepEqual([refused.length, refused[0]?.kind, refused[0]?.error?.code], [1, 'error', 'job-running']);
  const cloned = (await operate(app, '/jobs/sleeper/restarts', { clone: true, name: 'copy' })).at(-1);
  checkSchema(RestartResult, cloned?.result);
  fake.end(job.unit, { signal: 9 });
  await settle();
  const restarted = (await operate(app, '/jobs/sleeper/restarts', { sequence: 1, lazy: true })).at(-1);
  checkSchema(RestartResult, restarted?.result);

  const verified = (await operate(app, '/verifications', {})).at(-1);
  checkSchema(VerifyResult, verified?.result);
  const preflight = await ask<PreflightResult>(app, 'POST', '/jobs/sleeper/preflight', {
    status: 200,
    schema: PreflightResult,
  });
  assert.equal(preflight.possible, true);
});

test('snapshots are listed, shown, pinned and removed', async () => {
  await using node = await rig();
  const { app, fake } = node;
  const job = await ask<Job>(app, 'POST', '/jobs', { status: 201 }, sleeper);
  for (let n = 0; n < 3; n++) await operate(app, '/jobs/sleeper/checkpoints', {});
  const third = fake.headers[2];
  assert.ok(third);
  third.damaged = 'the signature is wrong';
  const listed = await ask<Snapshot[]>(app, 'GET', '/snapshots', {
    status: 200,
    schema: Type.Array(Snapshot),
  });
  assert.deepEqual(
    listed.map(({ sequence, current, state }) => [sequence, current, state]),
    [
      [1, false, 'local'],
      [2, true, 'local'],
      [3, false, 'damaged'],
    ],
  );
  const details = await ask<SnapshotDetails>(app, 'GET', '/jobs/sleeper/snapshots/2', {
    status: 200,
    schema: SnapshotDetails,
  });
  assert.deepEqual(details.units[0]?.images, [{ name: 'core-1.img', bytes: 10 }]);
  await ask(app, 'PATCH', '/jobs/sleeper/snapshots/2', { status: 200, schema: Snapshot }, { pinned: true });
  assert.equal(fake.headers[1]?.pinned, true);
  await ask(app, 'DELETE', `/jobs/${job.id}/snapshots/1`, { status: 204 });
  assert.equal((await ask<Snapshot[]>(app, 'GET', '/jobs/sleeper/snapshots', { status: 200 })).length, 2);
  const missing = await ask<Failure>(app, 'GET', '/jobs/sleeper/snapshots/9', {
    status: 404,
    schema: Failure,
  });
  assert.equal(missing.code, 'snapshot-unknown');
});

test('bad requests are refused with a failure that says why', async () => {
  await using node = await rig();
  const { app } = node;
  const refused = async (method: 'GET' | 'POST' | 'DELETE', url: string, status: number, body?: object) =>
    (await ask<Failure>(app, method, url, { status, schema: Failure }, body)).code;
  assert.equal(await refused('GET', '/jobs/nobody', 404), 'job-unknown');
  assert.equal(await refused('GET', '/nothing', 404), 'route-unknown');
  assert.equal(await refused('POST', '/jobs', 400, { command: 'x' }), 'job-description-invalid');
  assert.equal(
    await refused('POST', '/jobs', 400, { name: 'a/b', command: ['x'] }),
    'job-description-invalid',
  );
  await ask(app, 'POST', '/jobs', { status: 201 }, sleeper);
  assert.equal(await refused('POST', '/jobs', 409, sleeper), 'job-name-taken');
  assert.equal(await refused('DELETE', '/jobs/sleeper', 409), 'job-running');
  assert.equal(await refused('DELETE', '/jobs/sleeper?force=perhaps', 400), 'request-invalid');
  assert.equal(await refused('POST', '/jobs/sleeper/checkpoints', 400, { then: 'dance' }), 'request-invalid');
  assert.equal(await refused('POST', '/jobs/sleeper/checkpoints', 400, { than: 'stop' }), 'request-invalid');
  assert.equal(await refused('POST', '/jobs/sleeper/stop', 400, {}), 'request-invalid');
  assert.equal(await refused('GET', '/jobs/sleeper/attach', 426), 'upgrade-required');
  const answer = await app.inject({
    method: 'POST',
    url: '/jobs',
    headers: { 'content-type': 'application/json' },
    payload: '{"a":',
  });
  assert.equal(answer.statusCode, 400);
  assert.equal(JSON.parse(answer.body).code, 'request-invalid');
});

test('a defect is reported as one, not as the fault of the caller', async () => {
  await using node = await rig();
  const { app, fake } = node;
  await ask(app, 'POST', '/jobs', { status: 201 }, sleeper);
  fake.script.checkpoint = async () => {
    throw new TypeError('oops');
  };
  const [line] = await operate(app, '/jobs/sleeper/checkpoints', {});
  assert.equal(line?.error?.code, 'internal');
});

test('the description of the API is valid OpenAPI, and docs/openapi.json is it', async () => {
  const document = await openApiDocument();
  const { valid, errors } = await new Validator().validate(structuredClone(document));
  assert.ok(valid, JSON.stringify(errors));
  const file = new URL('../../docs/openapi.json', import.meta.url);
  const text = `${JSON.stringify(document, null, 2)}\n`;
  if (process.env['CAIRN_WRITE_DOCS'] === '1') await writeFile(file, text);
  assert.equal(await readFile(file, 'utf8'), text, 'write it anew: CAIRN_WRITE_DOCS=1 npm test');
  const paths = Object.keys(document['paths'] as object);
  assert.ok(paths.includes('/jobs/{job}/checkpoints') && paths.length > 15);
});

test('the client speaks to the server over a socket that only its owner can use', async () => {
  await using node = await served();
  const { client } = node;
  assert.equal((await stat(node.socket)).mode & 0o777, 0o600);
  const job = await client.run(sleeper);
  assert.deepEqual(await client.jobs(), [job]);
  checkSchema(NodeInformation, await client.node());
  const progress: string[] = [];
  node.fake.script.checkpoint = async ({ onEvent }) => onEvent({ kind: 'warning', message: 'ä' });
  const result = await client.checkpoint(
    'sleeper',
    {},
    {
      onProgress: (line) => line.kind === 'warning' && progress.push(line.message),
    },
  );
  assert.deepEqual([result.sequence, progress], [1, ['ä']]);
  await assert.rejects(
    client.job('nobody'),
    (error) => error instanceof CairnError && error.code === 'job-unknown',
  );
  const texts: string[] = [];
  for await (const line of client.logs('sleeper', { tail: 1 })) texts.push(line.text);
  assert.deepEqual(texts, ['two']);
  await client.removeJob('sleeper', { force: true, snapshots: true });
});

test('followed logs go on until the job has ended for good', async () => {
  await using node = await served();
  const job = await node.client.run(sleeper);
  const texts: string[] = [];
  for await (const line of node.client.logs('sleeper', { follow: true })) {
    texts.push(line.text);
    if (texts.length === 2) node.fake.end(job.unit, { exitCode: 0 });
  }
  assert.deepEqual(texts, ['one', 'two', 'three']);
});

test('events arrive as they happen', async () => {
  await using node = await served();
  const seen: string[] = [];
  const stop = new AbortController();
  const watching = (async () => {
    for await (const event of node.client.events(stop.signal)) {
      seen.push(event.kind);
      if (event.kind === 'job-removed') return;
    }
  })();
  const ready = Date.now() + 5000;
  // The subscription exists once the head of the answer is there; events before that are not seen.
  while (seen.length === 0 && Date.now() < ready) {
    node.events.emit({ kind: 'node-warning', at: '2026-11-27T10:00:00Z', message: 'x' });
    await settle();
  }
  await node.client.run(sleeper);
  await node.client.removeJob('sleeper', { force: true, snapshots: true });
  await watching;
  assert.ok(seen.includes('job-changed') && seen.at(-1) === 'job-removed');
  stop.abort();
});

test('R21 a client that goes away breaks its operation off', async () => {
  await using node = await served();
  await node.client.run(sleeper);
  const begun = Promise.withResolvers<void>();
  node.fake.script.checkpoint = ({ signal }) => {
    begun.resolve();
    return new Promise((_, reject) =>
      signal.addEventListener('abort', () => reject(signal.reason), { once: true }),
    );
  };
  const stop = new AbortController();
  const operation = node.client.checkpoint('sleeper', {}, { onProgress: () => {}, signal: stop.signal });
  await begun.promise;
  stop.abort();
  await assert.rejects(operation);
  const deadline = Date.now() + 5000;
  while (node.jobs.get('sleeper').state.kind !== 'running' && Date.now() < deadline) await settle();
  assert.equal(node.jobs.get('sleeper').state.kind, 'running');
  assert.deepEqual(node.fake.headers, []);
});

test('attach and exec become streams of frames, ended by an exit frame', async () => {
  await using node = await served();
  await node.client.run(sleeper);
  for (const open of [
    () => node.client.attach('sleeper', { stdin: true, replay: false }),
    () => node.client.exec('sleeper', { command: ['cat'], stdin: true }),
  ]) {
    const stream = await open();
    const received: Record<number, string> = {};
    const decoder = new FrameDecoder();
    stream.write(encodeFrame(frameKind.resize, encodeSize({ columns: 80, rows: 24 })));
    stream.write(encodeFrame(frameKind.stdin, Buffer.from('hello')));
    stream.write(encodeFrame(frameKind.endOfInput));
    for await (const bytes of stream) {
      for (const { kind, payload } of decoder.push(bytes)) {
        if (kind === frameKind.exit) assert.deepEqual(readSessionEnd(payload), { exitCode: 3 });
        received[kind] = (received[kind] ?? '') + String(payload);
      }
    }
    assert.equal(received[frameKind.stdout], 'hello');
    assert.equal(received[frameKind.stderr], '80x24');
    assert.ok(received[frameKind.exit] !== undefined, 'an exit frame came');
  }
  const isRefused = (code: string) => (error: unknown) => error instanceof CairnError && error.code === code;
  await assert.rejects(node.client.attach('nobody', { stdin: true, replay: true }), isRefused('job-unknown'));
  await node.client.stop('sleeper', 0);
  await assert.rejects(node.client.exec('sleeper', { command: ['x'] }), isRefused('job-not-running'));
});

test('a stale socket is replaced, one that is answered is not', async () => {
  await using node = await served();
  const isRunning = (error: unknown): boolean => error instanceof CairnError && error.code === 'node-running';
  await using other = await rig();
  await assert.rejects(listenOnSocket(other.app, node.socket), isRunning);
  const stale = join(node.directory, 'stale.sock');
  const dead = createNetServer();
  await new Promise<void>((resolve) => dead.listen(stale, resolve));
  // Closing would remove the file; a process that is killed does not.
  dead.unref();
  await new Promise((resolve) => dead.close(resolve));
  await writeFile(stale, '');
  await listenOnSocket(other.app, stale);
  assert.equal((await stat(stale)).isSocket(), true);
});

test('without a daemon the client says how to start it', async () => {
  const client = new NodeClient('/nonexistent/cairn');
  await assert.rejects(
    client.jobs(),
    (error) =>
      error instanceof CairnError &&
      error.code === 'node-not-running' &&
      error.remedy?.includes('cairn node') === true,
  );
});
