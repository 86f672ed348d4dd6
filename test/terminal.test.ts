import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { NodeFixture } from './support/node-fixture.ts';
import { projectRoot } from './support/probe-programs.ts';
import { Tmux } from './support/tmux.ts';

describe('terminals', () => {
  let node: NodeFixture;
  before(async () => {
    node = await NodeFixture.start();
  });
  after(() => node?.[Symbol.asyncDispose]());

  it('R15 an interactive bash is checkpointed, restarted and attached from another terminal, twice', async () => {
    await using first = await Tmux.start(
      `env CAIRN_RUN=${node.runDirectory} ${projectRoot}/cairn run -it --name shell -- /bin/bash --norc`,
      100,
      30,
    );
    await first.type('PS1="prompt\\$ "; cd /usr; stty size; x=kept\n');
    await first.waits(/30 100/);
    // A job stopped by control-Z, one in the background.
    await first.type('sleep 1000\n');
    await delay(200);
    await first.key('C-z');
    await first.waits(/Stopped/);
    await first.type('sleep 2000 &\n');
    await first.waits(/\[2\] \d+/);
    for (let generation = 0; generation < 2; generation++) {
      await node.checkpoint('shell');
      await node.crash('shell');
      await node.restart('shell');
      await using other = await Tmux.start(
        `env CAIRN_RUN=${node.runDirectory} ${projectRoot}/cairn attach shell`,
        120,
        40,
      );
      await other.type(`\necho "$x in $PWD, round ${generation}"; stty size; jobs\n`);
      await other.waits(new RegExp(`kept in /usr, round ${generation}`));
      await other.waits(/40 120/);
      await other.waits(/Stopped\s+sleep 1000/);
      await other.waits(/Running\s+sleep 2000/);
      // Control-C reaches the foreground job of the restored session.
      await other.type('fg %2\n');
      await delay(200);
      await other.key('C-c');
      await other.type(`echo interrupted-${generation}\n`);
      await other.waits(new RegExp(`^interrupted-${generation}`, 'm'));
      await other.type('sleep 2000 &\n');
      // Leaves the terminal, not the shell.
      await other.key('C-p');
      await other.key('C-q');
      await other.ends();
      assert.equal(await node.state('shell'), 'running');
    }
    await node.remove('shell');
  });
});
