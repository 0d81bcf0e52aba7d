// The database fails: before the model was paid for, that costs nothing; afterwards nothing that was paid for is lost.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { type Fault, FINISH_PATH, SESSIONS_PATH } from '../support/gateway.ts';
import { answer, content, gated, goodAnswer, httpError } from '../support/model_behaviour.ts';
import {
  type Answer,
  create,
  eventually,
  expectProblem,
  read,
  remaining,
  type Row,
  rowsOf,
  type Service,
  signIn,
  type SignedIn,
  started,
  type StartService,
} from './service.ts';

export function tests(start: StartService): void {
  const service = started(start);
  describe('at the opening', () => atTheOpening(service));
  describe('at the completing', () => atTheCompleting(service));
  describe('when it answers and nobody hears it', () => keptWrites(service));
  describe('when a session is read', () => whenReading(service));
}

const refusals: [name: string, fault: Fault][] = [
  ['that answers 503', { kind: 'answer', status: 503 }],
  ['that answers 500 with HTML', { kind: 'answer', status: 500, body: '<html>', headers: { 'content-type': 'text/html' } }],
  ['that cuts the line', { kind: 'cut' }],
];

/** The session is there once: its row, the cards that the caller was given, one event. */
async function expectStoredOnce(service: Service, user: SignedIn, { id, candidates }: { id: string; candidates: object[] }): Promise<void> {
  const rows = await rowsOf(service, user);
  assert.deepEqual(rows.sessions.map(({ id, status }) => ({ id, status })), [{ id, status: 'completed' }]);
  assert.deepEqual(rows.candidates.map(({ id, front, back, prompt }) => ({ id, front, back, prompt })), candidates);
  assert.deepEqual(rows.events.map(({ type, session_id }) => ({ type, session_id })), [{ type: 'ai_session.completed', session_id: id }]);
}

/** The row has its end: the service writes it behind an answer. */
function ended(service: Service, user: SignedIn, deadline_ms?: number): Promise<Row> {
  const find = async () => (await rowsOf(service, user)).sessions.find(({ status }) => status !== 'generating');
  return eventually('the end is written', find, deadline_ms);
}

function atTheOpening(service: () => Service): void {
  for (const [name, fault] of [...refusals, ['that refuses the token', { kind: 'answer', status: 401 }]] as typeof refusals) {
    it(`a database ${name} stops the model and gives the unit back`, async () => {
      const { gateway, openrouter } = service().world;
      const gate = createGate();
      const user = await signIn(service());
      openrouter.reset();
      openrouter.next(gated(gate));
      const set = gateway.fail(SESSIONS_PATH, fault);
      const failed = await create(service(), user.token);
      set.clear();
      gate.open();
      assert.equal(expectProblem(failed, 500, 'database_error').retryable, true);
      assert.deepEqual(remaining(failed), { burst: 9, generations: 50 });
      await openrouter.aborted(1);
      assert.equal(openrouter.requests.total, 1);
      assert.deepEqual(await rowsOf(service(), user), { sessions: [], candidates: [], events: [] });
      assert.equal((await create(service(), user.token)).status, 201);
    });
  }

  it('a database that is down altogether costs no unit', async () => {
    const { gateway, openrouter } = service().world;
    const gate = createGate();
    const user = await signIn(service());
    assert.equal((await create(service(), user.token)).status, 201);
    openrouter.reset();
    openrouter.next(gated(gate));
    gateway.down();
    const failed = await create(service(), user.token);
    gateway.up();
    gate.open();
    expectProblem(failed, 500, 'database_error');
    assert.deepEqual(remaining(failed), { burst: 8, generations: 49 });
    await openrouter.aborted(1);
  });

  it('a database that comes back in a moment is not noticed', async () => {
    const { gateway } = service().world;
    const user = await signIn(service());
    const set = gateway.fail(SESSIONS_PATH, { kind: 'answer', status: 503 }, 2);
    const created = await create(service(), user.token);
    assert.equal(created.status, 201, created.text);
    assert.equal(set.hits, 2);
    await expectStoredOnce(service(), user, created.body);
  });

  it('a model that was faster is paid for, and its cards are stored with their session', async () => {
    const { gateway, openrouter } = service().world;
    const opening = createGate();
    const user = await signIn(service());
    openrouter.reset();
    const set = gateway.fail(SESSIONS_PATH, { kind: 'gate', gate: opening });
    const created = create(service(), user.token);
    assert.equal(await (await openrouter.arrived(1)).over, 'answered');
    set.clear();
    const cut = gateway.fail(FINISH_PATH, { kind: 'answer', status: 503 }, 1);
    opening.open();
    const { status, body, text } = await created;
    assert.equal(status, 201, text);
    assert.equal(cut.hits, 1);
    await expectStoredOnce(service(), user, body);
  });

  it('a model that was faster is paid for, even if the session was never opened', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    openrouter.reset();
    const set = gateway.fail(SESSIONS_PATH, { kind: 'answer', status: 503 });
    const created = await create(service(), user.token);
    set.clear();
    assert.equal(created.status, 201, created.text);
    assert.equal(remaining(created)['generations'], 49);
    await expectStoredOnce(service(), user, created.body);
  });
}

function atTheCompleting(service: () => Service): void {
  /** A generation whose end could not be written. */
  const notPersisted = async (fault: Fault): Promise<{ user: SignedIn; failed: Answer; id: string; mend: () => void }> => {
    const user = await signIn(service());
    const set = service().world.gateway.fail(FINISH_PATH, fault);
    const failed = await create(service(), user.token);
    const [session] = (await rowsOf(service(), user)).sessions;
    return { user, failed, id: session?.['id'], mend: set.clear };
  };

  for (const [name, fault] of refusals) {
    it(`a database ${name} is told, and the owner’s next call gets the session`, async () => {
      const { user, failed, id, mend } = await notPersisted(fault);
      assert.equal(expectProblem(failed, 500, 'database_error').retryable, true);
      assert.deepEqual(remaining(failed), { burst: 9, generations: 49 });
      const before = await rowsOf(service(), user);
      assert.deepEqual(before.sessions.map(({ status }) => status), ['generating']);
      assert.deepEqual([before.candidates, before.events], [[], []]);

      mend();
      const found = await read(service(), user.token, id);
      assert.equal(found.status, 200, found.text);
      assert.deepEqual([found.body.status, found.body.error, found.body.partial], ['completed', null, false]);
      assert.equal(found.body.candidates.length, 20);
      assert.ok(found.body.usage.prompt_tokens > 0);
      await ended(service(), user);
      await expectStoredOnce(service(), user, found.body);
      const again = await read(service(), user.token, id);
      assert.deepEqual(again.body.candidates, found.body.candidates);
      assert.equal(remaining(await create(service(), user.token))['generations'], 48, 'the unit stays used');
    });
  }

  it('what could not be written is nobody’s but the owner’s', async () => {
    const { id, mend } = await notPersisted({ kind: 'answer', status: 503 });
    const stranger = await signIn(service());
    expectProblem(await read(service(), stranger.token, id), 404, 'not_found');
    mend();
    expectProblem(await read(service(), stranger.token, id), 404, 'not_found');
  });

  it('what could not be written outlives a restart', async () => {
    const { user, id, mend } = await notPersisted({ kind: 'answer', status: 503 });
    await service().restart();
    mend();
    const found = await read(service(), user.token, id);
    assert.deepEqual([found.status, found.body.status, found.body.candidates.length], [200, 'completed', 20]);
    await ended(service(), user);
    await expectStoredOnce(service(), user, found.body);
  });

  it('what could not be written is written by the next generation too', async () => {
    const { user, id, mend } = await notPersisted({ kind: 'answer', status: 503 });
    mend();
    const created = await create(service(), user.token);
    assert.equal(created.status, 201, created.text);
    const rows = await eventually('both are written', async () => {
      const rows = await rowsOf(service(), user);
      return rows.sessions.every(({ status }) => status === 'completed') ? rows : undefined;
    });
    assert.deepEqual(rows.sessions.map(({ id }) => id).sort(), [id, created.body.id].sort());
    assert.equal(rows.candidates.length, 40);
    assert.equal(rows.events.length, 2);
  });

  it('what could not be written is written without anybody’s call', async () => {
    const { user, mend } = await notPersisted({ kind: 'answer', status: 503 });
    mend();
    // The service's own backoff, and nothing that a test can hurry.
    await ended(service(), user, 30_000);
    const rows = await rowsOf(service(), user);
    assert.deepEqual([rows.sessions.length, rows.candidates.length, rows.events.length], [1, 20, 1]);
  });

  it('a failure of the model that could not be written is told as such, and written later', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    openrouter.reset();
    openrouter.next(httpError(402));
    const set = gateway.fail(FINISH_PATH, { kind: 'cut' });
    const failed = await create(service(), user.token);
    set.clear();
    expectProblem(failed, 500, 'ai_misconfigured');
    assert.deepEqual(remaining(failed), { burst: 9, generations: 50 });
    const id = (await rowsOf(service(), user)).sessions[0]?.['id'];
    const found = await read(service(), user.token, id);
    assert.deepEqual([found.body.status, found.body.error], ['failed', 'ai_misconfigured']);
    await ended(service(), user);
    const { sessions, events } = await rowsOf(service(), user);
    assert.deepEqual([sessions[0]?.['status'], sessions[0]?.['error_code']], ['failed', 'ai_misconfigured']);
    assert.deepEqual(events.map(({ type }) => type), ['ai_session.failed']);
  });

  it('a database that comes back in a moment is not noticed', async () => {
    const user = await signIn(service());
    const set = service().world.gateway.fail(FINISH_PATH, { kind: 'cut' }, 2);
    const created = await create(service(), user.token);
    assert.equal(created.status, 201, created.text);
    assert.equal(set.hits, 2);
    await expectStoredOnce(service(), user, created.body);
  });

  it('odd characters in a card do not cost the session', async () => {
    const user = await signIn(service());
    const cards = '{"candidates":[{"front":"a\\u0000b \\ud83d c","back":"\\u0000\\udc00","prompt":"\\ufeffp\\u0001"}]}';
    service().world.openrouter.next(content(cards));
    const created = await create(service(), user.token);
    assert.equal(created.status, 201, created.text);
    const { front, back, prompt } = created.body.candidates[0];
    assert.deepEqual({ front, back, prompt }, { front: 'ab \uFFFD c', back: '\uFFFD', prompt: 'p' });
    await expectStoredOnce(service(), user, created.body);
  });
}

function keptWrites(service: () => Service): void {
  for (const [name, path] of [['opening', SESSIONS_PATH], ['completing', FINISH_PATH]] as const) {
    for (const [how, fault] of [
      ['is cut off', { kind: 'cut', kept: true }],
      ['is a 503', { kind: 'answer', status: 503, kept: true }],
    ] as const satisfies [string, Fault][]) {
      it(`the ${name} that took effect and whose answer ${how} ends as 201 with one set of rows`, async () => {
        const user = await signIn(service());
        const set = service().world.gateway.fail(path, fault, 1);
        const created = await create(service(), user.token);
        assert.equal(created.status, 201, created.text);
        assert.equal(set.hits, 1);
        assert.equal(remaining(created)['generations'], 49);
        await expectStoredOnce(service(), user, created.body);
      });
    }
  }

  it('the opening that took effect each time and was never heard of ends with one set of rows', async () => {
    const user = await signIn(service());
    const set = service().world.gateway.fail(SESSIONS_PATH, { kind: 'cut', kept: true });
    const created = await create(service(), user.token);
    set.clear();
    assert.equal(created.status, 201, created.text);
    await expectStoredOnce(service(), user, created.body);
  });

  it('the completing that took effect each time and was never heard of is there for the owner, once', async () => {
    const user = await signIn(service());
    const set = service().world.gateway.fail(FINISH_PATH, { kind: 'cut', kept: true });
    const failed = await create(service(), user.token);
    set.clear();
    expectProblem(failed, 500, 'database_error');
    assert.equal(remaining(failed)['generations'], 49);
    const id = (await rowsOf(service(), user)).sessions[0]?.['id'];
    const found = await read(service(), user.token, id);
    assert.deepEqual([found.body.status, found.body.candidates.length], ['completed', 20]);
    await expectStoredOnce(service(), user, found.body);
  });

  it('the opening that took effect, before a model that was stopped, leaves no session that generates for ever', async () => {
    const { gateway, openrouter } = service().world;
    const gate = createGate();
    const user = await signIn(service());
    openrouter.reset();
    openrouter.next(gated(gate, goodAnswer));
    const set = gateway.fail(SESSIONS_PATH, { kind: 'cut', kept: true });
    const answered = await create(service(), user.token);
    set.clear();
    gate.open();
    expectProblem(answered, 500, 'database_error');
    await ended(service(), user);
    const { sessions, candidates, events } = await rowsOf(service(), user);
    assert.deepEqual(sessions.map(({ status, error_code }) => [status, error_code]), [['failed', 'database_error']]);
    assert.deepEqual([candidates.length, events.map(({ type }) => type)], [0, ['ai_session.failed']]);
  });
}

function whenReading(service: () => Service): void {
  for (const [name, fault] of refusals) {
    it(`a database ${name} is told`, async () => {
      const user = await signIn(service());
      const { body } = await create(service(), user.token);
      const set = service().world.gateway.fail(SESSIONS_PATH, fault);
      const failed = await read(service(), user.token, body.id);
      set.clear();
      expectProblem(failed, 500, 'database_error');
      assert.equal((await read(service(), user.token, body.id)).status, 200);
    });
  }

  it('a running session is read without it', async () => {
    const { gateway, openrouter } = service().world;
    const gate = createGate();
    const user = await signIn(service());
    openrouter.reset();
    openrouter.next(answer({ hold: { gate, after_cards: 1 } }));
    const created = create(service(), user.token);
    const id = await eventually('the session is opened', async () => (await rowsOf(service(), user)).sessions[0]?.['id']);
    const set = gateway.fail(SESSIONS_PATH, { kind: 'answer', status: 503 });
    const found = await read(service(), user.token, id);
    set.clear();
    gate.open();
    assert.deepEqual([found.status, found.body.status], [200, 'generating']);
    assert.equal((await created).status, 201);
  });
}
