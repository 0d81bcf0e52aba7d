// A short `npm run fuzz`: finds faults near the seeds, and checks that every target runs.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { before, it } from 'node:test';
import { buildFuzzTargets, fuzz, fuzzTargets } from '../../scripts/fuzz.ts';

const SECONDS = 5;

/** Even a slow machine runs more inputs in a second; fewer would mean that the target does not run. */
const INPUTS_MIN = 500;

before(buildFuzzTargets);

it('every target has seeds', () => {
  assert.deepEqual(fuzzTargets, ['body', 'candidate_reader', 'citation', 'event_stream', 'token']);
  assert.deepEqual(readdirSync(new URL('../../fuzz/seeds/', import.meta.url)).sort(), fuzzTargets);
});

for (const target of fuzzTargets) {
  it(`the target ${target} finds nothing in ${SECONDS} s`, async () => {
    const { inputs, found, report } = await fuzz(target, SECONDS);
    assert.ok(!found, report);
    assert.ok(inputs >= INPUTS_MIN, `${inputs} inputs\n${report}`);
  });
}
