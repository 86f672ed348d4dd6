import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import type { Check } from '../node/doctor.ts';
import { renderDiagnosis } from './doctor.ts';

const checks: Check[] = [
  { name: 'kernel', status: 'ok', finding: '6.18.44' },
  { name: 'feature-timens', status: 'ok', finding: 'monotonic clocks' },
  {
    name: 'criu',
    status: 'fail',
    finding: 'not there\nsecond line',
    why: 'it is needed',
    remedy: 'sudo npm run setup',
  },
];

function render(usable: boolean, list: Check[], verbose = false): string {
  return stripVTControlCharacters(renderDiagnosis({ usable, checks: list }, verbose));
}

test('R24 each check is a line; what is wrong has its reason and the command that mends it below', () => {
  assert.equal(
    render(false, checks),
    `ok       kernel  6.18.44
fail     criu    not there
                 second line
                 it is needed
                 → sudo npm run setup
ok       1 kernel feature that CRIU uses (--verbose shows them)

Jobs cannot be checkpointed on this host: 1 check failed.
`,
  );
});

test('features that are there are shown on request only', () => {
  assert.match(render(false, checks, true), /feature-timens +monotonic clocks/);
  assert.doesNotMatch(render(false, checks, true), /--verbose/);
});

test('the verdict tells usable hosts from those that could not be tested', () => {
  assert.match(
    render(true, checks.slice(0, 1)),
    /\n\nJobs can be checkpointed and restarted on this host\.\n$/,
  );
  const unknown: Check = { name: 'root', status: 'unknown', finding: 'not root' };
  assert.match(render(false, [unknown]), /\n\nNot everything could be tested; run it as root/);
});
