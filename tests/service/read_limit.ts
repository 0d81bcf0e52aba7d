// The policy `reads`: GET, DELETE and `/events` of a user, limited in the memory of the isolate.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { type Answer, create, expectProblem, sendRequest, signIn, started, type StartService } from './service.ts';

const QUOTA = 6;
/** Longer than the requests of a test take. */
const WINDOW_S = 5;

export function tests(start: StartService): void {
  const service = started(start, { RATE_LIMIT_READS: `${QUOTA}/${WINDOW_S}` });

  /** Expects a complete 429. Returns Retry-After in seconds. */
  function expectLimited(answer: Answer): number {
    const problem = expectProblem(answer, 429, 'rate_limited');
    assert.equal(problem.type, 'https://iana.org/assignments/http-problem-types#quota-exceeded');
    assert.deepEqual(problem['violated-policies'], ['reads']);
    for (const field of ['ratelimit', 'ratelimit-policy']) assert.equal(answer.headers.get(field), null);
    const retryAfter = answer.headers.get('retry-after') ?? '';
    assert.match(retryAfter, /^[1-9]\d*$/);
    return Number(retryAfter);
  }

  it('reads admits its quota; a refusal sends no database request', async () => {
    const { gateway } = service().world;
    const user = await signIn(service());
    const { body } = await create(service(), user.token);
    const kinds: [method: string, path: string, status: number][] = [
      ['GET', '/ai-sessions', 200],
      ['GET', `/ai-sessions/${body.id}`, 200],
      ['GET', `/ai-sessions/${body.id}/events`, 200],
      ['DELETE', `/ai-sessions/${body.id}`, 409],
    ];
    for (let n = 0; n < QUOTA; n += 1) {
      const [method, path, status] = kinds[n % kinds.length]!;
      const answer = await sendRequest(service(), method, path, { token: user.token });
      assert.equal(answer.status, status, answer.text);
    }
    gateway.requests.clear();
    let wait_s = 0;
    for (const [method, path] of kinds) wait_s = expectLimited(await sendRequest(service(), method, path, { token: user.token }));
    assert.equal(gateway.requests.total, 0);
    assert.equal((await create(service(), user.token)).status, 201, 'a POST is no read');
    // This test is about the time itself.
    await pause(wait_s * 1000);
    assert.equal((await sendRequest(service(), 'GET', '/ai-sessions', { token: user.token })).status, 200);
  });

  it('the reads of one user do not affect another', async () => {
    const [first, second] = [await signIn(service()), await signIn(service())];
    for (let n = 0; n < QUOTA; n += 1) await sendRequest(service(), 'GET', '/ai-sessions', { token: first.token });
    expectLimited(await sendRequest(service(), 'GET', '/ai-sessions', { token: first.token }));
    assert.equal((await sendRequest(service(), 'GET', '/ai-sessions', { token: second.token })).status, 200);
  });

  it('requests without a user are not counted', async () => {
    for (let n = 0; n < 2 * QUOTA; n += 1) assert.equal((await sendRequest(service(), 'GET', '/models')).status, 200);
  });
}
