// Outages of the database: a model call that was not made is not charged, and candidates that are billed are kept and stored
// later. Every fault and its outcome: database_fault_table.ts.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { type Fault, FINISH_PATH, SESSIONS_PATH } from '../support/gateway.ts';
import { answer, content, gated, goodAnswer, httpError } from '../support/model_behaviour.ts';
import { expectStoredOnce } from '../support/stored_session.ts';
import {
  type Answer,
  create,
  endedSession,
  eventually,
  expectProblem,
  read,
  remaining,
  rowsOf,
  type Service,
  signIn,
  type SignedIn,
  started,
  type StartService,
} from './service.ts';

export function tests(start: StartService): void {
  const service = started(start);
  describe('a database outage before the session is opened', () => atTheOpening(service));
  describe('a database outage at the end of a generation', () => atTheCompletion(service));
  describe('a database write whose responses are all lost', () => unconfirmedWrites(service));
  describe('a database outage while a session is read', () => whenReading(service));
}

const refusals: [name: string, fault: Fault][] = [
  ['that answers 503', { kind: 'answer', status: 503 }],
  ['that answers 500 with HTML', { kind: 'answer', status: 500, body: '<html>', headers: { 'content-type': 'text/html' } }],
  ['that cuts the line', { kind: 'cut' }],
];

function atTheOpening(service: () => Service): void {
  it('a database that refuses every connection costs no generation', async () => {
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

  it('two failed openings do not fail the request', async () => {
    const { gateway } = service().world;
    const user = await signIn(service());
    const set = gateway.fail(SESSIONS_PATH, { kind: 'answer', status: 503 }, 2);
    const created = await create(service(), user.token);
    assert.equal(created.status, 201, created.text);
    assert.equal(set.hits, 2);
    expectStoredOnce(await rowsOf(service(), user), created.body);
  });

  it('candidates that arrive before the session is opened are stored', async () => {
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
    expectStoredOnce(await rowsOf(service(), user), body);
  });

  it('candidates are stored though the session could never be opened', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    openrouter.reset();
    const set = gateway.fail(SESSIONS_PATH, { kind: 'answer', status: 503 });
    const created = await create(service(), user.token);
    set.clear();
    assert.equal(created.status, 201, created.text);
    assert.equal(remaining(created)['generations'], 49);
    expectStoredOnce(await rowsOf(service(), user), created.body);
  });
}

function atTheCompletion(service: () => Service): void {
  /** Starts a generation whose result the database rejects. */
  const notPersisted = async (fault: Fault): Promise<{ user: SignedIn; failed: Answer; id: string; mend: () => void }> => {
    const user = await signIn(service());
    const set = service().world.gateway.fail(FINISH_PATH, fault);
    const failed = await create(service(), user.token);
    const [session] = (await rowsOf(service(), user)).sessions;
    return { user, failed, id: session?.['id'], mend: set.clear };
  };

  it('a session not yet persisted is read by its owner alone', async () => {
    const { id, mend } = await notPersisted({ kind: 'answer', status: 503 });
    const stranger = await signIn(service());
    expectProblem(await read(service(), stranger.token, id), 404, 'not_found');
    mend();
    expectProblem(await read(service(), stranger.token, id), 404, 'not_found');
  });

  it('a session not yet persisted survives a restart', async () => {
    const { user, id, mend } = await notPersisted({ kind: 'answer', status: 503 });
    await service().restart();
    mend();
    const found = await read(service(), user.token, id);
    assert.deepEqual([found.status, found.body.status, found.body.candidates.length], [200, 'completed', 20]);
    await endedSession(service(), user);
    expectStoredOnce(await rowsOf(service(), user), found.body);
  });

  it('the next generation persists the session as well', async () => {
    const { user, id, mend } = await notPersisted({ kind: 'answer', status: 503 });
    mend();
    const created = await create(service(), user.token);
    assert.equal(created.status, 201, created.text);
    const rows = await eventually('both are persisted', async () => {
      const rows = await rowsOf(service(), user);
      return rows.sessions.every(({ status }) => status === 'completed') ? rows : undefined;
    });
    assert.deepEqual(rows.sessions.map(({ id }) => id).sort(), [id, created.body.id].sort());
    assert.equal(rows.candidates.length, 40);
    assert.equal(rows.events.length, 2);
  });

  it('a session not yet persisted is persisted without a request', async () => {
    const { user, mend } = await notPersisted({ kind: 'answer', status: 503 });
    mend();
    // The backoff of the service, which a test cannot shorten.
    await endedSession(service(), user, 30_000);
    const rows = await rowsOf(service(), user);
    assert.deepEqual([rows.sessions.length, rows.candidates.length, rows.events.length], [1, 20, 1]);
  });

  it('a model failure not yet persisted is reported, and persisted later', async () => {
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
    await endedSession(service(), user);
    const { sessions, events } = await rowsOf(service(), user);
    assert.deepEqual([sessions[0]?.['status'], sessions[0]?.['error_code']], ['failed', 'ai_misconfigured']);
    assert.deepEqual(events.map(({ type }) => type), ['ai_session.failed']);
  });

  it('two failed completions do not fail the request', async () => {
    const user = await signIn(service());
    const set = service().world.gateway.fail(FINISH_PATH, { kind: 'cut' }, 2);
    const created = await create(service(), user.token);
    assert.equal(created.status, 201, created.text);
    assert.equal(set.hits, 2);
    expectStoredOnce(await rowsOf(service(), user), created.body);
  });

  it('a candidate with U+0000 and lone surrogates is stored', async () => {
    const user = await signIn(service());
    const candidates = '{"candidates":[{"front":"a\\u0000b \\ud83d c","back":"\\u0000\\udc00","prompt":"\\ufeffp\\u0001"}]}';
    service().world.openrouter.next(content(candidates));
    const created = await create(service(), user.token);
    assert.equal(created.status, 201, created.text);
    const { front, back, prompt } = created.body.candidates[0];
    assert.deepEqual({ front, back, prompt }, { front: 'ab \uFFFD c', back: '\uFFFD', prompt: 'p' });
    expectStoredOnce(await rowsOf(service(), user), created.body);
  });
}

function unconfirmedWrites(service: () => Service): void {
  it('an opening applied three times and never confirmed stores one session', async () => {
    const user = await signIn(service());
    const set = service().world.gateway.fail(SESSIONS_PATH, { kind: 'cut', kept: true });
    const created = await create(service(), user.token);
    set.clear();
    assert.equal(created.status, 201, created.text);
    expectStoredOnce(await rowsOf(service(), user), created.body);
  });

  it('a completion applied and never confirmed stores one session', async () => {
    const user = await signIn(service());
    const set = service().world.gateway.fail(FINISH_PATH, { kind: 'cut', kept: true });
    const failed = await create(service(), user.token);
    set.clear();
    expectProblem(failed, 500, 'database_error');
    assert.equal(remaining(failed)['generations'], 49);
    const id = (await rowsOf(service(), user)).sessions[0]?.['id'];
    const found = await read(service(), user.token, id);
    assert.deepEqual([found.body.status, found.body.candidates.length], ['completed', 20]);
    expectStoredOnce(await rowsOf(service(), user), found.body);
  });

  it('an opening applied and never confirmed ends with its generation', async () => {
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
    await endedSession(service(), user);
    const { sessions, candidates, events } = await rowsOf(service(), user);
    assert.deepEqual(sessions.map(({ status, error_code }) => [status, error_code]), [['failed', 'database_error']]);
    assert.deepEqual([candidates.length, events.map(({ type }) => type)], [0, ['ai_session.failed']]);
  });
}

function whenReading(service: () => Service): void {
  for (const [name, fault] of refusals) {
    it(`a read reports a database ${name}`, async () => {
      const user = await signIn(service());
      const { body } = await create(service(), user.token);
      const set = service().world.gateway.fail(SESSIONS_PATH, fault);
      const failed = await read(service(), user.token, body.id);
      set.clear();
      expectProblem(failed, 500, 'database_error');
      assert.equal((await read(service(), user.token, body.id)).status, 200);
    });
  }

  it('a running session is read without the database', async () => {
    const { gateway, openrouter } = service().world;
    const gate = createGate();
    const user = await signIn(service());
    openrouter.reset();
    openrouter.next(answer({ hold: { gate, after_candidates: 1 } }));
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
