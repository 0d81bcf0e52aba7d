// A short `npm run test:api`: sends requests that openapi.json allows or forbids; every response must be described there.

import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { API_VARIABLES, ensureApiTester, testApi } from '../../scripts/test_api.ts';
import { startOnWorkerd, type WorkerdService } from '../hosts/workerd.ts';

const EXAMPLES = 10;

/** The same choices each time; `npm run test:api` makes new ones. */
const SEED = 1;

/** Fewer cases would mean that the tester does not test. */
const CASES_MIN = 200;

let service: WorkerdService;
before(async () => {
  await ensureApiTester();
  service = await startOnWorkerd(API_VARIABLES);
});
after(() => service.close());

it('every response to generated requests is described', async () => {
  const { ok, report, cases } = await testApi(service, EXAMPLES, SEED);
  assert.ok(ok, report);
  assert.ok(cases >= CASES_MIN, report);
});
