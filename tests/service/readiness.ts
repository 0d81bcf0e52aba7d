// GET /health/ready: public; names the dependencies that are down, without letting a caller put load on them.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { httpError, type ModelBehaviour } from '../support/model_behaviour.ts';
import { type Answer, sendRequest, type Service, started, type StartService } from './service.ts';

/** The clock of the service may differ so much from this one: on Supabase Edge it is the database's, as far as replies show it. */
const CLOCK_MS = 2000;

const JWKS = '/auth/v1/.well-known/jwks.json';

export function tests(start: StartService): void {
  describe('with a good configuration', () => configured(start));
  describe('with a bad configuration', () => misconfigured(start));
}

const ready = (service: Service) => sendRequest(service, 'GET', '/health/ready');

type Check = { name: string; ok: boolean; latency_ms: number; since?: string };

/** Checks the document; returns the names of failed checks. */
function failedChecks({ status, headers, body }: Answer): string[] {
  assert.equal(headers.get('content-type'), 'application/json');
  const checks = body.checks as Check[];
  for (const { name, ok, latency_ms, since } of checks) {
    assert.ok(name.length > 0);
    assert.equal(typeof ok, 'boolean');
    assert.ok(latency_ms >= 0);
    assert.equal(since !== undefined, !ok && name !== 'configuration', name);
  }
  const names = checks.filter(({ ok }) => !ok).map(({ name }) => name);
  assert.deepEqual([status, body.status], names.length === 0 ? [200, 'ok'] : [503, 'unavailable']);
  return names;
}

function configured(start: StartService): void {
  const service = started(start);

  it('ready is 200 and checks each dependency once for many requests', async () => {
    const { gateway, openrouter } = service().world;
    const answers = await Promise.all(Array.from({ length: 20 }, () => ready(service())));
    answers.push(await ready(service()));
    for (const answer of answers) assert.deepEqual(failedChecks(answer), []);
    const names = (answers[0]?.body.checks as Check[]).map(({ name }) => name);
    for (const name of ['auth_keys', 'database', 'model_api']) assert.ok(names.includes(name), name);
    assert.deepEqual(gateway.requests.recent.map(({ path }) => path.split('/')[1]).sort(), ['auth', 'rest']);
    assert.deepEqual(openrouter.otherRequests.recent.map(({ method, path }) => `${method} ${path}`), ['GET /api/v1/key']);
    assert.equal(openrouter.requests.total, 0, 'no generation is billed');
  });

  // A result is kept for 30 s: each test begins with a new process.
  const away = (name: string, breaks: (service: Service) => () => void, expected: string[]) =>
    it(name, async () => {
      await service().restart();
      const mend = breaks(service());
      const start_ms = Date.now();
      const answer = await ready(service());
      mend();
      assert.deepEqual(failedChecks(answer), expected);
      for (const { name, since } of answer.body.checks as Check[]) {
        const since_ms = Date.parse(since ?? '');
        if (expected.includes(name)) assert.ok(start_ms - CLOCK_MS <= since_ms && since_ms <= Date.now() + CLOCK_MS, `${name}: ${since}`);
      }
      const again = await ready(service());
      assert.equal(again.text, answer.text, 'the result is kept, with its times');
    });
  const failing = (path: string) => (service: Service) => service.world.gateway.fail(path, { kind: 'answer', status: 503 }).clear;
  const key = (behaviour: ModelBehaviour) => ({ world }: Service) => {
    world.openrouter.onKey(behaviour);
    return () => world.openrouter.onKey(null);
  };
  away('ready names the signing keys during their outage', failing(JWKS), ['auth_keys']);
  away('ready names the database during its outage', failing('/rest/v1/'), ['database']);
  away('ready names a model API that rejects the key', key(httpError(401)), ['model_api']);
  away('ready names a model API that answers 503', key(httpError(503)), ['model_api']);
  away('ready accepts a model API without the key endpoint', key(httpError(404)), []);
  away('ready accepts a model API that answers 429', key(httpError(429)), []);
  away('ready names all failed dependencies', ({ world }) => {
    world.gateway.down();
    world.openrouter.down();
    return () => {
      world.gateway.up();
      world.openrouter.up();
    };
  }, ['auth_keys', 'database', 'model_api']);
}

function misconfigured(start: StartService): void {
  const service = started(start, { AI_TIMEOUT_MS: 'marker-of-the-value', SUPABASE_ANON_KEY: '' });

  it('ready names each invalid variable and sends no request', async () => {
    const answer = await ready(service());
    assert.ok(failedChecks(answer).length > 0);
    for (const name of ['AI_TIMEOUT_MS', 'SUPABASE_ANON_KEY']) assert.ok(answer.text.includes(name), name);
    assert.ok(!answer.text.includes('marker-of-the-value'));
    assert.equal(service().world.gateway.requests.total + service().world.openrouter.otherRequests.total, 0);
  });
}
