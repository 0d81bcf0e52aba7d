// A short `npm run load`: nothing unexpected, and responses, rows, model calls and charges add up.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { printed } from '../load/figures.ts';
import { CONCURRENCY, type LoadedHost, type Outcome, runLoad } from '../load/run.ts';
import type { Service } from '../service/service.ts';
import { seedFrom } from '../support/seeded_random.ts';

const REQUESTS = 300;
const seed = seedFrom('LOAD_SEED');

/** The tests, on any host. */
export function shortLoad<S extends Service>(host: LoadedHost<S>): void {
  describe(`${REQUESTS} requests, ${CONCURRENCY} at a time (LOAD_SEED=${seed})`, () => {
    let service: S;
    let outcome: Outcome;
    before(async () => {
      service = await host.start();
      outcome = await runLoad(host, service, { requests: REQUESTS, seed });
      console.log(printed(outcome));
    });
    after(() => service.close());

    it('all responses are expected ones and add up', () => {
      assert.deepEqual(outcome.wrong, []);
      assert.equal(outcome.answered.length, REQUESTS);
    });

    it('the requests include successes, errors and refusals', () => {
      const statuses = new Set(outcome.answered.map(({ answer }) => answer.status));
      assert.deepEqual([200, 201, 400, 401, 404, 429, 500].filter((status) => !statuses.has(status)), []);
    });
  });
}
