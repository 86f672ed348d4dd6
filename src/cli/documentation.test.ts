import assert from 'node:assert/strict';
import { glob, readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import test from 'node:test';
import { jobSchema } from '../jobs/job-schema.ts';
import { commandDocumentation } from './command-documentation.ts';
import { commands } from './commands.ts';
import { type DocumentedError, errorDocumentation, errorsIn } from './error-documentation.ts';

/** Compares a file of `docs` with what it is written from; writes it anew with CAIRN_WRITE_DOCS=1. */
async function compare(name: string, text: string): Promise<void> {
  const file = new URL(`../../docs/${name}`, import.meta.url);
  if (process.env['CAIRN_WRITE_DOCS'] === '1') await writeFile(file, text);
  const found = await readFile(file, 'utf8').catch(() => '');
  assert.equal(found, text, `docs/${name} is old; write it anew with CAIRN_WRITE_DOCS=1`);
}

test('docs/commands.md says what the commands say', async () => {
  await compare(
    'commands.md',
    commandDocumentation(await Promise.all(commands.map((command) => command.load()))),
  );
});

test('docs/job.schema.json is the schema of job files', async () => {
  await compare('job.schema.json', `${JSON.stringify(jobSchema(), null, 2)}\n`);
});

test('docs/errors.md lists every failure of the source', async () => {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const all: DocumentedError[] = [];
  for await (const path of glob('**/*.ts', { cwd: root })) {
    if (path.endsWith('.test.ts') || path.includes('fake-')) continue;
    all.push(...errorsIn(await readFile(`${root}/${path}`, 'utf8'), path));
  }
  assert.ok(all.length > 100, `found only ${all.length}`);
  for (const code of [
    'job-unknown',
    'job-name-invalid',
    'node-not-running',
    'not-root',
    'chunk-damaged',
    'store-full',
  ]) {
    assert.ok(
      all.some((error) => error.code === code),
      code,
    );
  }
  await compare('errors.md', errorDocumentation(all));
});

test('a failure is found in the source with its message', () => {
  const source =
    "throw new CairnError(\n 'argument',\n 'job-unknown',\n `There is no job \"${names.get(`x`)}\" \\`here\\`.`, {});";
  assert.deepEqual(
    errorsIn(
      "new CairnError('temporary', 'store-full', `no space in ${dir({ a: 1 })} now`, {})",
      'store/x.ts',
    ),
    [{ code: 'store-full', class: 'temporary', room: 'store', message: 'no space in … now' }],
  );
  assert.equal(errorsIn(source, 'jobs/x.ts')[0]?.code, 'job-unknown');
});
