// GET /health/ready: which dependency is away, told to anyone, and nobody can use it to load them.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { httpError, type ModelBehaviour } from '../support/model_behaviour.ts';
import { type Answer, sendRequest, type Service, started, type StartService } from './service.ts';

const JWKS = '/auth/v1/.well-known/jwks.json';

export function tests(start: StartService): void {
  describe('with a good configuration', () => wellSet(start));
  describe('with a bad configuration', () => badlySet(start));
}

const ready = (service: Service) => sendRequest(service, 'GET', '/health/ready');

type Check = { name: string; ok: boolean; latency_ms: number };

/** The form of the document; answers the names of what is not well. */
function unwell({ status, headers, body }: Answer): string[] {
  assert.equal(headers.get('content-type'), 'application/json');
  const checks = body.checks as Check[];
  for (const { name, ok, latency_ms } of checks) {
    assert.ok(name.length > 0);
    assert.equal(typeof ok, 'boolean');
    assert.ok(latency_ms >= 0);
  }
  const names = checks.filter(({ ok }) => !ok).map(({ name }) => name);
  assert.deepEqual([status, body.status], names.length === 0 ? [200, 'ok'] : [503, 'unavailable']);
  return names;
}

function wellSet(start: StartService): void {
  const service = started(start);

  it('is well when all are, and asks each of them once however often it is asked', async () => {
    const { gateway, openrouter } = service().world;
    const answers = await Promise.all(Array.from({ length: 20 }, () => ready(service())));
    answers.push(await ready(service()));
    for (const answer of answers) assert.deepEqual(unwell(answer), []);
    const names = (answers[0]?.body.checks as Check[]).map(({ name }) => name);
    for (const name of ['auth_keys', 'database', 'model_api']) assert.ok(names.includes(name), name);
    assert.deepEqual(gateway.requests.recent.map(({ path }) => path.split('/')[1]).sort(), ['auth', 'rest']);
    assert.deepEqual(openrouter.otherRequests.recent.map(({ method, path }) => `${method} ${path}`), ['GET /api/v1/key']);
    assert.equal(openrouter.requests.total, 0, 'no generation is paid for');
  });

  // What was found holds for 30 s: each of these begins with a fresh process.
  const away = (name: string, breaks: (service: Service) => () => void, expected: string[]) =>
    it(name, async () => {
      await service().restart();
      const mend = breaks(service());
      const answer = await ready(service());
      mend();
      assert.deepEqual(unwell(answer), expected);
    });
  const failing = (path: string) => (service: Service) => service.world.gateway.fail(path, { kind: 'answer', status: 503 }).clear;
  const key = (behaviour: ModelBehaviour) => ({ world }: Service) => {
    world.openrouter.onKey(behaviour);
    return () => world.openrouter.onKey(null);
  };
  away('names the keys of the sign-in when they are away', failing(JWKS), ['auth_keys']);
  away('names the database when it is away', failing('/rest/v1/'), ['database']);
  away('names the model API when it does not take the key', key(httpError(401)), ['model_api']);
  away('names the model API when it is broken', key(httpError(503)), ['model_api']);
  away('takes a model API that does not know the question for one that is up', key(httpError(404)), []);
  away('takes a model API that is busy for one that is up', key(httpError(429)), []);
  away('names all that are away', ({ world }) => {
    world.gateway.down();
    world.openrouter.down();
    return () => {
      world.gateway.up();
      world.openrouter.up();
    };
  }, ['auth_keys', 'database', 'model_api']);
}

function badlySet(start: StartService): void {
  const service = started(start, { AI_TIMEOUT_MS: 'marker-of-the-value', SUPABASE_ANON_KEY: '' });

  it('names each variable and no value, and asks nobody', async () => {
    const answer = await ready(service());
    assert.ok(unwell(answer).length > 0);
    for (const name of ['AI_TIMEOUT_MS', 'SUPABASE_ANON_KEY']) assert.ok(answer.text.includes(name), name);
    assert.ok(!answer.text.includes('marker-of-the-value'));
    assert.equal(service().world.gateway.requests.total + service().world.openrouter.otherRequests.total, 0);
  });
}
