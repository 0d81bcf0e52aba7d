// GET /ai-sessions/{id}: the owner reads a session in every state, for others it does not exist.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { answer, cutByLength, httpError } from '../support/model_behaviour.ts';
import { type Answer, create, eventually, expectProblem, read, rowsOf, sendRequest, signIn, started, type StartService } from './service.ts';

const MEMBERS = ['candidate_count', 'candidates', 'created_at', 'ended_at', 'error', 'id', 'model', 'partial', 'status', 'usage'];

export function tests(start: StartService): void {
  const service = started(start);

  it('the owner reads a whole completed session', async () => {
    const user = await signIn(service());
    const created = await create(service(), user.token);
    const found = await read(service(), user.token, created.body.id);
    assert.equal(found.status, 200, found.text);
    assert.equal(found.headers.get('content-type'), 'application/json');
    assert.equal(found.headers.get('cache-control'), 'no-store');
    assert.equal(found.headers.get('retry-after'), null);
    const [session] = (await rowsOf(service(), user)).sessions;
    expectSession(found, {
      id: created.body.id,
      status: 'completed',
      model: 'test/first',
      partial: false,
      error: null,
      usage: {
        prompt_tokens: session?.['prompt_tokens'],
        completion_tokens: session?.['completion_tokens'],
        cost: Number(session?.['cost']),
      },
      candidate_count: created.body.candidates.length,
      candidates: created.body.candidates,
    });
    expectUtc(found.body.created_at, session?.['created_at']);
    expectUtc(found.body.ended_at, session?.['ended_at']);
  });

  it('the candidates are in the order of the model', async () => {
    const user = await signIn(service());
    const { body } = await create(service(), user.token);
    for (const _ of [1, 2, 3]) {
      assert.deepEqual((await read(service(), user.token, body.id)).body.candidates, body.candidates);
    }
  });

  it('a partial session is marked as partial', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(cutByLength(3));
    const { body } = await create(service(), user.token);
    const found = await read(service(), user.token, body.id);
    assert.deepEqual([found.body.status, found.body.partial, found.body.candidates], ['completed', true, body.candidates]);
    assert.equal(body.candidates.length, 3);
  });

  it('a failed session has its code', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(httpError(402));
    expectProblem(await create(service(), user.token), 500, 'ai_misconfigured');
    const [session] = (await rowsOf(service(), user)).sessions;
    const found = await read(service(), user.token, session?.['id']);
    assert.equal(found.status, 200, found.text);
    expectSession(found, {
      id: session?.['id'],
      status: 'failed',
      model: 'test/first',
      partial: false,
      error: 'ai_misconfigured',
      usage: null,
      candidate_count: 0,
      candidates: [],
    });
    expectUtc(found.body.ended_at, session?.['ended_at']);
  });

  it('a running session is generating and has a Retry-After', async () => {
    const gate = createGate();
    const user = await signIn(service());
    const stranger = await signIn(service());
    service().world.openrouter.next(answer({ hold: { gate, after_candidates: 3 } }));
    const created = create(service(), user.token);
    try {
      const id = await eventually('the session is opened', async () => (await rowsOf(service(), user)).sessions[0]?.['id']);
      await gate.reached;
      const found = await eventually('its candidates are counted', async () => {
        const found = await read(service(), user.token, id);
        // They are stored in batches: a read in between counts the first batch.
        return found.body.candidate_count < 3 ? undefined : found;
      });
      assert.equal(found.status, 200, found.text);
      assert.equal(found.headers.get('cache-control'), 'no-store');
      assert.match(found.headers.get('retry-after') ?? '', /^[1-9]\d*$/);
      expectSession(found, {
        id,
        status: 'generating',
        model: 'test/first',
        partial: false,
        error: null,
        usage: null,
        candidate_count: 3,
        candidates: [],
      });
      assert.equal(found.body.ended_at, null);
      expectProblem(await read(service(), stranger.token, id), 404, 'not_found');
    } finally {
      gate.open();
    }
    const { status, body } = await created;
    assert.equal(status, 201);
    const found = await read(service(), user.token, body.id);
    assert.deepEqual([found.body.status, found.body.candidates], ['completed', body.candidates]);
  });

  describe('for others', () => {
    it('a session of another user is a 404 like one that does not exist', async () => {
      const owner = await signIn(service());
      const stranger = await signIn(service());
      const { body } = await create(service(), owner.token);
      const foreign = expectProblem(await read(service(), stranger.token, body.id), 404, 'not_found');
      const random = expectProblem(await read(service(), stranger.token, crypto.randomUUID()), 404, 'not_found');
      assert.deepEqual({ ...foreign, request_id: '' }, { ...random, request_id: '' });
    });

    for (const id of ['1', 'x', 'null', 'undefined', '%00', '..%2Fmodels', `${crypto.randomUUID()}x`, 'eq.1&select=*', '*']) {
      it(`${id} is a 404`, async () => {
        const { token } = await signIn(service());
        expectProblem(await read(service(), token, id), 404, 'not_found');
      });
    }

    it('a read without a token is a 401', async () => {
      const { token } = await signIn(service());
      const { body } = await create(service(), token);
      expectProblem(await sendRequest(service(), 'GET', `/ai-sessions/${body.id}`), 401, 'missing_token');
    });
  });

  it('a read is not charged', async () => {
    const { token } = await signIn(service());
    for (let n = 0; n < 20; n += 1) {
      const found = await read(service(), token, crypto.randomUUID());
      assert.equal(found.status, 404);
    }
    assert.equal((await create(service(), token)).status, 201);
  });
}

/** Expects all members, and these with these values. */
function expectSession(found: Answer, expected: Record<string, unknown>): void {
  assert.deepEqual(Object.keys(found.body).sort(), [...MEMBERS].sort());
  const { created_at: _, ended_at: __, ...others } = found.body;
  assert.deepEqual(others, expected);
}

/** Expects RFC 3339 in UTC, equal to the row to the millisecond. */
function expectUtc(reported: string, stored: Date): void {
  assert.match(reported, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$/);
  assert.equal(Date.parse(reported), stored.getTime());
}
