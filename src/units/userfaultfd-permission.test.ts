import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { permitUserfaultfd, settleUserfaultfd } from './userfaultfd-permission.ts';

function scratch(value: string) {
  const directory = mkdtempSync(path.join(tmpdir(), 'cairn-uffd-'));
  const places = { sysctl: path.join(directory, 'sysctl'), lock: path.join(directory, 'lock') };
  writeFileSync(places.sysctl, value);
  return {
    places,
    value: () => readFileSync(places.sysctl, 'utf8').trim(),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

test('the permission lasts as long as somebody needs it', () => {
  using host = scratch('0\n');
  {
    using _first = permitUserfaultfd(host.places);
    {
      using _second = permitUserfaultfd(host.places);
      settleUserfaultfd(host.places);
      assert.equal(host.value(), '1');
    }
    assert.equal(host.value(), '1');
  }
  assert.equal(host.value(), '0');
});

test('a host that permits it anyway is left as it is', () => {
  using host = scratch('1\n');
  {
    using _one = permitUserfaultfd(host.places);
  }
  settleUserfaultfd(host.places);
  assert.equal(host.value(), '1');
});

test('R19 what somebody who was killed has changed is set back', () => {
  using host = scratch('1\n');
  writeFileSync(host.places.lock, '0');
  settleUserfaultfd(host.places);
  assert.equal(host.value(), '0');
  settleUserfaultfd(host.places);
  assert.equal(readFileSync(host.places.lock, 'utf8'), '');
});
