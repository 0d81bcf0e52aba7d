// The policy `spend`: the most that a model call can cost is reserved before it, and replaced by the reported cost at the end. The
// sum is never above the limit.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createGate } from '../support/gate.ts';
import { answer, gated, httpError } from '../support/model_behaviour.ts';
import { type Answer, create, eventually, expectProblem, read, remainingOfAll, rowsOf, signIn, started, type StartService, textOf } from './service.ts';

const PRICE = { AI_MAX_PRICE: '1/5' };
const PLENTY = { ...PRICE, RATE_LIMIT_BURST: '1000/60', RATE_LIMIT_CONCURRENT: '10' };

/** The reservation of a call for a text of so many bytes, in dollars: its bytes, an eighth more and 6000 tokens in, 9000 out. */
const reservation = (bytes: number) => (6000 + bytes + Math.floor(bytes / 8) + 9000 * 5) / 1e6;

/** Three calls for a text of 2000 bytes, to the last nanodollar. */
const LIMIT = 0.15975;

/** What remains of a limit after a cost, which is rounded up to a nanodollar. */
const rest = (limit: number, cost: number) => String((Math.round(limit * 1e9) - Math.ceil(cost * 1e9)) / 1e9);

/** An ASCII text of so many bytes. */
const body = (bytes: number) => ({ input_text: textOf(bytes), model: 'test/first' });

/** Expects a refusal by `spend` alone. Returns its member `spend`. */
function expectLimited(refused: Answer): { limit: string; remaining: string; window_s: number } {
  const problem = expectProblem(refused, 429, 'rate_limited');
  assert.deepEqual(problem['violated-policies'], ['spend']);
  return problem.spend;
}

export function tests(start: StartService): void {
  describe('a limit of three reservations in an hour', () => {
    const service = started(start, { ...PLENTY, RATE_LIMIT_SPEND: `${LIMIT}/3600` });

    it('three concurrent generations reserve the limit, and not a byte more', async () => {
      const { openrouter } = service().world;
      const user = await signIn(service());
      const later = { prefer: 'respond-async' };
      const gate = createGate();
      openrouter.reset();
      openrouter.always(gated(gate, answer({ cost: 0.001 })));
      for (let n = 0; n < 2; n += 1) assert.equal((await create(service(), user.token, body(2000), later)).status, 202);
      const { limit, remaining, window_s } = expectLimited(await create(service(), user.token, body(2001), later));
      assert.deepEqual([Number(limit), Number(remaining), window_s], [LIMIT, reservation(2000), 3600]);
      const third = await create(service(), user.token, body(2000), later);
      assert.equal(third.status, 202, third.text);
      const refused = await Promise.all(Array.from({ length: 5 }, () => create(service(), user.token, body(1000), later)));
      for (const each of refused) assert.equal(expectLimited(each).remaining, '0');
      await openrouter.arrived(3);
      gate.open();
      // What they have not spent is available again, once the database has the end of the generations.
      await eventually('the reservations are replaced', async () =>
        remainingOfAll(await create(service(), user.token, '{'))['spend'] === 1 || undefined);
      assert.equal((await create(service(), user.token, body(2000))).status, 201);
      assert.equal(openrouter.requests.total, 4);
      openrouter.reset();
      await eventually('the limit is in the event log', async () =>
        (await rowsOf(service(), user)).events.some(({ type, data }) => type === 'ai_session.rate_limited' && data.policy === 'spend') || undefined);
    });

    it('the model API gets the highest price and the most tokens', async () => {
      const { openrouter } = service().world;
      openrouter.reset();
      await create(service(), (await signIn(service())).token);
      const { provider, max_tokens } = (await openrouter.arrived(1)).body as unknown as { provider: { max_price: unknown }; max_tokens: number };
      assert.deepEqual([provider.max_price, max_tokens], [{ prompt: 1, completion: 5, request: 0 }, 9000]);
    });

    it('both RateLimit fields count generations of the largest cost', async () => {
      const { openrouter } = service().world;
      const user = await signIn(service());
      openrouter.reset();
      const unused = await create(service(), user.token, '{');
      // The longest text costs 0.096 dollars.
      assert.match(unused.headers.get('ratelimit-policy') ?? '', /, "attempts";q=150;w=86400, "spend";q=1;w=3600$/);
      assert.match(unused.headers.get('ratelimit') ?? '', /, "attempts";r=150, "spend";r=1$/);
      openrouter.next(answer({ cost: LIMIT - 0.09 }));
      const spent = await create(service(), user.token, body(1000));
      assert.match(spent.headers.get('ratelimit') ?? '', /, "spend";r=0;t=\d+$/);
      assert.equal((await create(service(), user.token, body(1000))).status, 201, 'a shorter text costs less');
    });

    it('failures and answers without a cost keep their reservations', async () => {
      const { openrouter } = service().world;
      const user = await signIn(service());
      openrouter.reset();
      openrouter.next(answer({ cost: null }));
      openrouter.next(httpError(503), 2);
      assert.equal((await create(service(), user.token, body(2000))).status, 201);
      const failed = await create(service(), user.token, body(2000));
      expectProblem(failed, 500, 'ai_unavailable');
      assert.equal(remainingOfAll(failed)['generations'], 49, 'the generation is refunded');
      assert.equal(remainingOfAll(failed)['attempts'], 147);
      assert.equal(openrouter.requests.total, 3, 'the retry over the limit is not made');
      assert.equal(expectLimited(await create(service(), user.token, body(2000))).remaining, '0');
      openrouter.reset();
    });

    it('a cost above the reservation is counted as reported', async () => {
      const { openrouter } = service().world;
      const user = await signIn(service());
      openrouter.reset();
      openrouter.next(answer({ cost: LIMIT + 1 }));
      assert.equal((await create(service(), user.token, body(2000))).status, 201);
      assert.equal(expectLimited(await create(service(), user.token, body(1000))).remaining, '0');
    });

    it('a repeated key and a read reserve nothing', async () => {
      const { openrouter } = service().world;
      const user = await signIn(service());
      openrouter.reset();
      openrouter.next(answer({ cost: LIMIT - reservation(2000) - 1e-6 }));
      for (let n = 0; n < 5; n += 1) {
        const created = await create(service(), user.token, body(2000), { 'idempotency-key': 'k' });
        assert.equal(created.status, 201, created.text);
        assert.equal((await read(service(), user.token, created.body.id)).status, 200);
      }
      assert.equal((await create(service(), user.token, body(2000))).status, 201);
      assert.equal(openrouter.requests.total, 2);
    });

    it('the amounts survive a restart', async () => {
      const { openrouter } = service().world;
      const user = await signIn(service());
      openrouter.reset();
      openrouter.next(answer({ cost: 0.149 }));
      assert.equal((await create(service(), user.token, body(1000))).status, 201);
      await service().restart();
      assert.equal(expectLimited(await create(service(), user.token, body(1000))).remaining, rest(LIMIT, 0.149));
    });
  });

  describe('a limit in two seconds', () => {
    const service = started(start, { ...PLENTY, RATE_LIMIT_SPEND: '0.1/2' });

    it('a client that waits Retry-After is admitted', async () => {
      const { openrouter } = service().world;
      const user = await signIn(service());
      openrouter.reset();
      openrouter.always(answer({ cost: 0.09 }));
      for (let round = 0; round < 2; round += 1) {
        const created = await create(service(), user.token, body(1000));
        assert.equal(created.status, 201, created.text);
        const refused = await create(service(), user.token, body(1000));
        assert.equal(expectLimited(refused).remaining, rest(0.1, 0.09));
        const retryAfter_s = Number(refused.headers.get('retry-after'));
        assert.ok(retryAfter_s >= 1 && retryAfter_s <= 3, `Retry-After: ${retryAfter_s}`);
        // This test is about the time itself.
        await pause(retryAfter_s * 1000);
      }
      openrouter.reset();
    });
  });

  describe('without the policy', () => {
    const service = started(start);

    it('no field and no request has an amount', async () => {
      const { openrouter } = service().world;
      openrouter.reset();
      const created = await create(service(), (await signIn(service())).token);
      assert.ok(!`${created.headers.get('ratelimit')}${created.headers.get('ratelimit-policy')}`.includes('spend'));
      assert.ok(!(await openrouter.arrived(1)).raw.includes('max_price'));
    });
  });
}
