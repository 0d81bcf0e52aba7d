// The policy `attempts`: every model call counts, retries included, and none is refunded. It bounds what a user can spend with
// generations that fail or are stopped, which are refunded in `generations`.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createGate } from '../support/gate.ts';
import { content, gated, httpError } from '../support/model_behaviour.ts';
import { type Answer, create, expectProblem, lesson, remainingOfAll, rowsOf, sendRequest, signIn, started, type StartService } from './service.ts';

const PLENTY = { RATE_LIMIT_BURST: '100/60', AI_MAX_ATTEMPTS: '3' };

/** Expects a refusal by `attempts` alone. Returns Retry-After in seconds. */
function expectLimited(answer: Answer): number {
  const problem = expectProblem(answer, 429, 'rate_limited');
  assert.deepEqual(problem['violated-policies'], ['attempts']);
  assert.equal(remainingOfAll(answer)['attempts'], 0);
  assert.equal(remainingOfAll(answer)['generations'], 50);
  return Number(answer.headers.get('retry-after'));
}

export function tests(start: StartService): void {
  describe('seven model calls in an hour', () => {
    const service = started(start, { ...PLENTY, RATE_LIMIT_ATTEMPTS: '7/3600' });

    it('a user whose texts give no candidate causes seven calls and no more', async () => {
      const { openrouter } = service().world;
      const user = await signIn(service());
      openrouter.reset();
      openrouter.always(content('I have no cards today.'));
      for (const left of [4, 1, 0]) {
        const failed = await create(service(), user.token);
        expectProblem(failed, 500, 'ai_invalid_response');
        assert.deepEqual(remainingOfAll(failed)['attempts'], left);
        assert.deepEqual(remainingOfAll(failed)['generations'], 50, 'the generation is refunded');
      }
      assert.equal(openrouter.requests.total, 7, 'a retry that is forbidden is not made');
      for (let n = 0; n < 7; n += 1) {
        const retryAfter_s = expectLimited(await create(service(), user.token));
        assert.ok(retryAfter_s > 3500 && retryAfter_s <= 3637, `Retry-After: ${retryAfter_s}`);
      }
      assert.equal(openrouter.requests.total, 7);
      openrouter.reset();
      const { events } = await rowsOf(service(), user);
      const failures = events.filter(({ type }) => type === 'ai_session.failed');
      assert.deepEqual(failures.map(({ data }) => [data.code, data.attempts]), [3, 3, 1].map((calls) => ['ai_invalid_response', calls]));
    });

    it('a user who starts and stops generations causes seven calls and no more', async () => {
      const { openrouter } = service().world;
      const gate = createGate();
      const user = await signIn(service());
      openrouter.reset();
      openrouter.always(gated(gate));
      for (let n = 0; n < 7; n += 1) {
        const accepted = await create(service(), user.token, undefined, { prefer: 'respond-async' });
        assert.equal(accepted.status, 202, accepted.text);
        assert.equal(remainingOfAll(accepted)['attempts'], 6 - n);
        await openrouter.arrived(n + 1);
        const stopped = await sendRequest(service(), 'DELETE', `/ai-sessions/${accepted.body.id}`, { token: user.token });
        assert.equal(stopped.status, 204);
      }
      expectLimited(await create(service(), user.token, undefined, { prefer: 'respond-async' }));
      gate.open();
      assert.equal(openrouter.requests.total, 7);
      openrouter.reset();
    });

    it('a retry that is stopped in its backoff is not counted', async () => {
      const { openrouter } = service().world;
      const user = await signIn(service());
      openrouter.reset();
      openrouter.always(httpError(503, { retry_after_s: 20 }));
      const accepted = await create(service(), user.token, undefined, { prefer: 'respond-async' });
      await (await openrouter.arrived(1)).over;
      await pause(300); // time for the service to read the failure, which cannot be observed
      assert.equal((await sendRequest(service(), 'DELETE', `/ai-sessions/${accepted.body.id}`, { token: user.token })).status, 204);
      assert.equal(remainingOfAll(await create(service(), user.token, '{'))['attempts'], 6);
      assert.equal(openrouter.requests.total, 1);
      openrouter.reset();
      const { events } = await rowsOf(service(), user);
      assert.deepEqual(events.map(({ data }) => [data.code, data.attempts]), [['cancelled', 1]]);
    });

    it('a stopped generation makes no further model call', async () => {
      const { openrouter } = service().world;
      for (let n = 0; n < 6; n += 1) {
        const user = await signIn(service());
        const gate = createGate();
        openrouter.reset();
        openrouter.always(gated(gate, httpError(503)));
        const accepted = await create(service(), user.token, undefined, { prefer: 'respond-async' });
        await openrouter.arrived(1);
        const stopping = sendRequest(service(), 'DELETE', `/ai-sessions/${accepted.body.id}`, { token: user.token });
        await pause(50); // time for the request to reach the object
        gate.open();
        assert.equal((await stopping).status, 204);
        assert.equal(openrouter.requests.total, 1);
        assert.equal(remainingOfAll(await create(service(), user.token, '{'))['attempts'], 6);
        const { sessions } = await rowsOf(service(), user);
        assert.deepEqual(sessions.map(({ error_code }) => error_code), ['cancelled']);
      }
      openrouter.reset();
    });

    it('both RateLimit fields of a POST response contain attempts', async () => {
      const user = await signIn(service());
      const refused = await create(service(), user.token, '{');
      assert.equal(refused.headers.get('ratelimit-policy'), '"burst";q=100;w=60, "generations";q=50;w=86400, "attempts";q=7;w=3600');
      assert.match(refused.headers.get('ratelimit') ?? '', /^"burst";r=99;t=\d+, "generations";r=50, "attempts";r=7$/);
      const created = await create(service(), user.token);
      assert.match(created.headers.get('ratelimit') ?? '', /^"burst";r=98;t=\d+, "generations";r=49;t=\d+, "attempts";r=6;t=\d+$/);
    });

    it('a repeated key that joins or replays causes no call and counts none', async () => {
      const user = await signIn(service());
      const keyed = { 'idempotency-key': 'k' };
      const body = { input_text: lesson(), model: 'test/first' };
      for (let n = 0; n < 3; n += 1) {
        const answered = await create(service(), user.token, body, keyed);
        assert.equal(answered.status, 201, answered.text);
        assert.equal(remainingOfAll(answered)['attempts'], 6);
      }
    });
  });

  describe('a retry beyond the last call of the window', () => {
    const service = started(start, { ...PLENTY, RATE_LIMIT_ATTEMPTS: '2/3600' });

    it('a retry beyond the limit ends the generation with its failure', async () => {
      const { openrouter } = service().world;
      const user = await signIn(service());
      openrouter.reset();
      openrouter.next(httpError(503), 2);
      const failed = await create(service(), user.token);
      assert.equal(expectProblem(failed, 500, 'ai_unavailable').retryable, true);
      assert.equal(openrouter.requests.total, 2);
    });
  });

  describe('two model calls in a second', () => {
    const service = started(start, { ...PLENTY, RATE_LIMIT_ATTEMPTS: '2/1' });

    it('a client that waits Retry-After is admitted', async () => {
      const user = await signIn(service());
      for (let round = 0; round < 2; round += 1) {
        let answer = await create(service(), user.token);
        while (answer.status === 201) answer = await create(service(), user.token);
        const problem = expectProblem(answer, 429, 'rate_limited');
        assert.deepEqual(problem['violated-policies'], ['attempts']);
        // This test is about the time itself.
        await pause(Number(answer.headers.get('retry-after')) * 1000);
        assert.equal((await create(service(), user.token)).status, 201);
      }
    });
  });
}
