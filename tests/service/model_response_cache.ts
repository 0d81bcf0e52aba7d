// AI_CACHE_TTL_S: the model API may give the same answer again, and the caller is told which it was.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ModelBehaviour } from '../support/model_behaviour.ts';
import { create, signIn, type StartService, started } from './service.ts';

/** Tells in a header, as OpenRouter does, whether the answer was one that it had given before. */
const withCacheStatus = (status: string): ModelBehaviour => (turn) => {
  const cards = { candidates: turn.cards(3) };
  const choices = [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: JSON.stringify(cards) } }];
  turn.reply(200, { model: turn.model, choices }, { 'x-openrouter-cache-status': status });
};

export function tests(start: StartService): void {
  describe('where it is on', () => {
    const service = started(start, { AI_CACHE_TTL_S: '3600' });

    for (const [status, field] of [['HIT', 'OpenRouter; hit'], ['MISS', 'OpenRouter; fwd=miss']] as const) {
      it(`a ${status} is told in Cache-Status`, async () => {
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

    it('Cache-Control: no-cache asks for a fresh answer', async () => {
      const { openrouter } = service().world;
      openrouter.next(withCacheStatus('MISS'));
      const { token } = await signIn(service());
      const created = await create(service(), token, undefined, { 'cache-control': 'no-cache' });
      assert.equal(created.status, 201, created.text);
      assert.equal(created.headers.get('cache-status'), null);
      assert.equal(openrouter.requests.recent.at(-1)!.headers['x-openrouter-cache'], undefined);
    });
  });

  describe('where it is off', () => {
    const service = started(start);

    it('nothing is asked for and nothing is told', async () => {
      const { openrouter } = service().world;
      openrouter.next(withCacheStatus('HIT'));
      const created = await create(service(), (await signIn(service())).token);
      assert.equal(created.headers.get('cache-status'), null);
      assert.equal(openrouter.requests.recent.at(-1)!.headers['x-openrouter-cache'], undefined);
    });
  });
}
