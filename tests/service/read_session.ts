// GET /ai-sessions/{id}: its owner reads it in every state, and for everybody else there is no such session.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { answer, cutByLength, httpError } from '../support/model_behaviour.ts';
import { type Answer, create, eventually, expectProblem, read, rowsOf, sendRequest, signIn, started, type StartService } from './service.ts';

const MEMBERS = ['candidate_count', 'candidates', 'created_at', 'ended_at', 'error', 'id', 'model', 'partial', 'status', 'usage'];

export function tests(start: StartService): void {
  const service = started(start);

  it('gives the owner all of a completed session', async () => {
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

  it('gives a session with the cards in the order of the model, each time', async () => {
    const user = await signIn(service());
    const { body } = await create(service(), user.token);
    for (const _ of [1, 2, 3]) {
      assert.deepEqual((await read(service(), user.token, body.id)).body.candidates, body.candidates);
    }
  });

  it('tells of a partial session that it is', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(cutByLength(3));
    const { body } = await create(service(), user.token);
    const found = await read(service(), user.token, body.id);
    assert.deepEqual([found.body.status, found.body.partial, found.body.candidates], ['completed', true, body.candidates]);
    assert.equal(body.candidates.length, 3);
  });

  it('tells why a session failed', async () => {
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

  it('says of a running one that it is generating, without cards, and when to ask again', async () => {
    const gate = createGate();
    const user = await signIn(service());
    const stranger = await signIn(service());
    service().world.openrouter.next(answer({ hold: { gate, after_cards: 3 } }));
    const created = create(service(), user.token);
    try {
      const id = await eventually('the session is opened', async () => (await rowsOf(service(), user)).sessions[0]?.['id']);
      await gate.reached;
      const found = await eventually('its cards are counted', async () => {
        const found = await read(service(), user.token, id);
        // They are stored in batches: a read in between counts those of the first one.
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

  describe('for everybody else', () => {
    it('there is no such session, and no way to tell it from one that does not exist', async () => {
      const owner = await signIn(service());
      const stranger = await signIn(service());
      const { body } = await create(service(), owner.token);
      const foreign = expectProblem(await read(service(), stranger.token, body.id), 404, 'not_found');
      const random = expectProblem(await read(service(), stranger.token, crypto.randomUUID()), 404, 'not_found');
      assert.deepEqual({ ...foreign, request_id: '' }, { ...random, request_id: '' });
    });

    for (const id of ['1', 'x', 'null', 'undefined', '%00', '..%2Fmodels', `${crypto.randomUUID()}x`, 'eq.1&select=*', '*']) {
      it(`${id} is no session`, async () => {
        const { token } = await signIn(service());
        expectProblem(await read(service(), token, id), 404, 'not_found');
      });
    }

    it('a token is needed', async () => {
      const { token } = await signIn(service());
      const { body } = await create(service(), token);
      expectProblem(await sendRequest(service(), 'GET', `/ai-sessions/${body.id}`), 401, 'missing_token');
    });
  });

  it('costs nothing', async () => {
    const { token } = await signIn(service());
    for (let n = 0; n < 20; n += 1) {
      const found = await read(service(), token, crypto.randomUUID());
      assert.equal(found.status, 404);
    }
    assert.equal((await create(service(), token)).status, 201);
  });
}

/** All members, and these as they are here. */
function expectSession(found: Answer, expected: Record<string, unknown>): void {
  assert.deepEqual(Object.keys(found.body).sort(), [...MEMBERS].sort());
  const { created_at: _, ended_at: __, ...others } = found.body;
  assert.deepEqual(others, expected);
}

/** RFC 3339 in UTC, and the moment that the row says, to the millisecond. */
function expectUtc(reported: string, stored: Date): void {
  assert.match(reported, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$/);
  assert.equal(Date.parse(reported), stored.getTime());
}
