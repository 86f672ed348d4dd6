import assert from 'node:assert/strict';
import { test } from 'node:test';
import { atLeast, compareVersions, parseVersion } from './version.ts';

test('the first dotted number of a text is its version', () => {
  assert.equal(parseVersion('Version: 4.2.1\nGitID: v4.2.1-3'), '4.2.1');
  assert.equal(parseVersion('runc version 1.3.6+ds1\nspec: 1.2.1'), '1.3.6');
  assert.equal(parseVersion('no version'), undefined);
});

test('versions are ordered by number, not by text', () => {
  assert.ok(compareVersions('4.10', '4.9.9') > 0);
  assert.equal(compareVersions('4.2', '4.2.0'), 0);
  assert.ok(atLeast('6.18.44-custom', '6.16'));
  assert.ok(!atLeast('6.8.0-45-generic', '6.13'));
  assert.throws(() => atLeast('newest', '1.0'), RangeError);
});
