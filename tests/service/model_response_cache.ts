// AI_CACHE_TTL_S: the model API may repeat an answer, and Cache-Status says whether it did.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ModelBehaviour } from '../support/model_behaviour.ts';
import { create, signIn, type StartService, started } from './service.ts';

/** Sends OpenRouter's header on whether the answer was cached. */
const withCacheStatus = (status: string): ModelBehaviour => (turn) => {
  const candidates = { candidates: turn.candidates(3) };
  const choices = [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: JSON.stringify(candidates) } }];
  turn.reply(200, { model: turn.model, choices }, { 'x-openrouter-cache-status': status });
};

export function tests(start: StartService): void {
  describe('AI_CACHE_TTL_S set', () => {
    const service = started(start, { AI_CACHE_TTL_S: '3600' });

    for (const [status, field] of [['HIT', 'OpenRouter; hit'], ['MISS', 'OpenRouter; fwd=miss']] as const) {
      it(`Cache-Status reports a ${status}`, async () => {
        const { openrouter } = service().world;
        openrouter.next(withCacheStatus(status));
        const created = await create(service(), (await signIn(service())).token);
        assert.equal(created.status, 201, created.text);
        assert.equal(created.headers.get('cache-status'), field);
        const { headers } = openrouter.requests.recent.at(-1)!;
        assert.equal(headers['x-openrouter-cache'], 'true');
        assert.equal(headers['x-openrouter-cache-ttl'], '3600');
      });
    }

    it('Cache-Control: no-cache requests a fresh answer', async () => {
      const { openrouter } = service().world;
      openrouter.next(withCacheStatus('MISS'));
      const { token } = await signIn(service());
      const created = await create(service(), token, undefined, { 'cache-control': 'no-cache' });
      assert.equal(created.status, 201, created.text);
      assert.equal(created.headers.get('cache-status'), null);
      assert.equal(openrouter.requests.recent.at(-1)!.headers['x-openrouter-cache'], undefined);
    });
  });

  describe('AI_CACHE_TTL_S not set', () => {
    const service = started(start);

    it('without AI_CACHE_TTL_S there is no cache header', async () => {
      const { openrouter } = service().world;
      openrouter.next(withCacheStatus('HIT'));
      const created = await create(service(), (await signIn(service())).token);
      assert.equal(created.headers.get('cache-status'), null);
      assert.equal(openrouter.requests.recent.at(-1)!.headers['x-openrouter-cache'], undefined);
    });
  });
}
