/** Which pages a process has, against what CRIU itself says. Needs root and a CRIU (CAIRN_CRIU, or as `findCriu` finds it). */

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { dump, type Images } from '../criu/fake/complete-dump.ts';
import { criuOrSkip, mebibytes, SelfCheckingProgram } from '../criu/fake/self-checking-program.ts';
import { decodeMappings } from '../criu/messages.ts';
import { decodePagemap, pageFlags } from '../criu/pagemap.ts';
import { type PrivateMapping, privateMappings, withWholeMappings } from '../criu/saved-mappings.ts';
import { readStackPointers } from '../linux/process.ts';
import { canListPages, listPages, planMemory } from './memory-plan.ts';
import { pageSize, runFields } from './memory-segments.ts';

/** `address lazy` or `address present` of each page. */
function pagesOf(runs: Float64Array): string[] {
  const pages: string[] = [];
  for (let i = 0; i < runs.length; i += runFields)
    for (let page = 0; page < (runs[i + 1] as number); page++) {
      const address = (runs[i] as number) + page * pageSize;
      pages.push(`${address.toString(16)} ${(runs[i + 2] as number) & pageFlags.lazy ? 'lazy' : 'present'}`);
    }
  return pages;
}

function image(images: Images, name: string): Buffer {
  return images.get(name) ?? assert.fail(`there is no ${name}`);
}

/** CRIU, and a program that runs; `undefined` where something is missing, and the test is skipped. */
async function criuAndProgram(t: TestContext) {
  const criu = await criuOrSkip(t);
  if (criu === undefined) return undefined;
  if (!canListPages()) {
    t.skip('the kernel has no PAGEMAP_SCAN');
    return undefined;
  }
  const subject = new SelfCheckingProgram(t);
  await subject.ready();
  return { criu, subject };
}

test('R06 the pages that Cairn lists are those that CRIU lists, lazy where CRIU says so', async (t) => {
  const scene = await criuAndProgram(t);
  if (scene === undefined) return;
  const { criu, subject } = scene;
  await dump(t, criu, subject, {
    whileFrozen(images) {
      for (const pid of subject.tree) {
        const all = decodeMappings(image(images, `mm-${pid}.img`));
        const { runs } = decodePagemap(image(images, `pagemap-${pid}.img`));
        // What CRIU lists without asking the kernel it lists in any case.
        const vdso = all.filter(({ status }) => (status & 8) !== 0);
        const listed: number[] = [];
        for (let i = 0; i < runs.length; i += runFields)
          if (vdso.some(({ start }) => Number(start) === runs[i]))
            listed.push(...runs.subarray(i, i + runFields));
        assert.equal(listed.length, runFields);
        assertSamePages(pid, listBoth(pid, privateMappings(all), Float64Array.from(listed)), runs);
      }
    },
  });
  await subject.verify();
});

test('R06 what a CRIU with covers has not seen is put together as it would have been without', async (t) => {
  const scene = await criuAndProgram(t);
  if (scene === undefined) return;
  const { criu, subject } = scene;
  const [root = 0, child = 0] = subject.tree;
  const expected = new Map<number, { mappings: Buffer; runs: Float64Array }>();
  await dump(t, criu, subject, {
    whileFrozen(images) {
      for (const pid of subject.tree) {
        const { runs } = decodePagemap(image(images, `pagemap-${pid}.img`));
        expected.set(pid, { mappings: image(images, `mm-${pid}.img`), runs });
      }
    },
  });
  await dump(t, criu, subject, {
    // The second does not exist, which must not matter.
    covered: [child, 4_194_303],
    whileFrozen(images, shortened) {
      assert.deepEqual([...shortened.keys()], [child]);
      const seen = decodePagemap(image(images, `pagemap-${root}.img`));
      assert.ok(pagesOf(seen.runs).length > (mebibytes << 20) / pageSize, 'the other process has no cover');

      const cut = shortened.get(child) ?? [];
      const mappings = withWholeMappings(image(images, `mm-${child}.img`), cut);
      assert.deepEqual(mappings, new Uint8Array(expected.get(child)?.mappings ?? []));
      const { runs } = decodePagemap(image(images, `pagemap-${child}.img`));
      assert.ok(pagesOf(runs).length < (mebibytes << 20) / pageSize / 2, 'CRIU has seen little memory');
      const starts = new Set(cut.map(({ start }) => start));
      const hidden = privateMappings(decodeMappings(mappings)).filter(({ start }) => starts.has(start));
      assertSamePages(child, listBoth(child, hidden, runs), expected.get(child)?.runs ?? assert.fail());
    },
  });
  await subject.verify();
});

/** Lists pages with a plan and without, which must make no difference. */
function listBoth(pid: number, mappings: PrivateMapping[], listed: Float64Array): Float64Array {
  const plain = listPages(pid, mappings, undefined, listed);
  const plan = planMemory(pid, true);
  assert.ok(plain !== undefined && plan !== undefined && plan.ranges.length > 0);
  assert.ok(plain.pages > (mebibytes << 20) / pageSize);
  const planned = listPages(pid, mappings, { runs: plan.segments.runs, ranges: plan.ranges }, listed);
  assert.deepEqual(planned, plain);
  return plain.runs;
}

/** The same pages, and the same are lazy, but for those with stack pointers: CRIU leaves the first thread out of account. */
function assertSamePages(pid: number, ours: Float64Array, theirs: Float64Array): void {
  const our = pagesOf(ours);
  const their = pagesOf(theirs);
  const addresses = (pages: string[]) => pages.map((page) => page.split(' ')[0]);
  assert.deepEqual(addresses(our), addresses(their));
  const stacks = (readStackPointers(pid) ?? []).map(
    (pointer) => `${(pointer - (pointer % pageSize)).toString(16)} present`,
  );
  for (const [i, page] of our.entries()) if (page !== their[i]) assert.ok(stacks.includes(page), page);
}
