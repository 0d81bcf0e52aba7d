// The short form of `npm run fuzz`: enough to find what is near the seeds, and to see that every target still runs.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { before, it } from 'node:test';
import { buildFuzzTargets, fuzz, fuzzTargets } from '../../scripts/fuzz.ts';

const SECONDS = 5;

/** Even a slow machine tries more than that in a second; fewer would be a target that does not run. */
const INPUTS_MIN = 500;

before(buildFuzzTargets);

it('every target has seeds, and there are those for a body, a token, a stream and a content', () => {
  assert.deepEqual(fuzzTargets, ['body', 'candidate_reader', 'event_stream', 'token']);
  assert.deepEqual(readdirSync(new URL('../../fuzz/seeds/', import.meta.url)).sort(), fuzzTargets);
});

for (const target of fuzzTargets) {
  it(`${target}: nothing is found in ${SECONDS} s`, async () => {
    const { inputs, found, report } = await fuzz(target, SECONDS);
    assert.ok(!found, report);
    assert.ok(inputs >= INPUTS_MIN, `${inputs} inputs\n${report}`);
  });
}
