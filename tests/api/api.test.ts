// The short form of `npm run test:api`: whatever openapi.json allows or forbids is asked, and every answer is described there.

import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { API_VARIABLES, ensureApiTester, testApi } from '../../scripts/test_api.ts';
import { startOnWorkerd, type WorkerdService } from '../hosts/workerd.ts';

const EXAMPLES = 10;

/** The same choices each time; `npm run test:api` makes new ones. */
const SEED = 1;

/** Fewer would be a tester that does not test. */
const CASES_MIN = 200;

let service: WorkerdService;
before(async () => {
  await ensureApiTester();
  service = await startOnWorkerd(API_VARIABLES);
});
after(() => service.close());

it('nothing but what is described is answered', async () => {
  const { ok, report, cases } = await testApi(service, EXAMPLES, SEED);
  assert.ok(ok, report);
  assert.ok(cases >= CASES_MIN, report);
});
