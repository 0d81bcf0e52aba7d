// Prefer: respond-async: a 202 before the model answers. The generation runs without a client, and reads of the session
// report its progress.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { answer, cutByLength, gated, httpError, type ModelBehaviour, refusal } from '../support/model_behaviour.ts';
import { type Answer, create, eventually, expectProblem, lesson, pathOf, read, remaining, rowsOf, type Service, type SignedIn, signIn, started, type StartService } from './service.ts';

/** A lease of a generation is valid for so long. */
const LEASE_MS = 15_000;

export function tests(start: StartService): void {
  // A session is read until it ends.
  const service = started(start, { RATE_LIMIT_READS: '10000/60' });

  it('the 202 arrives before the model answers and has the session', async () => {
    const gate = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(gated(gate));
    const accepted = await later(service(), user);
    assert.equal(accepted.status, 202, accepted.text);
    const { id } = accepted.body;
    assert.equal(accepted.headers.get('location'), pathOf(service(), id));
    assert.equal(accepted.headers.get('preference-applied'), 'respond-async');
    assert.equal(accepted.headers.get('content-type'), 'application/json');
    assert.equal(accepted.headers.get('cache-control'), 'no-store');
    assert.match(accepted.headers.get('retry-after') ?? '', /^[1-9]\d*$/);
    assert.deepEqual(remaining(accepted), { burst: 9, generations: 49 });
    const { created_at, ...rest } = accepted.body;
    assert.ok(Math.abs(Date.parse(created_at) - Date.now()) < 60_000);
    const running = { id, status: 'generating', model: 'test/first', partial: false, error: null, ended_at: null, usage: null, candidate_count: 0, candidates: [] };
    assert.deepEqual(rest, running);
    assert.deepEqual((await read(service(), user.token, id)).body, accepted.body, 'it equals a GET');
    gate.open();
    await ended(service(), user, id);
  });

  it('reads report the number of candidates, then the candidates', async () => {
    const gate = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(answer({ hold: { gate, after_candidates: 3 } }));
    const { id } = (await later(service(), user)).body;
    await gate.reached;
    const running = await eventually('three candidates are reported', async () => {
      const found = await read(service(), user.token, id);
      return found.body.candidate_count === 3 ? found : undefined;
    });
    assert.deepEqual([running.body.status, running.body.candidates], ['generating', []]);
    assert.match(running.headers.get('retry-after') ?? '', /^[1-9]\d*$/);
    gate.open();
    const found = await ended(service(), user, id);
    assert.deepEqual([found.body.status, found.body.partial, found.body.candidate_count, found.body.candidates.length], ['completed', false, 20, 20]);
    assert.equal(found.headers.get('retry-after'), null);
    const { sessions, candidates, events } = await rowsOf(service(), user);
    assert.deepEqual(sessions.map(({ id, status }) => [id, status]), [[id, 'completed']]);
    assert.deepEqual(candidates.map(({ id }) => id), found.body.candidates.map(({ id }: { id: string }) => id));
    assert.deepEqual(events.map(({ type }) => type), ['ai_session.completed']);
    assert.equal(remaining(await create(service(), user.token))['generations'], 48);
  });

  const endings: [name: string, behaviour: ModelBehaviour, expected: object, generations: number][] = [
    ['a model that broke off', cutByLength(2), { status: 'completed', partial: true, error: null, candidate_count: 2 }, 49],
    ['a model that refuses the text', refusal(), { status: 'failed', partial: false, error: 'ai_refused', candidate_count: 0 }, 49],
    ['a model API that refuses the service', httpError(402), { status: 'failed', partial: false, error: 'ai_misconfigured', candidate_count: 0 }, 50],
  ];
  for (const [name, behaviour, expected, generations] of endings) {
    it(`reads of an async session report ${name}`, async () => {
      const user = await signIn(service());
      service().world.openrouter.next(behaviour);
      const accepted = await later(service(), user);
      assert.equal(accepted.status, 202, accepted.text);
      const { body } = await ended(service(), user, accepted.body.id);
      const { status, partial, error, candidate_count } = body;
      assert.deepEqual({ status, partial, error, candidate_count }, expected);
      assert.equal(remaining(await create(service(), user.token, '{'))['generations'], generations);
    });
  }

  it('reads report a database outage during and after it', async () => {
    const gate = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(gated(gate));
    const away = service().world.gateway.fail(({ headers }) => headers['authorization'] === `Bearer ${user.token}`, { kind: 'cut' });
    const { id } = (await later(service(), user)).body;
    const failed = await ended(service(), user, id);
    assert.deepEqual([failed.body.status, failed.body.error], ['failed', 'database_error']);
    away.clear();
    gate.open();
    const again = await read(service(), user.token, id);
    assert.deepEqual([again.status, again.body.status, again.body.error], [200, 'failed', 'database_error']);
    assert.equal(remaining(await create(service(), user.token))['generations'], 49);
  });

  it('an async generation counts as concurrent until it ends', async () => {
    const gate = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(gated(gate), 2);
    const ids = [(await later(service(), user)).body.id, (await later(service(), user)).body.id];
    const refused = await later(service(), user);
    assert.deepEqual(expectProblem(refused, 429, 'rate_limited')['violated-policies'], ['concurrent']);
    assert.equal(refused.headers.get('preference-applied'), null);
    gate.open();
    for (const id of ids) await ended(service(), user, id);
    assert.equal((await later(service(), user)).status, 202);
  });

  describe('ignored', () => {
    it('an invalid body is refused in async mode', async () => {
      const { token } = await signIn(service());
      const refused = await create(service(), token, { input_text: 'x', model: 'test/first' }, { prefer: 'respond-async' });
      expectProblem(refused, 400, 'validation_failed');
      assert.equal(refused.headers.get('preference-applied'), null);
    });

    it('a stream takes precedence over respond-async', async () => {
      const { token } = await signIn(service());
      const stream = await create(service(), token, undefined, { prefer: 'respond-async', accept: 'text/event-stream' });
      assert.deepEqual([stream.status, stream.headers.get('content-type')], [200, 'text/event-stream']);
      assert.equal(stream.headers.get('preference-applied'), null);
    });
  });

  it('an async generation survives a restart', async () => {
    const gate = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(answer({ hold: { gate, after_candidates: 4 } }));
    const { id } = (await later(service(), user)).body;
    await eventually('four candidates are stored', async () => ((await read(service(), user.token, id)).body.candidate_count === 4 ? true : undefined));
    await service().restart();
    // Where isolates share the user state, the lease of the one that has ended expires first.
    const { body } = await ended(service(), user, id, LEASE_MS + 10_000);
    assert.deepEqual([body.status, body.partial, body.candidates.length], ['completed', true, 4]);
    gate.open();
  });
}

const later = (service: Service, { token }: SignedIn): Promise<Answer> =>
  create(service, token, { input_text: lesson(), model: 'test/first' }, { prefer: 'respond-async' });

/** Waits until the owner reads an ended session. */
function ended(service: Service, { token }: SignedIn, id: string, deadline_ms?: number): Promise<Answer> {
  return eventually('the session ends', async () => {
    const found = await read(service, token, id);
    assert.equal(found.status, 200, found.text);
    return found.body.status === 'generating' ? undefined : found;
  }, deadline_ms);
}
