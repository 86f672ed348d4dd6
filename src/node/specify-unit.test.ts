import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { specifyUnit } from './specify-unit.ts';

test('R22 a mount whose source does not exist is refused by name; a file or directory will do', async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-specify-'));
  t.after(() => rmSync(directory, { recursive: true }));
  writeFileSync(path.join(directory, 'file'), '');
  symlinkSync('nowhere', path.join(directory, 'dangling'));
  const specify = (source: string) => {
    const description = { command: ['/bin/true'], user: '0:0', mounts: [`${source}:/x:ro`] };
    return specifyUnit({ unit: 'u', name: 'job', description }, directory);
  };
  for (const source of [directory, path.join(directory, 'file')])
    assert.deepEqual((await specify(source)).mounts, [{ source, target: '/x', readonly: true }]);
  for (const name of ['missing', 'missing/deeper', 'file/below', 'dangling']) {
    const source = path.join(directory, name);
    await assert.rejects(specify(source), (error: { code: string; class: string; message: string }) => {
      assert.deepEqual([error.class, error.code], ['argument', 'mount-source-missing']);
      return error.message.includes(source) && error.message.includes('/x');
    });
  }
});
