// The optional binding METRICS: one point per request. The dataset here logs its points.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { create, eventually, sendRequest, type Service, signIn } from '../service/service.ts';
import { startAfter } from './workerd.ts';

/** A worker whose default export makes the binding: workerd's own way to wrap one. */
const dataset = `export default () => ({ writeDataPoint: (point) => console.log('POINT ' + JSON.stringify(point)) });`;

describe('a deployment with METRICS', () => {
  let service: Service;
  before(async () => {
    service = await startAfter('', {}, { METRICS: dataset });
  });
  after(() => service.close());

  const points = () => service.logs.filter((line) => line.startsWith('POINT ')).map((line) => JSON.parse(line.slice('POINT '.length)));

  it('METRICS receives one point per request, without user data', async () => {
    const { token } = await signIn(service);
    await sendRequest(service, 'GET', '/models');
    const created = await create(service, token);
    assert.equal(created.status, 201, created.text);
    await create(service, 'wrong');
    const [models, generation, refused] = await eventually('the points are written', () => (points().length === 3 ? points() : undefined));

    assert.deepEqual([models.indexes, models.blobs], [['/models'], ['/models', 'GET', '', '']]);
    assert.deepEqual(refused.blobs, ['/ai-sessions', 'POST', 'invalid_token', '']);
    assert.equal(refused.doubles[0], 401);
    assert.deepEqual(generation.blobs, ['/ai-sessions', 'POST', '', 'test/first']);
    const [status, , , , , attempts, prompt_tokens, completion_tokens, cost] = generation.doubles;
    assert.deepEqual([status, attempts], [201, 1]);
    assert.ok(prompt_tokens > 0 && completion_tokens > 0 && cost > 0);
    assert.equal(generation.doubles.length, 9);
  });
});
