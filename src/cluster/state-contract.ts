import assert from 'node:assert/strict';
import test from 'node:test';
import type { State, StateChange } from './state.ts';

/** A state to test, with everything around it that has to go afterwards. */
export interface StateFixture extends AsyncDisposable {
  state: State;
}

/** The contract of `State` as tests; every implementation runs them. */
export function testStateContract(name: string, open: () => Promise<StateFixture>): void {
  test(`${name}: an entry that was put is found, with a growing revision`, async () => {
    await using fixture = await open();
    const { state } = fixture;
    assert.equal(await state.get('a'), undefined);
    const first = await state.put('a', { text: 'ä', list: [1, null, true] });
    assert.ok(first > 0);
    assert.deepEqual(await state.get('a'), {
      key: 'a',
      value: { text: 'ä', list: [1, null, true] },
      revision: first,
    });
    const second = await state.put('a', 2);
    assert.ok(second > first);
    assert.deepEqual(await state.get('a'), { key: 'a', value: 2, revision: second });
  });

  test(`${name}: a list has the keys of the prefix only, in order`, async () => {
    await using fixture = await open();
    const { state } = fixture;
    for (const key of ['jobs/b', 'jobs/a', 'job', 'jobs%', 'jobs0', 'nodes/a']) await state.put(key, key);
    assert.deepEqual(
      (await state.list('jobs/')).map((entry) => entry.key),
      ['jobs/a', 'jobs/b'],
    );
    assert.equal((await state.list('')).length, 6);
  });

  test(`${name}: compare-and-swap changes only the revision that it expects`, async () => {
    await using fixture = await open();
    const { state } = fixture;
    const first = await state.compareAndSwap('a', 0, 1);
    assert.ok(first !== undefined && first > 0);
    assert.equal(await state.compareAndSwap('a', 0, 2), undefined);
    const second = await state.compareAndSwap('a', first, 2);
    assert.ok(second !== undefined && second > first);
    assert.equal(await state.compareAndSwap('a', first, 3), undefined);
    assert.equal((await state.get('a'))?.value, 2);
    assert.ok((await state.compareAndSwap('a', second, undefined)) !== undefined);
    assert.equal(await state.get('a'), undefined);
    assert.equal(await state.compareAndSwap('a', second, 4), undefined);
  });

  test(`${name}: delete says whether there was an entry`, async () => {
    await using fixture = await open();
    const { state } = fixture;
    await state.put('a', 1);
    assert.equal(await state.delete('a'), true);
    assert.equal(await state.delete('a'), false);
    assert.equal(await state.get('a'), undefined);
  });

  test(`${name}: a watcher sees every change of its prefix once, in order`, async () => {
    await using fixture = await open();
    const { state } = fixture;
    const controller = new AbortController();
    await state.put('jobs/before', 0);
    const changes = state.watch('jobs/', { signal: controller.signal });
    await state.put('jobs/a', 1);
    await state.put('nodes/a', 1);
    await state.put('jobs/a', 2);
    await state.delete('jobs/a');
    const seen: StateChange[] = [];
    for await (const change of changes) {
      seen.push(change);
      if (seen.length === 3) controller.abort();
    }
    assert.deepEqual(
      seen.map(({ key, value }) => [key, value]),
      [
        ['jobs/a', 1],
        ['jobs/a', 2],
        ['jobs/a', undefined],
      ],
    );
    assert.ok((seen[0]?.revision ?? 0) < (seen[1]?.revision ?? 0));
    assert.ok((seen[1]?.revision ?? 0) < (seen[2]?.revision ?? 0));
  });

  test(`${name}: a watcher whose signal is aborted ends`, async () => {
    await using fixture = await open();
    const changes = fixture.state.watch('', { signal: AbortSignal.abort() });
    for await (const change of changes) assert.fail(`saw ${change.key}`);
  });
}
