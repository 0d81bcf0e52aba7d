// DELETE /ai-sessions/{id}: the only way to stop a generation. Complete candidates are kept, and billing ends.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { FINISH_PATH, SESSIONS_PATH } from '../support/gateway.ts';
import { answer, gated, httpError, type ModelBehaviour, silence } from '../support/model_behaviour.ts';
import { type Answer, create, eventually, expectProblem, lesson, read, remaining, rowsOf, sendRequest, type Service, type SignedIn, signIn, started, type StartService } from './service.ts';

export function tests(start: StartService): void {
  const service = started(start);
  describe('before the first candidate', () => beforeTheFirst(service));
  describe('after some candidates', () => afterSome(service));
  describe('nothing to stop', () => nothingToStop(service));
}

const stop = (service: Service, { token }: SignedIn, id: string): Promise<Answer> => sendRequest(service, 'DELETE', `/ai-sessions/${id}`, { token });

/** Starts a generation with a client in sync mode and a subscriber of its events. */
async function begin(service: Service, behaviour: ModelBehaviour): Promise<{ user: SignedIn; id: string; nth: number; waiting: Promise<Answer>; stream: Promise<Answer> }> {
  const user = await signIn(service);
  const { openrouter } = service.world;
  openrouter.next(behaviour);
  const headers = { 'idempotency-key': 'k' };
  const body = { input_text: lesson(), model: 'test/first' };
  const nth = openrouter.requests.total + 1;
  const { id } = (await create(service, user.token, body, { ...headers, prefer: 'respond-async' })).body;
  const waiting = create(service, user.token, body, headers);
  const stream = sendRequest(service, 'GET', `/ai-sessions/${id}/events`, { token: user.token });
  await openrouter.arrived(nth);
  return { user, id, nth, waiting, stream };
}

/** Expects a failure without a candidate and without a charge. */
async function expectCancelled(service: Service, user: SignedIn, id: string): Promise<void> {
  const { sessions, candidates, events } = await rowsOf(service, user);
  assert.deepEqual(sessions.map(({ id, status, error_code, partial }) => [id, status, error_code, partial]), [[id, 'failed', 'cancelled', false]]);
  assert.deepEqual([candidates, events.map(({ type, data }) => [type, data.code])], [[], [['ai_session.failed', 'cancelled']]]);
  const found = await read(service, user.token, id);
  assert.deepEqual([found.status, found.body.status, found.body.error, found.body.candidates], [200, 'failed', 'cancelled', []]);
  expectProblem(await stop(service, user, id), 409, 'not_running');
}

function beforeTheFirst(service: () => Service): void {
  const moments: [when: string, behaviour: ModelBehaviour][] = [
    ['the model has sent nothing', silence({ headers: false })],
    ['the model has sent its headers', silence({ headers: true })],
    ['half a candidate has arrived', answer({ whole_candidates: 0, plus_chars: 60, instead_of_end: 'silence' })],
  ];
  for (const [when, behaviour] of moments) {
    it(`a generation stopped when ${when} is cancelled and refunded`, async () => {
      const { user, id, nth, waiting, stream } = await begin(service(), behaviour);
      const stopped = await stop(service(), user, id);
      assert.deepEqual([stopped.status, stopped.text], [204, '']);
      await service().world.openrouter.aborted(nth);
      const response = await waiting;
      assert.equal(expectProblem(response, 409, 'cancelled').retryable, true);
      assert.equal(remaining(response)['generations'], 50);
      assert.match((await stream).text, /event: error\ndata: .*"code":"cancelled".*\n\n$/);
      await expectCancelled(service(), user, id);
      assert.equal(service().world.openrouter.requests.total, nth, 'the model is not called again');
      assert.equal(remaining(await create(service(), user.token))['generations'], 49);
    });
  }

  it('a generation stopped during a backoff makes no further call', async () => {
    const { openrouter } = service().world;
    const { user, id, nth, waiting } = await begin(service(), httpError(503, { retry_after_s: 20 }));
    await (await openrouter.arrived(nth)).over;
    assert.equal((await stop(service(), user, id)).status, 204);
    expectProblem(await waiting, 409, 'cancelled');
    await expectCancelled(service(), user, id);
    assert.equal(openrouter.requests.total, nth);
  });

  it('a generation stopped before its row is open is cancelled', async () => {
    const opening = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(silence({ headers: true }));
    const late = (path: string) => path === SESSIONS_PATH;
    const held = service().world.gateway.fail(({ path, method, headers }) => late(path) && method === 'POST' && headers['authorization'] === `Bearer ${user.token}`, { kind: 'gate', gate: opening });
    const { id } = (await create(service(), user.token, undefined, { prefer: 'respond-async' })).body;
    await opening.reached;
    assert.equal((await stop(service(), user, id)).status, 204);
    await expectCancelled(service(), user, id);
    held.clear();
    opening.open();
    const first = await service().world.gateway.requests.nthWhere(1, ({ path, method, headers }) => late(path) && method === 'POST' && headers['authorization'] === `Bearer ${user.token}`);
    await eventually('the row is open', () => first.status);
    await expectCancelled(service(), user, id);
  });

  it('a generation stopped during a database outage is cancelled later', async () => {
    const { user, id, nth, waiting } = await begin(service(), silence({ headers: true }));
    await eventually('the row is open', async () => (await rowsOf(service(), user)).sessions[0]);
    const away = service().world.gateway.fail(({ path, headers }) => path === FINISH_PATH && headers['authorization'] === `Bearer ${user.token}`, { kind: 'cut' });
    assert.equal((await stop(service(), user, id)).status, 204);
    await service().world.openrouter.aborted(nth);
    expectProblem(await waiting, 409, 'cancelled');
    const found = await read(service(), user.token, id);
    assert.deepEqual([found.body.status, found.body.error], ['failed', 'cancelled']);
    expectProblem(await stop(service(), user, id), 409, 'not_running');
    away.clear();
    await read(service(), user.token, id);
    await eventually('it is persisted', async () => (await rowsOf(service(), user)).events[0]);
    await expectCancelled(service(), user, id);
  });

  it('concurrent stops are one stop', async () => {
    const { user, id, nth } = await begin(service(), silence({ headers: true }));
    const statuses = (await Promise.all(Array.from({ length: 8 }, () => stop(service(), user, id)))).map(({ status }) => status);
    assert.ok(statuses.includes(204) && statuses.every((status) => status === 204 || status === 409), statuses.join());
    await service().world.openrouter.aborted(nth);
    await expectCancelled(service(), user, id);
  });
}

function afterSome(service: () => Service): void {
  for (const count of [1, 3]) {
    it(`a stop after ${count} candidates keeps and charges them`, async () => {
      const gate = createGate();
      const { user, id, nth, waiting, stream } = await begin(service(), answer({ hold: { gate, after_candidates: count } }));
      await eventually('they are reported', async () => ((await read(service(), user.token, id)).body.candidate_count === count ? true : undefined));
      const stopped = await stop(service(), user, id);
      assert.deepEqual([stopped.status, stopped.text], [204, '']);
      // The next read finds it ended.
      const found = await read(service(), user.token, id);
      assert.deepEqual([found.body.status, found.body.partial, found.body.error, found.body.candidates.length], ['completed', true, null, count]);
      gate.open();
      await service().world.openrouter.aborted(nth);

      const response = await waiting;
      assert.deepEqual([response.status, response.body.partial, response.body.candidates], [201, true, found.body.candidates]);
      assert.equal(remaining(response)['generations'], 49);
      const end = new RegExp(`event: done\ndata: {"id":"${id}","count":${count},"partial":true,"usage":null,"coverage":0\\.\\d+}\n\n$`);
      assert.match((await stream).text, end);
      const { sessions, candidates, events } = await rowsOf(service(), user);
      assert.deepEqual(sessions.map(({ status, partial }) => [status, partial]), [['completed', true]]);
      assert.deepEqual(candidates.map(({ id }) => id), found.body.candidates.map(({ id }: { id: string }) => id));
      assert.deepEqual(events.map(({ type, data }) => [type, data.candidates]), [['ai_session.completed', count]]);
      expectProblem(await stop(service(), user, id), 409, 'not_running');
      assert.equal(remaining(await create(service(), user.token))['generations'], 48);
    });
  }

  for (const [who, headers] of [['in sync mode', {}], ['in async mode', { prefer: 'respond-async' }]] as const) {
    it(`a stop keeps candidates that have just arrived, ${who}`, async () => {
      const gate = createGate();
      const user = await signIn(service());
      service().world.openrouter.next(answer({ hold: { gate, after_candidates: 5 } }));
      const created = create(service(), user.token, undefined, headers);
      await gate.reached;
      const session = await eventually('the row is open', async () => (await rowsOf(service(), user)).sessions[0]);
      assert.equal((await stop(service(), user, session['id'])).status, 204);
      gate.open();
      const found = await read(service(), user.token, session['id']);
      assert.deepEqual([found.body.status, found.body.partial, found.body.candidates.length], ['completed', true, 5]);
      await created;
    });
  }
}

function nothingToStop(service: () => Service): void {
  it('a stop of a completed session is not_running', async () => {
    const user = await signIn(service());
    const { body } = await create(service(), user.token);
    expectProblem(await stop(service(), user, body.id), 409, 'not_running');
    assert.equal((await read(service(), user.token, body.id)).body.status, 'completed');
  });

  it('a stop of a failed session is not_running', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(httpError(402));
    await create(service(), user.token);
    const [session] = (await rowsOf(service(), user)).sessions;
    expectProblem(await stop(service(), user, session?.['id']), 409, 'not_running');
    assert.equal((await rowsOf(service(), user)).events.length, 1);
  });

  it('a stop of a session not yet persisted is not_running', async () => {
    const user = await signIn(service());
    const away = service().world.gateway.fail(({ path, headers }) => path === FINISH_PATH && headers['authorization'] === `Bearer ${user.token}`, { kind: 'cut' });
    expectProblem(await create(service(), user.token), 500, 'database_error');
    const id = (await rowsOf(service(), user)).sessions[0]?.['id'];
    expectProblem(await stop(service(), user, id), 409, 'not_running');
    away.clear();
    assert.equal((await read(service(), user.token, id)).body.candidates.length, 20);
  });

  it('a stop by another user is a 404 and stops nothing', async () => {
    const gate = createGate();
    const { user, id, waiting } = await begin(service(), gated(gate));
    const stranger = await signIn(service());
    const foreign = expectProblem(await stop(service(), stranger, id), 404, 'not_found');
    const random = expectProblem(await stop(service(), stranger, crypto.randomUUID()), 404, 'not_found');
    assert.deepEqual({ ...foreign, request_id: '' }, { ...random, request_id: '' });
    expectProblem(await sendRequest(service(), 'DELETE', `/ai-sessions/${id}`), 401, 'missing_token');
    assert.equal((await read(service(), user.token, id)).body.status, 'generating');
    gate.open();
    assert.equal((await waiting).status, 201);
    expectProblem(await stop(service(), stranger, id), 404, 'not_found');
  });

  for (const id of ['1', 'x', '%00', '*', `${crypto.randomUUID()}x`]) {
    it(`a stop of ${id} is a 404`, async () => {
      expectProblem(await stop(service(), await signIn(service()), id), 404, 'not_found');
    });
  }

  it('a stop is not charged', async () => {
    const user = await signIn(service());
    const { body } = await create(service(), user.token);
    for (let n = 0; n < 12; n += 1) assert.equal((await stop(service(), user, body.id)).status, 409);
    assert.deepEqual(remaining(await create(service(), user.token)), { burst: 8, generations: 48 });
  });
}
