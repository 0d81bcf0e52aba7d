// A trap in the Wasm module on Supabase's engine: it ends no process. Waiting clients get a response that a page can read, open
// streams are cut, and the next request has a new instance.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { create, createStream, eventually, expectList, sendRequest, signIn, subscribe } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { answer, gated } from '../support/model_behaviour.ts';
import { WAIT_MS, within } from '../support/within.ts';
import { type EdgeService, startAfter } from './supabase_edge.ts';

/** `x-trap: n` on a request: the n-th call of `Date.now` after it ends in a trap. */
const prelude = `{
  let left = 0;
  const { serve } = Deno;
  Deno.serve = (handler) => serve((request) => {
    left = Number(request.headers.get('x-trap') ?? left);
    return handler(request);
  });
  const { now } = Date;
  Date.now = () => {
    if (left > 0 && (left -= 1) === 0) throw new WebAssembly.RuntimeError('unreachable');
    return now();
  };
}
`;
/** The lost instance holds its lease for so long. */
const LEASE_MS = 15_000;

const origin = 'https://cards.example';
const trap = (service: EdgeService) => sendRequest(service, 'GET', '/models', { headers: { 'x-trap': '1', origin } });

describe('a trap on Supabase Edge', () => {
  let service: EdgeService;
  before(async () => {
    service = await startAfter(prelude);
  });
  after(() => service.close());

  it('a trap is a 500, and the next request has a new instance', async () => {
    const isolate = service.runtime.isolates[0];
    for (let n = 0; n < 3; n += 1) {
      const trapped = await trap(service);
      assert.equal(trapped.status, 500);
      assert.equal(trapped.headers.get('content-type'), 'application/problem+json');
      assert.equal(trapped.headers.get('access-control-allow-origin'), origin);
      assert.equal(trapped.headers.get('x-request-id'), trapped.body.request_id);
      assert.equal(trapped.body.type, `${service.url}/docs#internal`);
      await eventually('the log names the request', () => service.logs.find((line) => line.includes(trapped.body.request_id)));
      assert.equal((await sendRequest(service, 'GET', '/models')).status, 200);
      const unknown = await sendRequest(service, 'GET', '/nothing');
      assert.deepEqual(Object.keys(trapped.body).sort(), Object.keys(unknown.body).sort());
    }
    assert.equal(service.runtime.isolates[0], isolate);
    assert.equal(isolate?.state, 'live');
  });

  it('other waiting requests get a 500 and no work stays pending', async () => {
    const { token } = await signIn(service);
    const gate = createGate();
    service.world.openrouter.next(gated(gate));
    const waiting = create(service, token, undefined, { origin });
    await service.world.openrouter.arrived(1);
    assert.equal((await trap(service)).status, 500);
    const answered = await waiting;
    gate.open();
    assert.deepEqual([answered.status, answered.body.code], [500, 'internal']);
    assert.equal(answered.headers.get('access-control-allow-origin'), origin);
    await eventually('no work is pending', () => (service.runtime.isolates[0]?.pending_work === 0 ? true : undefined));
  });

  it('an open stream is cut by a trap and can be resumed', async () => {
    const { token } = await signIn(service);
    service.world.openrouter.next(answer({ hold: { gate: createGate(), after_candidates: 2 } }));
    const stream = await createStream(service, token);
    const received = await stream.some(3);
    assert.equal((await trap(service)).status, 500);
    // However the connection ends: without `done` or `error` the stream has not ended.
    await within(stream.end, 'the end of the connection');
    assert.deepEqual(stream.events, received);
    const rest = await subscribe(service, token, received[0]?.data.id, stream.lastEventId);
    assert.equal(expectList([...received, ...(await rest.whole(LEASE_MS + WAIT_MS))], 2, 'done').partial, true);
  });
});
