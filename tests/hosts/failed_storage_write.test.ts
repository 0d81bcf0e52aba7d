// A storage that fails in the middle of a decision: none of its writes is kept. The ledger is written first and the
// idempotency record last, so a request whose record cannot be written has been counted by then.

import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { create, createStream, expectProblem, lesson, NoStream, remaining, rowsOf, type Service, signIn } from '../service/service.ts';
import { startAfter } from './workerd.ts';
import { withObjectState } from './object_state.ts';

const KEY = 'cannot-be-stored';

/** Makes the statement fail that writes a record with the key. */
const prelude = withObjectState(`
  const { sql } = state.storage;
  const proto = Object.getPrototypeOf(sql);
  if (proto.isBroken) return;
  proto.isBroken = true;
  const { exec } = proto;
  proto.exec = function (query, ...values) {
    if (values.some((value) => typeof value === 'string' && value.includes('${KEY}'))) throw new Error('disk I/O error');
    return exec.call(this, query, ...values);
  };
`);

let service: Service;
before(async () => {
  service = await startAfter(prelude);
});
after(() => service.close());

const body = { input_text: lesson(), model: 'test/first' };

for (const mode of ['sync', 'stream', 'async'] as const) {
  it(`a decision whose last write fails is rolled back in ${mode} mode`, async () => {
    const { openrouter } = service.world;
    const user = await signIn(service);
    openrouter.reset();
    const headers = { 'idempotency-key': KEY, ...(mode === 'async' ? { prefer: 'respond-async' } : {}) };
    const refused = mode === 'stream'
      ? await createStream(service, user.token, body, headers).then(() => assert.fail('a stream'), (error: NoStream) => error.answer)
      : await create(service, user.token, body, headers);
    expectProblem(refused, 500, 'rate_limiter_unavailable');
    // Read from the storage again: it has neither the request nor its generation.
    const next = await create(service, user.token, body);
    assert.equal(next.status, 201, next.text);
    assert.deepEqual(remaining(next), { burst: 9, generations: 49 });
    assert.equal(openrouter.requests.total, 1);
    assert.equal((await rowsOf(service, user)).sessions.length, 1);
  });
}
