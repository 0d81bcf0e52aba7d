// Database and model both hang: a waiting client has its response within AI_TIMEOUT_MS + 16 s.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { concernsRows } from '../support/gateway.ts';
import { silence } from '../support/model_behaviour.ts';
import { create, expectProblem, remaining, signIn, started, type StartService } from './service.ts';

const AI_TIMEOUT_MS = 1_000;
const GRACE_MS = 16_000;

export function tests(start: StartService): void {
  const service = started(start, { AI_TIMEOUT_MS: String(AI_TIMEOUT_MS) });

  for (const [name, headers] of [['without headers', false], ['with headers', true]] as const) {
    it(`a client is answered in time and refunded with a model ${name}`, async () => {
      const { gateway, openrouter } = service().world;
      const user = await signIn(service());
      assert.equal((await create(service(), user.token, '{')).status, 400, 'the signing keys are cached');
      openrouter.always(silence({ headers }));
      const silent = gateway.fail(concernsRows, { kind: 'hang' });
      const began_ms = performance.now();
      const failed = await create(service(), user.token);
      const took_ms = performance.now() - began_ms;
      silent.clear();
      openrouter.reset();
      assert.equal(expectProblem(failed, 500, 'ai_timeout').retryable, true);
      assert.deepEqual(remaining(failed), { burst: 8, generations: 50 });
      assert.ok(took_ms >= AI_TIMEOUT_MS && took_ms <= AI_TIMEOUT_MS + GRACE_MS, `${Math.round(took_ms)} ms`);
    });
  }
}
