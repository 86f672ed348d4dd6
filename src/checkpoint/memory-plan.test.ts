/** Which pages a process has, against what CRIU itself says. Needs root and a CRIU (CAIRN_CRIU, or as `findCriu` finds it). */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dump, type Images } from '../criu/fake/complete-dump.ts';
import { criuOrSkip, mebibytes, SelfCheckingProgram } from '../criu/fake/self-checking-program.ts';
import { decodeMappings } from '../criu/messages.ts';
import { decodePagemap, pageFlags } from '../criu/pagemap.ts';
import { privateMappings, withGuards } from '../criu/saved-mappings.ts';
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

test('R06 the pages that Cairn lists are those that CRIU lists, lazy where CRIU says so', async (t) => {
  const criu = await criuOrSkip(t);
  if (criu === undefined) return;
  if (!canListPages()) return t.skip('the kernel has no PAGEMAP_SCAN');
  const subject = new SelfCheckingProgram(t);
  await subject.ready();
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
        const mappings = privateMappings(all);
        const plain = listPages(pid, mappings, undefined, Float64Array.from(listed));
        assert.ok(plain);
        const ours = pagesOf(plain.segments.runs);
        const theirs = pagesOf(runs);
        assert.deepEqual(
          ours.map((page) => page.split(' ')[0]),
          theirs.map((page) => page.split(' ')[0]),
        );
        // CRIU leaves the stack pointer of the first thread out of account.
        const differ = ours.filter((page, i) => page !== theirs[i]);
        assert.deepEqual(
          differ,
          (readStackPointers(pid) ?? [])
            .map((pointer) => `${(pointer - (pointer % pageSize)).toString(16)} present`)
            .filter((page) => differ.includes(page)),
        );
        assert.ok(plain.segments.pages > (mebibytes << 20) / pageSize);
        // The same with the help of a plan.
        const plan = planMemory(pid, true);
        assert.ok(plan !== undefined && plan.ranges.length > 0);
        const planned = listPages(
          pid,
          mappings,
          { runs: plan.segments.runs, ranges: plan.ranges },
          Float64Array.from(listed),
        );
        assert.deepEqual(planned, plain);
        assert.equal(withGuards(image(images, `mm-${pid}.img`), plain.guards), undefined);
      }
    },
  });
  await subject.verify();
});

test('R06 a CRIU that is not to see the pages of a process lists hardly any', async (t) => {
  const criu = await criuOrSkip(t);
  if (criu === undefined) return;
  const subject = new SelfCheckingProgram(t);
  await subject.ready();
  const [root = 0, child = 0] = subject.tree;
  const count = (images: Images, pid: number) =>
    pagesOf(decodePagemap(image(images, `pagemap-${pid}.img`)).runs).length;
  await dump(t, criu, subject, {
    // The second is not there, which must not matter.
    covered: [child, 4_194_303],
    whileFrozen(images) {
      assert.ok(count(images, child) <= 16, `${count(images, child)} pages of the covered process`);
      assert.ok(count(images, root) > (mebibytes << 20) / pageSize);
      assert.equal(
        decodeMappings(image(images, `mm-${child}.img`)).length,
        decodeMappings(image(images, `mm-${root}.img`)).length,
      );
    },
  });
  await subject.verify();
});
