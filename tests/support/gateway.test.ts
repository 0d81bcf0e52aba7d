// Each fault has the effect of its name, on the matching requests only.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { createGate } from './gate.ts';
import { type Rest, startWorld, type User, type World } from './world.ts';

describe('the gateway', () => {
  let world: World;
  let user: User;
  let owner: Rest;
  before(async () => {
    world = await startWorld({ model: false });
    user = await world.auth.createUser();
    owner = world.rest(world.auth.token(user));
  });
  after(() => world.close());
  afterEach(() => world.gateway.clearFaults());

  const newSession = () => ({ id: crypto.randomUUID(), model: 'm', input_text: 'x'.repeat(1000) });
  const isKept = async (id: string) =>
    (await world.sql('select 1 from public.ai_generation_sessions where id = $1', [id])).length === 1;

  it('the gateway requires the public key of the project', async () => {
    const without = await fetch(`${world.supabaseUrl}/rest/v1/event_logs`);
    assert.equal(without.status, 401);
    assert.match(await without.text(), /No API key found in request/);
    const wrong = await fetch(`${world.supabaseUrl}/rest/v1/event_logs`, { headers: { apikey: 'x' } });
    assert.equal(wrong.status, 401);
    assert.match(await wrong.text(), /Invalid API key/);
  });

  it('the gateway allows browsers', async () => {
    const preflight = await fetch(`${world.supabaseUrl}/auth/v1/token?grant_type=password`, {
      method: 'OPTIONS',
      headers: { origin: 'http://localhost:4321', 'access-control-request-headers': 'apikey,content-type' },
    });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers.get('access-control-allow-origin'), '*');
    assert.equal(preflight.headers.get('access-control-allow-headers'), 'apikey,content-type');
    const refused = await fetch(`${world.supabaseUrl}/rest/v1/event_logs`);
    assert.equal(refused.headers.get('access-control-allow-origin'), '*');
    await refused.body?.cancel();
  });

  it('requests are recorded and counted', async () => {
    world.gateway.requests.clear();
    const arrival = world.gateway.requests.nthWhere(2, (request) => request.method === 'POST');
    const session = newSession();
    await owner('POST', '/ai_generation_sessions', session);
    await owner('GET', '/ai_generation_sessions?select=id');
    await owner('POST', '/ai_generation_sessions', session);
    const second = await arrival;
    assert.equal(second.path, '/rest/v1/ai_generation_sessions');
    assert.deepEqual(JSON.parse(second.raw), session);
    assert.equal(second.headers['apikey'], world.anonKey);
    assert.equal(second.status, 409);
    assert.equal(world.gateway.requests.count('POST', '/rest/v1/ai_generation_sessions'), 2);
    assert.equal(world.gateway.requests.count('GET', '/rest/v1/ai_generation_sessions'), 1);
    assert.equal(world.gateway.requests.total, 3);
  });

  it('a fault answers a number of matching requests', async () => {
    const fault = world.gateway.fail('/event_logs', { kind: 'answer', status: 503, body: { message: 'no' } }, 2);
    assert.equal((await owner('GET', '/ai_generation_sessions')).status, 200);
    assert.equal((await owner('GET', '/event_logs')).status, 503);
    assert.deepEqual((await owner('GET', '/event_logs')).body, { message: 'no' });
    assert.equal((await owner('GET', '/event_logs')).status, 200);
    assert.equal(fault.hits, 2);
  });

  it('a fault can answer with HTML', async () => {
    const headers = { 'content-type': 'text/html' };
    world.gateway.fail('jwks.json', { kind: 'answer', status: 200, body: '<h1>Hello</h1>', headers }, 1);
    const answer = await fetch(`${world.supabaseUrl}/auth/v1/.well-known/jwks.json`);
    assert.equal(answer.headers.get('content-type'), 'text/html');
    assert.equal(await answer.text(), '<h1>Hello</h1>');
  });

  it('a fault loses the response of an applied and of a rejected request', async () => {
    for (const kept of [true, false]) {
      for (const fault of [{ kind: 'cut' }, { kind: 'answer', status: 500 }] as const) {
        world.gateway.fail('/ai_generation_sessions', { ...fault, kept }, 1);
        const session = newSession();
        const posted = owner('POST', '/ai_generation_sessions', session);
        if (fault.kind === 'cut') await assert.rejects(posted, TypeError);
        else assert.equal((await posted).status, 500);
        assert.equal(await isKept(session.id), kept, `${fault.kind}, kept: ${kept}`);
      }
    }
  });

  it('a fault holds a request at a gate, before or after its effect', async () => {
    for (const kept of [true, false]) {
      const gate = createGate();
      world.gateway.fail('/ai_generation_sessions', { kind: 'gate', gate, kept }, 1);
      const session = newSession();
      const posted = owner('POST', '/ai_generation_sessions', session);
      await gate.reached;
      assert.equal(await isKept(session.id), kept);
      gate.open();
      assert.equal((await posted).status, 201);
      assert.equal(await isKept(session.id), true);
    }
  });

  it('a fault delays a request', async () => {
    world.gateway.fail('/event_logs', { kind: 'delay', ms: 60 }, 1);
    const from = performance.now();
    assert.equal((await owner('GET', '/event_logs')).status, 200);
    assert.ok(performance.now() - from >= 59);
  });

  it('a fault hangs, or sends an endless response', async () => {
    world.gateway.fail('/event_logs', { kind: 'hang' }, 1);
    await assert.rejects(rawGet('/event_logs', 100), { name: 'TimeoutError' });
    world.gateway.fail('/event_logs', { kind: 'endless', kept: true }, 1);
    const answer = await rawGet('/event_logs', 300);
    assert.equal(answer.status, 200);
    await assert.rejects(answer.text(), { name: 'TimeoutError' });
  });

  function rawGet(path: string, timeout_ms: number): Promise<Response> {
    const headers = { apikey: world.anonKey, authorization: `Bearer ${world.auth.token(user)}` };
    return fetch(`${world.supabaseUrl}/rest/v1${path}`, { headers, signal: AbortSignal.timeout(timeout_ms) });
  }

  it('the gateway can be down and up again', async () => {
    world.gateway.down();
    await assert.rejects(owner('GET', '/event_logs'), TypeError);
    world.gateway.up();
    assert.equal((await owner('GET', '/event_logs')).status, 200);
  });
});
