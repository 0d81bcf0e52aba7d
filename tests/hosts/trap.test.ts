// A trap in the Wasm module tears down everything that runs in it. Waiting clients still get a response that a page can
// read, and the next request has a new instance.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { create, createStream, eventually, expectList, sendRequest, type Service, signIn, subscribe, UUID_V7 } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { answer, gated } from '../support/model_behaviour.ts';
import { within } from '../support/within.ts';
import { startAfter } from './workerd.ts';

/** `x-trap: n` on a request: the n-th call of `Date.now` after it ends in a trap. */
const prelude = `{
  let left = 0;
  const get = Headers.prototype.get;
  Headers.prototype.get = function (name) {
    if (name === 'traceparent') left = Number(get.call(this, 'x-trap') ?? left);
    return get.call(this, name);
  };
  const { now } = Date;
  Date.now = () => {
    if (left > 0 && (left -= 1) === 0) throw new WebAssembly.RuntimeError('unreachable');
    return now();
  };
}
`;
const origin = 'https://cards.example';
const appOrigin = 'com.example.app://Main';

describe('a trap', () => {
  let service: Service;
  before(async () => {
    service = await startAfter(prelude, { ALLOWED_ORIGINS: `HTTPS://Cards.example, Com.example.app://Main\n` });
  });
  after(() => service.close());

  it('a trap is a 500, and the next request has a new instance', async () => {
    const trapped = await sendRequest(service, 'GET', '/models', { headers: { 'x-trap': '1', origin } });
    assert.equal(trapped.status, 500);
    assert.equal(trapped.headers.get('content-type'), 'application/problem+json');
    assert.equal(trapped.headers.get('access-control-allow-origin'), origin);
    const inApp = await sendRequest(service, 'GET', '/models', { headers: { 'x-trap': '1', origin: appOrigin } });
    assert.deepEqual([inApp.status, inApp.headers.get('access-control-allow-origin')], [500, appOrigin]);
    assert.equal(trapped.headers.get('x-request-id'), trapped.body.request_id);
    assert.match(trapped.body.request_id, UUID_V7);
    assert.equal((await sendRequest(service, 'GET', '/models')).status, 200);
    const id = crypto.randomUUID();
    const again = await sendRequest(service, 'GET', '/models', { headers: { 'x-trap': '1', 'x-request-id': id } });
    assert.equal(again.headers.get('x-request-id'), id);
    await eventually('the log names the request', () => service.logs.find((line) => line.includes(id)));
    assert.equal((await sendRequest(service, 'GET', '/models')).status, 200);

    // The module's own `internal` has the same members.
    const unknown = await sendRequest(service, 'GET', '/nothing');
    assert.deepEqual(Object.keys(trapped.body).sort(), Object.keys(unknown.body).sort());
    assert.equal(trapped.body.type, `${service.url}/docs#internal`);
  });

  it('the type of the problem has the public URL', async () => {
    const under = await startAfter(prelude, { PUBLIC_URL: ' https://cards.example/base/ \n' });
    try {
      const trapped = await sendRequest(under, 'GET', '/models', { headers: { 'x-trap': '1' } });
      assert.deepEqual([trapped.status, trapped.body.type], [500, 'https://cards.example/base/docs#internal']);
      const unknown = await sendRequest(under, 'GET', '/nothing');
      assert.equal(unknown.body.type, 'https://cards.example/base/docs#not_found');
    } finally {
      await under.close();
    }
  });

  it('other waiting requests get a 500, and their generation is resumed', async () => {
    const { token, id: user_id } = await signIn(service);
    const gate = createGate();
    service.world.openrouter.next(gated(gate));
    const waiting = create(service, token, undefined, { origin });
    await service.world.openrouter.arrived(1);
    assert.equal((await sendRequest(service, 'GET', '/models', { headers: { 'x-trap': '1' } })).status, 500);
    const answered = await waiting;
    gate.open();
    assert.deepEqual([answered.status, answered.body.code], [500, 'internal']);
    assert.equal(answered.headers.get('access-control-allow-origin'), origin);

    const end = () => service.world.sql('select status from ai_generation_sessions where user_id = $1 and ended_at is not null', [user_id]);
    const sessions = await eventually('the alarm has resumed it', async () => ((await end()).length > 0 ? await end() : undefined), 40_000);
    assert.deepEqual(sessions, [{ status: 'completed' }]);
  });

  it('an open stream is cut by a trap and can be resumed', async () => {
    const { token } = await signIn(service);
    service.world.openrouter.next(answer({ hold: { gate: createGate(), after_candidates: 2 } }));
    const stream = await createStream(service, token);
    const received = await stream.some(3);
    assert.equal((await sendRequest(service, 'GET', '/models', { headers: { 'x-trap': '1' } })).status, 500);
    // However the connection ends: without `done` or `error` the stream has not ended.
    await within(stream.end, 'the end of the connection');
    assert.deepEqual(stream.events, received);
    const rest = await subscribe(service, token, received[0]?.data.id, stream.lastEventId);
    assert.equal(expectList([...received, ...(await rest.whole())], 2, 'done').partial, true);
  });
});
