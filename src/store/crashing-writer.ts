/**
 * Program for `crash.test.ts`: opens the store that its first argument describes, does what the second says, and kills itself
 * when it comes to the step that the third names, the fourth-th time.
 */

import { randomBytes } from 'node:crypto';
import { ChunkListBuilder } from './chunk-list.ts';
import { ChunkWriter } from './chunk-writer.ts';
import { takeSnapshot, testJob } from './scratch-store.ts';
import { Store } from './store.ts';

const [options = '', action = '', fatalStep = '', occurrence = '1'] = process.argv.slice(2);
let rest = Number(occurrence);

function onStep(step: string): void {
  if (step === fatalStep && --rest === 0) process.kill(process.pid, 'SIGKILL');
}

await using store = await Store.open({ ...JSON.parse(options), onStep });
if (action === 'sweep') await store.sweep();
if (action === 'publish') await takeSnapshot(store, { noise: randomBytes(300_000) });
if (action === 'write') {
  const writer = store.begin(testJob, await store.nextSequence(testJob));
  const chunks = new ChunkWriter(writer.writerEnvironment());
  chunks.write(randomBytes(65536), new ChunkListBuilder());
  chunks.flush();
  onStep('unsealed');
  writer.collect(chunks.seal());
  onStep('sealed');
}
