// Generations that the database does not store: how many a user may have, how many writes they cause, when they are abandoned.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { FINISH_PATH } from '../support/gateway.ts';
import { gated } from '../support/model_behaviour.ts';
import { create, eventually, expectProblem, lesson, read, remainingOfAll, rowsOf, signIn, type SignedIn, started, type StartService } from './service.ts';

const NOT_PERSISTED_MAX = 20;
const WRITES_MAX = 2;
const body = { input_text: lesson(), model: 'test/first' };

const finishOf = (user: SignedIn) => ({ path, headers }: { path: string; headers: Record<string, unknown> }) =>
  path === FINISH_PATH && headers['authorization'] === `Bearer ${user.token}`;

export function tests(start: StartService): void {
  const service = started(start, { RATE_LIMIT_BURST: '1000/60', RATE_LIMIT_GENERATIONS: '1000/3600', RATE_LIMIT_ATTEMPTS: '1000/3600' });

  describe('a write that the database rejects', () => {
    it('a rejected write is tried three times, then logged and abandoned', async () => {
      const { gateway, openrouter } = service().world;
      const user = await signIn(service());
      openrouter.reset();
      const refusing = gateway.fail(finishOf(user), { kind: 'answer', status: 409, body: { code: '23505', message: 'duplicate key' } });
      expectProblem(await create(service(), user.token, body, { 'idempotency-key': 'k' }), 500, 'database_error');
      const id = (await rowsOf(service(), user)).sessions[0]?.['id'];
      await eventually('the log line is written', () => service().logs.find((line) => line.includes('"abandoned"') && line.includes(id)), 20_000);
      assert.equal(refusing.hits, 3);
      refusing.clear();
      assert.equal((await read(service(), user.token, id)).body.status, 'generating', 'its deadline has not passed');
      const again = await create(service(), user.token, body, { 'idempotency-key': 'k' });
      assert.equal(again.status, 201, again.text);
      assert.equal(again.body.id, id);
      assert.equal(openrouter.requests.total, 2);
    });

    it('reads of the owner cause no further attempt at a rejected write', async () => {
      const { gateway } = service().world;
      const user = await signIn(service());
      const refusing = gateway.fail(finishOf(user), { kind: 'answer', status: 400, body: { code: '22P05', message: 'no' } });
      expectProblem(await create(service(), user.token), 500, 'database_error');
      const id = (await rowsOf(service(), user)).sessions[0]?.['id'];
      for (let n = 0; n < 10; n += 1) assert.equal((await read(service(), user.token, id)).status, 200);
      await eventually('the log line is written', () => service().logs.find((line) => line.includes('"abandoned"') && line.includes(id)), 20_000);
      assert.equal(refusing.hits, 3);
      refusing.clear();
    });
  });

  describe('a row that the owner inserted past the service', () => {
    for (const [name, insert] of [
      ['an event of the completion', (id: string) => ['/event_logs', { session_id: id, type: 'ai_session.completed', data: {} }]],
      ['an event of the failure', (id: string) => ['/event_logs', { session_id: id, type: 'ai_session.failed', data: {} }]],
      ['a candidate at position 0', (id: string) => ['/flashcard_candidates', { id: crypto.randomUUID(), session_id: id, position: 0, front: 'f', back: 'b', prompt: 'p' }]],
      ['a candidate at position 1999', (id: string) => ['/flashcard_candidates', { id: crypto.randomUUID(), session_id: id, position: 1999, front: 'f', back: 'b', prompt: 'p' }]],
    ] as [string, (id: string) => [string, object]][]) {
      it(`${name} does not prevent the session from being stored`, async () => {
        const { gateway, openrouter, rest } = service().world;
        const user = await signIn(service());
        const gate = createGate();
        openrouter.next(gated(gate));
        const creating = create(service(), user.token);
        const id = await eventually('the row is open', async () => (await rowsOf(service(), user)).sessions[0]?.['id']);
        const [path, row] = insert(id);
        assert.equal((await rest(user.token)('POST', path, row)).status, 201);
        gateway.requests.clear();
        gate.open();
        const created = await creating;
        assert.equal(created.status, 201, created.text);
        assert.equal(gateway.requests.count('POST', FINISH_PATH), 1);
        const { sessions, candidates, events } = await rowsOf(service(), user);
        assert.deepEqual(sessions.map(({ status }) => status), ['completed']);
        assert.deepEqual(candidates.map(({ id }) => id), created.body.candidates.map(({ id }: { id: string }) => id));
        // One for each run: the owner's own row stays where it came first.
        assert.equal(events.length, 1);
        assert.deepEqual((await read(service(), user.token, id)).body.candidates, created.body.candidates);
      });
    }
  });

  it('twenty unsaved sessions block generations and are all stored later', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    openrouter.reset();
    const broken = gateway.fail(finishOf(user), { kind: 'answer', status: 503 });
    for (let n = 0; n < NOT_PERSISTED_MAX; n += 2) {
      // `concurrent` allows two.
      for (const failed of await Promise.all([create(service(), user.token), create(service(), user.token)])) {
        expectProblem(failed, 500, 'database_error');
      }
    }
    const refused = await create(service(), user.token);
    const problem = expectProblem(refused, 429, 'rate_limited');
    assert.deepEqual(problem['violated-policies'], ['concurrent']);
    assert.equal(remainingOfAll(refused)['generations'], 1000 - NOT_PERSISTED_MAX);
    assert.equal(openrouter.requests.total, NOT_PERSISTED_MAX);

    broken.clear();
    const gate = createGate();
    const held = gateway.fail(finishOf(user), { kind: 'gate', gate });
    const ids = (await rowsOf(service(), user)).sessions.map(({ id }) => id);
    for (const id of ids) {
      const { status, body } = await Promise.race([read(service(), user.token, id), gate.reached.then(() => ({ status: 200, body: undefined }))]);
      assert.equal(status, 200, body);
    }
    assert.ok(held.hits <= WRITES_MAX, `writes of ${ids.length} reads: ${held.hits}`);
    held.clear();
    gate.open();
    await eventually('all are stored', async () => {
      const { sessions } = await rowsOf(service(), user);
      return sessions.every(({ status }) => status === 'completed') ? true : undefined;
    }, 60_000);
    const { sessions, candidates, events } = await rowsOf(service(), user);
    assert.deepEqual([sessions.length, candidates.length, events.length], [20, 400, 21]);
    assert.equal((await create(service(), user.token)).status, 201);
  });
}
