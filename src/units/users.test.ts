import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lookUpUser } from './users.ts';

const passwd = 'root:x:0:0:root:/root:/bin/sh\npostgres:x:105:110:DB:/var/lib/postgresql:/bin/bash\n';
const group = 'root:x:0:\nssl:x:103:postgres,other\ndb:x:110:postgres\nwww:x:33:\n';
const look = (text: string) => lookUpUser(passwd, group, text);

test('users are found by name and number, with group, home and further groups', () => {
  assert.deepEqual(look('postgres'), {
    user: { uid: 105, gid: 110, additionalGids: [103] },
    home: '/var/lib/postgresql',
    name: 'postgres',
  });
  assert.deepEqual(look('105').user, { uid: 105, gid: 110, additionalGids: [103] });
  assert.deepEqual(look('postgres:www').user, { uid: 105, gid: 33, additionalGids: [] });
  assert.deepEqual(look('1000:1000'), {
    user: { uid: 1000, gid: 1000, additionalGids: [] },
    home: '/',
    name: undefined,
  });
  assert.deepEqual(look('1000').user, { uid: 1000, gid: 0, additionalGids: [] });
});

test('unknown and malformed users are refused by name', () => {
  for (const bad of [
    'nobody',
    'postgres:nogroup',
    '',
    ':',
    'a:b:c',
    'root:',
    '4294967295',
    '-1',
    '99999999999',
  ]) {
    assert.throws(() => look(bad), { class: 'argument', code: 'user-unknown' }, bad);
  }
});
