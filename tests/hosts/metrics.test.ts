// The optional binding METRICS: one point for each request, each generation that has ended and each due job that failed. The
// columns are those of operations/README.md.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { FINISH_PATH } from '../support/gateway.ts';
import { gated } from '../support/model_behaviour.ts';
import { create, eventually, expectProblem, lesson, read, sendRequest, signIn } from '../service/service.ts';
import { type Point, pointsIn, SINK } from './points.ts';
import { startAfter, type WorkerdService } from './workerd.ts';

const body = { input_text: lesson(), model: 'test/first' };

describe('a deployment with METRICS', () => {
  let service: WorkerdService;
  before(async () => {
    service = await startAfter('', { AI_TIMEOUT_MS: '20000' }, { METRICS: SINK });
  });
  after(() => service.close());

  /** The points of a kind that are written by an action; waits for so many. */
  const written = async (kind: string, count: number, act: () => Promise<void>): Promise<Point[]> => {
    const ofKind = () => pointsIn(service).filter((point) => (kind === 'request' ? /^(\/|none$)/.test(point.blobs[0] ?? '') : point.blobs[0] === kind));
    const earlier = ofKind().length;
    await act();
    await eventually(`${count} points of ${kind}`, () => (ofKind().length >= earlier + count ? true : undefined), 20_000);
    return ofKind().slice(earlier);
  };

  it('METRICS receives one point per request, without user data', async () => {
    const { token } = await signIn(service);
    const [models, generation, refused] = await written('request', 3, async () => {
      await sendRequest(service, 'GET', '/models');
      const created = await create(service, token);
      assert.equal(created.status, 201, created.text);
      await create(service, 'wrong');
    });
    assert.deepEqual([models?.indexes, models?.blobs], [['/models'], ['/models', 'GET', '', '']]);
    assert.deepEqual(refused?.blobs, ['/ai-sessions', 'POST', 'invalid_token', '']);
    assert.equal(refused?.doubles[0], 401);
    assert.deepEqual(generation?.blobs, ['/ai-sessions', 'POST', '', 'test/first']);
    const [status, , , , , attempts, prompt_tokens, completion_tokens, cost] = generation?.doubles ?? [];
    assert.deepEqual([status, attempts], [201, 1]);
    assert.ok(Number(prompt_tokens) > 0 && Number(completion_tokens) > 0 && Number(cost) > 0);
    assert.equal(generation?.doubles.length, 9);
  });

  it('METRICS receives one point per generation', async () => {
    const { token } = await signIn(service);
    const points = await written('generation', 1, async () => {
      const created = await create(service, token, body);
      assert.equal(created.status, 201, created.text);
    });
    assert.equal(points.length, 1);
    const [{ indexes, blobs, doubles }] = points as [Point];
    assert.deepEqual([indexes, blobs], [['generation'], ['generation', 'completed', 'test/first', 'test/first', 'Stand-in']]);
    const [attempts, prompt_tokens, completion_tokens, cost, candidates, ...rest] = doubles;
    assert.equal(attempts, 1);
    assert.ok(Number(prompt_tokens) > 0 && Number(completion_tokens) > 0 && Number(cost) > 0);
    assert.ok(Number(candidates) > 0);
    assert.deepEqual(rest.slice(0, 7), [0, 0, 0, 0, 0, 0, 0]);
    const [first_candidate_ms, model_ms, , persisted] = rest.slice(7);
    assert.ok(Number(first_candidate_ms) <= Number(model_ms));
    assert.deepEqual([persisted, doubles.length], [1, 16]);
  });

  it('METRICS receives an end that is not persisted, and each try', async () => {
    const { gateway } = service.world;
    const { token } = await signIn(service);
    const mine = ({ path, headers }: { path: string; headers: Record<string, unknown> }) => path === FINISH_PATH && headers['authorization'] === `Bearer ${token}`;
    const refusing = gateway.fail(mine, { kind: 'answer', status: 409, body: { code: '23505', message: 'duplicate key' } });
    const generations = await written('generation', 1, async () => {
      const jobs = await written('job', 2, async () => void expectProblem(await create(service, token, body), 500, 'database_error'));
      assert.deepEqual(jobs.map(({ indexes, blobs }) => [indexes[0], ...blobs]), [
        ['job', 'job', 'persist', 'refused'],
        ['job', 'job', 'persist', 'abandoned'],
      ]);
      assert.deepEqual(jobs.map(({ doubles }) => doubles[0]), [2, 3]);
      assert.ok(jobs.every(({ doubles }) => Number(doubles[1]) >= 1_000));
    });
    refusing.clear();
    assert.deepEqual(generations.map(({ blobs, doubles }) => [blobs[1], doubles[15]]), [['completed', 0]]);
  });

  it('a generation has one point after a crash', async () => {
    const { openrouter } = service.world;
    const { token } = await signIn(service);
    const points = await written('generation', 1, async () => {
      const gate = createGate();
      openrouter.next(gated(gate));
      const accepted = await create(service, token, body, { prefer: 'respond-async' });
      assert.equal(accepted.status, 202, accepted.text);
      await gate.reached;
      await service.kill();
      assert.equal((await read(service, token, accepted.body.id)).status, 200);
    });
    assert.deepEqual(points.map(({ blobs, doubles }) => [blobs[1], doubles[0], doubles[15]]), [['completed', 2, 1]]);
  });
});
