import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { NodeFixture } from './support/node-fixture.ts';

// Whatever dies in the middle of a checkpoint or of a restart: the job runs on, or is exactly as before.

describe('faults', () => {
  let node: NodeFixture;
  before(async () => {
    node = await NodeFixture.start();
  });
  after(() => node?.[Symbol.asyncDispose]());

  it('R19 a daemon that is killed finds its jobs again', async () => {
    await node.run('counting', [], ['sh', '-c', 'i=0; while :; do echo $((i+=1)); sleep 0.1; done']);
    await node.waitOutput('counting', /^3$/);
    await node.endDaemon('SIGKILL');
    await node.startDaemon();
    assert.equal(await node.state('counting'), 'running');
    await node.remove('counting');
  });
});
