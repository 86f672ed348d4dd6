import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { exitCodes } from '../src/errors.ts';
import { NodeFixture } from './support/node-fixture.ts';

// What a user, a disk or a host can get wrong: each is refused by name, with the class of error that says what to do.

describe('bad input', () => {
  let node: NodeFixture;
  before(async () => {
    node = await NodeFixture.start();
  });
  after(() => node?.[Symbol.asyncDispose]());

  it('R22 an unknown job is an error of the argument', async () => {
    for (const command of ['checkpoint', 'restart', 'inspect', 'logs', 'stop', 'rm']) {
      const error = await node.fails([command, 'no-such-job']);
      assert.equal(error.class, 'argument', command);
      assert.equal(error.exitCode, exitCodes.argument, command);
      assert.match(error.message, /no-such-job/);
    }
  });
});
