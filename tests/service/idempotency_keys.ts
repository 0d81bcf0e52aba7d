// Idempotency-Key: the same key and body is the same session for 24 hours, one model call and one charge, in any response
// mode, at once or later. A retryable failure frees the key, a final one is replayed. (Crashes and lost replies:
// tests/hosts/idempotency_key_crashes.test.ts and lost_replies.test.ts.)

import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { describe, it } from 'node:test';
import { parseEvents } from '../support/event_stream.ts';
import { createGate } from '../support/gate.ts';
import { FINISH_PATH, type GatewayRequest, SESSIONS_PATH } from '../support/gateway.ts';
import { answer, cutByLength, gated, httpError, type ModelBehaviour, refusal } from '../support/model_behaviour.ts';
import type { ModelRequest } from '../support/model_request.ts';
import {
  type Answer,
  candidateOf,
  create,
  endedSession,
  eventually,
  expectProblem,
  lesson,
  read,
  remaining,
  type Row,
  rowsOf,
  sendRequest,
  type Service,
  type SignedIn,
  signIn,
  started,
  type StartService,
} from './service.ts';

const REOPEN = '/rest/v1/rpc/reopen_ai_session';

const BURST = 200;
const GENERATIONS = 50;

const MODES = { 'in sync mode': {}, 'in stream mode': { accept: 'text/event-stream' }, 'in async mode': { prefer: 'respond-async' } } as const;
type Mode = keyof typeof MODES;
const modes = Object.keys(MODES) as Mode[];

const body = { input_text: lesson(), model: 'test/first' };

export function tests(start: StartService): void {
  const service = started(start, { RATE_LIMIT_BURST: `${BURST}/60` });
  describe('a key', () => sameKey(service));
  describe('a key that is sent many times at once', () => atOnce(service));
  describe('a key with another body', () => otherBody(service));
  describe('the header', () => header(service));
  describe('a retryable failure', () => retried(service));
  describe('a final failure', () => replayed(service));
  describe('a database outage', () => withoutDatabase(service));
  describe('a quota', () => quotas(start));
}

/** `POST /ai-sessions` with a key. */
function keyed(service: Service, { token }: SignedIn, key: string, { mode = 'in sync mode', sent = body }: { mode?: Mode; sent?: unknown } = {}): Promise<Answer> {
  return create(service, token, sent, { 'idempotency-key': key, ...MODES[mode] });
}

/** The session of a response, in any mode. */
function sessionIn({ headers, text }: Answer): string {
  const id = headers.get('location')?.split('/').at(-1);
  assert.ok(id, text);
  return id;
}

/** The candidates of a response; undefined for one that did not wait for them. */
function candidatesIn(answered: Answer): object[] | undefined {
  if (answered.body !== undefined) return answered.body.status === 'generating' ? undefined : answered.body.candidates;
  const events = parseEvents(answered.text);
  assert.equal(events.at(-1)?.event, 'done', answered.text);
  return events.filter(({ event }) => event === 'candidate').map(({ data: { index: _, ...candidate } }) => candidate);
}

const callsFor = (service: Service, id: string): ModelRequest[] =>
  service.world.openrouter.requests.where(({ headers }) => headers['x-session-id'] === id);

const hasToken = ({ token }: SignedIn) => ({ headers }: GatewayRequest) => headers['authorization'] === `Bearer ${token}`;

/** Expects the user's only session: its row, its candidates, and these events. */
async function expectOneSession(service: Service, user: SignedIn, id: string, events: [type: string, run: number][], calls = 1): Promise<Row> {
  const rows = await rowsOf(service, user);
  assert.deepEqual(rows.sessions.map(({ id }) => id), [id]);
  assert.deepEqual(rows.events.map(({ type, run, session_id }) => [type, run, session_id]), events.map(([type, run]) => [`ai_session.${type}`, run, id]));
  assert.equal(callsFor(service, id).length, calls, 'model calls');
  return rows.sessions[0]!;
}

function sameKey(service: () => Service): void {
  for (const first of modes) {
    it(`a key sent ${first} is one session and one charge in every mode`, async () => {
      const user = await signIn(service());
      const key = crypto.randomUUID();
      const id = sessionIn(await keyed(service(), user, key, { mode: first }));
      let burst = BURST - 1;
      for (const mode of [...modes, ...modes]) {
        const again = await keyed(service(), user, key, { mode });
        burst -= 1;
        assert.equal(again.status, { 'in sync mode': 201, 'in stream mode': 200, 'in async mode': 202 }[mode], again.text);
        assert.equal(sessionIn(again), id);
        const { candidates } = await rowsOf(service(), user);
        const stored = candidates.map(candidateOf);
        if (mode !== 'in async mode') assert.equal(stored.length, 20);
        assert.deepEqual(candidatesIn(again) ?? stored, stored);
        // Each request counts as a request only.
        assert.deepEqual(remaining(again), { burst, generations: GENERATIONS - 1 });
      }
      await expectOneSession(service(), user, id, [['completed', 1]]);
    });
  }

  it('a repeated key has the same response', async () => {
    const user = await signIn(service());
    const [first, again] = [await keyed(service(), user, 'k'), await keyed(service(), user, 'k')];
    assert.equal(first.status, 201, first.text);
    assert.deepEqual([again.status, again.text, again.headers.get('location')], [201, first.text, first.headers.get('location')]);
  });

  it('a repeated key of a partial session is partial', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(cutByLength(3));
    const [first, again] = [await keyed(service(), user, 'k'), await keyed(service(), user, 'k')];
    assert.equal(first.body.partial, true);
    assert.equal(again.text, first.text);
  });

  it('a key survives a restart', async () => {
    const user = await signIn(service());
    const first = await keyed(service(), user, 'k');
    await service().restart();
    const again = await keyed(service(), user, 'k');
    assert.deepEqual([again.status, again.text], [201, first.text]);
    assert.equal(remaining(again)['generations'], GENERATIONS - 1);
    await expectOneSession(service(), user, first.body.id, [['completed', 1]]);
  });

  it('a key survives its disconnected client', async () => {
    const gate = createGate();
    const user = await signIn(service());
    const leaving = new AbortController();
    service().world.openrouter.next(gated(gate));
    const options = { token: user.token, body, headers: { 'idempotency-key': 'k' }, signal: leaving.signal };
    const left = assert.rejects(sendRequest(service(), 'POST', '/ai-sessions', options), { name: 'AbortError' });
    await gate.reached;
    leaving.abort();
    await left;
    const again = keyed(service(), user, 'k');
    gate.open();
    const { status, body: created } = await again;
    assert.equal(status, 201);
    await expectOneSession(service(), user, created.id, [['completed', 1]]);
  });

  it('equal keys of two users are two sessions', async () => {
    const users = [await signIn(service()), await signIn(service())];
    const answers = await Promise.all(users.map((user) => keyed(service(), user, 'k')));
    for (const [index, user] of users.entries()) {
      const { status, body: created } = answers[index]!;
      assert.equal(status, 201);
      await expectOneSession(service(), user, created.id, [['completed', 1]]);
    }
    assert.notEqual(answers[0]?.body.id, answers[1]?.body.id);
  });

  it('two keys, or none, with one body are separate sessions', async () => {
    const user = await signIn(service());
    const ids = [(await keyed(service(), user, 'k')).body.id, (await keyed(service(), user, 'K')).body.id];
    for (const _ of [1, 2]) ids.push((await create(service(), user.token, body)).body.id);
    assert.equal(new Set(ids).size, 4);
    assert.equal((await rowsOf(service(), user)).sessions.length, 4);
  });

  it('a key is the same for all tokens of its user', async () => {
    const user = await signIn(service());
    const first = await keyed(service(), user, 'k');
    const token = service().world.auth.token(user, { alg: 'RS256' });
    assert.equal((await keyed(service(), { ...user, token }, 'k')).text, first.text);
  });
}

function atOnce(service: () => Service): void {
  const AT_ONCE = 20;

  it('concurrent requests with one key share one session', async () => {
    const { openrouter } = service().world;
    const gate = createGate();
    const user = await signIn(service());
    openrouter.next(gated(gate));
    const answering = Array.from({ length: AT_ONCE }, (_, n) => keyed(service(), user, 'k', { mode: modes[n % 3]! }));
    await gate.reached;
    // A request that has counted has reached the user object: each of the others is one more subscriber.
    const counted = async () => (await create(service(), user.token, '{')).headers.get('ratelimit') ?? '';
    await eventually('all have arrived', async () => (Number((await counted()).match(/"burst";r=(\d+)/)?.[1]) < BURST - AT_ONCE ? true : undefined));
    gate.open();
    const answers = await Promise.all(answering);

    assert.deepEqual([...new Set(answers.map(sessionIn))].length, 1);
    const plain = answers.filter((_, n) => modes[n % 3] === 'in sync mode');
    assert.deepEqual([...new Set(plain.map(({ status }) => status))], [201]);
    assert.equal(new Set(plain.map(({ text }) => text)).size, 1, 'all responses are equal');
    for (const response of answers) assert.deepEqual(candidatesIn(response) ?? plain[0]?.body.candidates, plain[0]?.body.candidates);
    for (const response of answers) assert.equal(remaining(response)['generations'], GENERATIONS - 1);
    await expectOneSession(service(), user, sessionIn(answers[0]!), [['completed', 1]]);
  });

  it('concurrent requests share a failure, and a later one tries again', async () => {
    const { openrouter } = service().world;
    const gate = createGate();
    const user = await signIn(service());
    openrouter.next(gated(gate, refusal()));
    const answering = Array.from({ length: AT_ONCE }, () => keyed(service(), user, 'k'));
    await gate.reached;
    gate.open();
    const answers = await Promise.all(answering);
    for (const response of answers) expectProblem(response, 500, 'ai_refused');
    const [session] = (await rowsOf(service(), user)).sessions;
    await expectOneSession(service(), user, session?.['id'], [['failed', 1]]);
    assert.equal(remaining(await keyed(service(), user, 'k'))['generations'], GENERATIONS - 1);
  });

  it('concurrent requests after a retryable failure are one more attempt', async () => {
    const { openrouter } = service().world;
    const user = await signIn(service());
    openrouter.next(httpError(503, {}), 3);
    expectProblem(await keyed(service(), user, 'k'), 500, 'ai_unavailable');
    const gate = createGate();
    openrouter.next(gated(gate));
    const answering = Array.from({ length: AT_ONCE }, () => keyed(service(), user, 'k'));
    await gate.reached;
    gate.open();
    const answers = await Promise.all(answering);
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [201]);
    assert.equal(new Set(answers.map(({ text }) => text)).size, 1);
    assert.equal(remaining(answers[0]!)['generations'], GENERATIONS - 1);
    await expectOneSession(service(), user, answers[0]?.body.id, [['failed', 1], ['completed', 2]], 4);
  });
}

function otherBody(service: () => Service): void {
  const others: [name: string, sent: object][] = [
    ['another text', { ...body, input_text: `${lesson()} And one more.` }],
    ['another model', { ...body, model: 'test/second' }],
  ];
  for (const [name, sent] of others) {
    for (const mode of modes) {
      it(`a key with ${name} is refused ${mode}, during and after its session`, async () => {
        const gate = createGate();
        const user = await signIn(service());
        service().world.openrouter.next(gated(gate));
        const first = keyed(service(), user, 'k');
        await gate.reached;
        for (const when of ['running', 'ended']) {
          const refused = await keyed(service(), user, 'k', { mode, sent });
          expectProblem(refused, 422, 'idempotency_key_reused');
          assert.equal(remaining(refused)['generations'], GENERATIONS - 1, 'it counts as a request only');
          if (when === 'running') gate.open();
          await first;
        }
        await expectOneSession(service(), user, (await first).body.id, [['completed', 1]]);
        assert.equal((await keyed(service(), user, 'k')).text, (await first).text, 'the key still belongs to the first request');
      });
    }
  }

  it('a key with another body is refused after a retryable failure, too', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(httpError(503), 3);
    expectProblem(await keyed(service(), user, 'k'), 500, 'ai_unavailable');
    expectProblem(await keyed(service(), user, 'k', { sent: { ...body, model: 'test/second' } }), 422, 'idempotency_key_reused');
    assert.equal((await keyed(service(), user, 'k')).status, 201);
  });

  it('a text that differs only in removed characters is the same body', async () => {
    const user = await signIn(service());
    const first = await keyed(service(), user, 'k', { sent: { ...body, input_text: `One.\nTwo.\n${lesson()}` } });
    for (const input_text of [` One.\r\nTwo.\r${lesson()}\n\n`, `\uFEFFOne.\u0000\nTwo.\u{E0041}\n${lesson()}\u007F`]) {
      const again = await keyed(service(), user, 'k', { sent: { model: 'test/first', input_text } });
      assert.deepEqual([again.status, again.text], [201, first.text]);
    }
    await expectOneSession(service(), user, first.body.id, [['completed', 1]]);
  });

  for (const [name, sent, code] of [
    ['that is no JSON', '{', 'malformed_json'],
    ['with a text that is too short', { ...body, input_text: 'x' }, 'validation_failed'],
    ['with a model that is not allowed', { ...body, model: 'test/third' }, 'validation_failed'],
  ] as const) {
    it(`a request ${name} does not use its key`, async () => {
      const user = await signIn(service());
      expectProblem(await keyed(service(), user, 'k', { sent }), 400, code);
      assert.equal((await keyed(service(), user, 'k')).status, 201);
    });
  }
}

function header(service: () => Service): void {
  /** Sends without `fetch`, which joins lines of one name and trims. Returns the status and the document. */
  const raw = (token: string, lines: string[]): Promise<{ status: number | undefined; document: any; ratelimit: string }> =>
    new Promise((resolve, reject) => {
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json', connection: 'close', 'idempotency-key': lines };
      const outgoing = httpRequest(`${service().url}/ai-sessions`, { method: 'POST', headers }, async (answered) => {
        let text = '';
        for await (const chunk of answered) text += chunk;
        resolve({ status: answered.statusCode, document: JSON.parse(text), ratelimit: String(answered.headers['ratelimit']) });
      });
      outgoing.on('error', reject);
      outgoing.end(JSON.stringify(body));
    });

  it('a quoted key equals the same key without quotes', async () => {
    const user = await signIn(service());
    const first = await keyed(service(), user, '"8e03978e-40d5-43dd-bc93-6894a57f9324"');
    for (const spelling of ['8e03978e-40d5-43dd-bc93-6894a57f9324', '"8e03978e-40d5-43dd-bc93-6894a57f9324"; v=1']) {
      assert.equal((await keyed(service(), user, spelling)).text, first.text);
    }
  });

  for (const [name, key] of [
    ['one character', 'k'],
    ['255 characters', 'k'.repeat(255)],
    ['255 quoted characters', `"${'k'.repeat(255)}"`],
    ['every visible character', `"${Array.from({ length: 94 }, (_, n) => String.fromCharCode(33 + n)).join('').replace(/["\\]/g, '\\$&')}"`],
    ['a comma', 'a,b'],
  ] as const) {
    it(`a key of ${name} is valid`, async () => {
      const user = await signIn(service());
      const { status, document } = await raw(user.token, [key]);
      assert.equal(status, 201);
      assert.equal((await raw(user.token, [key])).document.id, document.id);
    });
  }

  for (const [name, lines] of [
    ['nothing', ['']],
    ['blanks', ['  ']],
    ['empty quotes', ['""']],
    ['256 characters', ['k'.repeat(256)]],
    ['256 quoted characters', [`"${'k'.repeat(256)}"`]],
    ['a blank within', ['a b']],
    ['a blank within quotes', ['"a b"']],
    ['a tab within', ['a\tb']],
    ['an umlaut', ['schl\u00fcssel']],
    ['half of a pair of quotes', ['"a']],
    ['two keys', ['"a", "b"']],
    ['two lines', ['a', 'b']],
    ['two lines of the same', ['a', 'a']],
  ] as const) {
    it(`a key of ${name} is refused by name and counts as a request only`, async () => {
      const user = await signIn(service());
      const { status, document, ratelimit } = await raw(user.token, [...lines]);
      assert.deepEqual([status, document.code], [400, 'invalid_parameter']);
      assert.deepEqual(document.errors.map(({ field }: { field: string }) => field), ['Idempotency-Key']);
      assert.match(document.detail, /Idempotency-Key/);
      assert.match(ratelimit, new RegExp(`"burst";r=${BURST - 1};.*"generations";r=${GENERATIONS}`));
      assert.deepEqual((await rowsOf(service(), user)).sessions, []);
    });
  }
}

function retried(service: () => Service): void {
  const passing: [code: string, behaviour: ModelBehaviour, calls: number][] = [
    ['ai_unavailable', httpError(503), 3],
    ['ai_timeout', httpError(504), 3],
    ['ai_invalid_response', answer({ content: 'I have no cards today.' }), 3],
  ];
  for (const [code, behaviour, calls] of passing) {
    for (const mode of modes) {
      it(`${code} frees the key: a repetition ${mode} tries again`, async () => {
        const user = await signIn(service());
        service().world.openrouter.next(behaviour, calls);
        const failed = await keyed(service(), user, 'k');
        assert.equal(expectProblem(failed, 500, code).retryable, true);
        assert.equal(remaining(failed)['generations'], GENERATIONS);
        const [first] = (await rowsOf(service(), user)).sessions;
        assert.deepEqual([first?.['status'], first?.['error_code'], first?.['run']], ['failed', code, 1]);

        const again = await keyed(service(), user, 'k', { mode });
        assert.equal(sessionIn(again), first?.['id']);
        assert.equal(remaining(again)['generations'], GENERATIONS - 1);
        const response = await keyed(service(), user, 'k');
        assert.equal(response.status, 201, response.text);
        assert.deepEqual(candidatesIn(again) ?? response.body.candidates, response.body.candidates);
        const session = await expectOneSession(service(), user, first?.['id'], [['failed', 1], ['completed', 2]], calls + 1);
        assert.deepEqual([session['status'], session['error_code'], session['run']], ['completed', null, 2]);
        assert.deepEqual((await read(service(), user.token, first?.['id'])).body.candidates, response.body.candidates);
        assert.equal(remaining(response)['generations'], GENERATIONS - 1);
      });
    }
  }

  it('a key is freed by two failures with a restart in between', async () => {
    const user = await signIn(service());
    for (const _ of [1, 2]) {
      service().world.openrouter.next(httpError(503), 3);
      expectProblem(await keyed(service(), user, 'k'), 500, 'ai_unavailable');
      await service().restart();
    }
    const created = await keyed(service(), user, 'k');
    assert.equal(created.status, 201, created.text);
    await expectOneSession(service(), user, created.body.id, [['failed', 1], ['failed', 2], ['completed', 3]], 7);
    assert.equal(remaining(created)['generations'], GENERATIONS - 1);
  });

  it('a final failure after a retryable one is replayed', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(httpError(503), 3);
    expectProblem(await keyed(service(), user, 'k'), 500, 'ai_unavailable');
    service().world.openrouter.next(refusal());
    for (const _ of [1, 2, 3]) expectProblem(await keyed(service(), user, 'k'), 500, 'ai_refused');
    const [session] = (await rowsOf(service(), user)).sessions;
    await expectOneSession(service(), user, session?.['id'], [['failed', 1], ['failed', 2]], 4);
  });

  it('a repeated session is generating for its readers', async () => {
    const { gateway, openrouter } = service().world;
    const [gate, opening] = [createGate(), createGate()];
    const user = await signIn(service());
    openrouter.next(httpError(503), 3);
    expectProblem(await keyed(service(), user, 'k'), 500, 'ai_unavailable');
    openrouter.next(gated(gate));
    const held = gateway.fail((request) => request.path === REOPEN && hasToken(user)(request), { kind: 'gate', gate: opening });
    const again = await keyed(service(), user, 'k', { mode: 'in async mode' });
    assert.deepEqual([again.status, again.body.status], [202, 'generating']);
    await opening.reached;
    // The database still has the failure of the first run.
    const [row] = (await rowsOf(service(), user)).sessions;
    assert.equal(row?.['status'], 'failed');
    const running = await read(service(), user.token, again.body.id);
    assert.deepEqual([running.body.status, running.body.error], ['generating', null]);
    assert.ok(Number(running.headers.get('retry-after')) > 0);
    held.clear();
    opening.open();
    gate.open();
    assert.equal((await keyed(service(), user, 'k')).status, 201);
    const found = await read(service(), user.token, again.body.id);
    assert.deepEqual([found.body.status, found.body.candidates.length], ['completed', 20]);
  });

  it('a stopped session is tried again', async () => {
    const gate = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(gated(gate));
    const waiting = keyed(service(), user, 'k');
    const later = await keyed(service(), user, 'k', { mode: 'in async mode' });
    assert.equal((await sendRequest(service(), 'DELETE', `/ai-sessions/${sessionIn(later)}`, { token: user.token })).status, 204);
    expectProblem(await waiting, 409, 'cancelled');
    gate.open();
    const created = await keyed(service(), user, 'k');
    assert.equal(created.status, 201, created.text);
    assert.equal(created.body.id, sessionIn(later));
    assert.equal(remaining(created)['generations'], GENERATIONS - 1);
    const { events } = await rowsOf(service(), user);
    assert.deepEqual(events.map(({ type, run }) => [type, run]), [['ai_session.failed', 1], ['ai_session.completed', 2]]);
  });
}

function replayed(service: () => Service): void {
  for (const [code, behaviour, used] of [
    ['ai_refused', refusal(), 1],
    ['ai_misconfigured', httpError(402), 0],
  ] as const) {
    it(`${code} is replayed in every mode without a call or charge`, async () => {
      const user = await signIn(service());
      service().world.openrouter.next(behaviour);
      const first = await keyed(service(), user, 'k');
      assert.equal(expectProblem(first, 500, code).retryable, false);
      const [session] = (await rowsOf(service(), user)).sessions;
      for (const restarts of [false, true]) {
        if (restarts) await service().restart();
        const plain = await keyed(service(), user, 'k');
        assert.deepEqual({ ...expectProblem(plain, 500, code), request_id: '' }, { ...first.body, request_id: '', type: plain.body.type });
        assert.equal(remaining(plain)['generations'], GENERATIONS - used);
        const stream = await keyed(service(), user, 'k', { mode: 'in stream mode' });
        assert.match(stream.text, new RegExp(`event: error\ndata: .*"code":"${code}"`));
        const later = await keyed(service(), user, 'k', { mode: 'in async mode' });
        assert.deepEqual([later.status, later.body.status, later.body.error], [202, 'failed', code]);
      }
      await expectOneSession(service(), user, session?.['id'], [['failed', 1]]);
    });
  }
}

function withoutDatabase(service: () => Service): void {
  it('an outage at the opening is not charged and frees the key', async () => {
    const gate = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(gated(gate));
    const away = service().world.gateway.fail(hasToken(user), { kind: 'cut' });
    const failed = await keyed(service(), user, 'k');
    assert.equal(expectProblem(failed, 500, 'database_error').retryable, true);
    assert.equal(remaining(failed)['generations'], GENERATIONS);
    gate.open();
    away.clear();
    const created = await keyed(service(), user, 'k');
    assert.equal(created.status, 201, created.text);
    assert.equal(remaining(created)['generations'], GENERATIONS - 1);
    // The failure of the first run was not yet persisted when the second run replaced it.
    const { sessions, events, candidates } = await rowsOf(service(), user);
    assert.deepEqual(sessions.map(({ id, status }) => [id, status]), [[created.body.id, 'completed']]);
    assert.deepEqual(events.map(({ type }) => type).at(-1), 'ai_session.completed');
    assert.equal(candidates.length, 20);
  });

  it('a refused opening leaves no row; the next attempt inserts it', async () => {
    const gate = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(gated(gate));
    const refusing = service().world.gateway.fail((request) => request.path === SESSIONS_PATH && hasToken(user)(request), { kind: 'answer', status: 403, body: { code: '42501', message: 'no' } });
    expectProblem(await keyed(service(), user, 'k'), 500, 'database_error');
    gate.open();
    refusing.clear();
    assert.deepEqual((await rowsOf(service(), user)).sessions, []);
    // If the model was not called, its first answer is still queued.
    service().world.openrouter.reset();
    const created = await keyed(service(), user, 'k');
    assert.equal(created.status, 201, created.text);
    const { sessions, events } = await rowsOf(service(), user);
    assert.deepEqual(sessions.map(({ id, status, run }) => [id, status, run]), [[created.body.id, 'completed', 2]]);
    assert.deepEqual(events.map(({ type, run }) => [type, run]), [['ai_session.completed', 2]]);
  });

  it('an unconfirmed opening and a later run leave one row', async () => {
    const gate = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(gated(gate));
    const lostAnswers = service().world.gateway.fail((request) => request.path === SESSIONS_PATH && hasToken(user)(request), { kind: 'cut', kept: true });
    expectProblem(await keyed(service(), user, 'k'), 500, 'database_error');
    gate.open();
    lostAnswers.clear();
    const created = await keyed(service(), user, 'k');
    assert.equal(created.status, 201, created.text);
    const { sessions, events } = await rowsOf(service(), user);
    assert.deepEqual(sessions.map(({ id, status, run }) => [id, status, run]), [[created.body.id, 'completed', 2]]);
    assert.deepEqual(events.map(({ run }) => run).at(-1), 2);
    assert.equal(new Set(events.map(({ run }) => run)).size, events.length, 'a run ends once');
  });

  it('a refused later run ends the row that an earlier run opened', async () => {
    const { gateway } = service().world;
    const gate = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(gated(gate), 2);
    const faults = [
      gateway.fail((request) => request.path === SESSIONS_PATH && hasToken(user)(request), { kind: 'cut', kept: true }),
      gateway.fail((request) => request.path === FINISH_PATH && hasToken(user)(request), { kind: 'cut' }),
      gateway.fail((request) => request.path === REOPEN && hasToken(user)(request), { kind: 'answer', status: 403, body: { code: '42501', message: 'no' } }),
    ];
    for (const _ of [1, 2]) expectProblem(await keyed(service(), user, 'k'), 500, 'database_error');
    assert.deepEqual((await rowsOf(service(), user)).sessions.map(({ status, run }) => [status, run]), [['generating', 1]]);
    for (const fault of faults) fault.clear();
    gate.open();
    service().world.openrouter.reset();
    // The backoff of the service, which a test cannot shorten.
    const session = await endedSession(service(), user, 30_000);
    assert.deepEqual([session['status'], session['error_code'], session['run']], ['failed', 'database_error', 2]);
  });

  for (const kept of [false, true]) {
    it(`an outage at the completion${kept ? ' after its write' : ''} keeps the candidates for the key`, async () => {
      const user = await signIn(service());
      const away = service().world.gateway.fail((request) => request.path === FINISH_PATH && hasToken(user)(request), { kind: 'answer', status: 503, kept });
      const failed = await keyed(service(), user, 'k');
      expectProblem(failed, 500, 'database_error');
      assert.equal(remaining(failed)['generations'], GENERATIONS - 1);
      const still = await keyed(service(), user, 'k');
      expectProblem(still, 500, 'database_error');
      await service().restart();
      away.clear();
      const created = await keyed(service(), user, 'k');
      assert.equal(created.status, 201, created.text);
      assert.equal(remaining(created)['generations'], GENERATIONS - 1);
      assert.equal(created.body.candidates.length, 20);
      await expectOneSession(service(), user, created.body.id, [['completed', 1]]);
      assert.equal((await keyed(service(), user, 'k')).text, created.text);
    });
  }

  for (const mode of modes) {
    it(`a key repeated ${mode} during an outage reports it and recovers`, async () => {
      const user = await signIn(service());
      const first = await keyed(service(), user, 'k');
      const away = service().world.gateway.fail(hasToken(user), { kind: 'cut' });
      const failed = await keyed(service(), user, 'k', { mode });
      assert.equal(expectProblem(failed, 500, 'database_error').retryable, true);
      assert.equal(remaining(failed)['generations'], GENERATIONS - 1);
      away.clear();
      assert.equal((await keyed(service(), user, 'k')).text, first.text);
      await expectOneSession(service(), user, first.body.id, [['completed', 1]]);
    });
  }

  it('an outage with an expired token leaves the key usable', async () => {
    const expires_in_s = 2;
    const signedIn = await signIn(service());
    const ends_ms = Date.now() + expires_in_s * 1000;
    const user = { ...signedIn, token: service().world.auth.token(signedIn, { expires_in_s }) };
    const away = service().world.gateway.fail((request) => request.path === FINISH_PATH && hasToken(user)(request), { kind: 'answer', status: 503 });
    expectProblem(await keyed(service(), user, 'k'), 500, 'database_error');
    await eventually('the token has expired', () => (Date.now() > ends_ms + 1000 ? true : undefined));
    // Within the 30 s for which clocks may differ.
    expectProblem(await keyed(service(), user, 'k'), 500, 'database_error');
    const stream = await keyed(service(), user, 'k', { mode: 'in stream mode' });
    assert.match(stream.text, /event: error\ndata: .*"code":"database_error"/);
    const { body: later } = await keyed(service(), user, 'k', { mode: 'in async mode' });
    const events = await sendRequest(service(), 'GET', `/ai-sessions/${later.id}/events`, { token: user.token });
    assert.match(events.text, /event: error\ndata: .*"code":"database_error"/);
    away.clear();
    const created = await keyed(service(), signedIn, 'k');
    assert.equal(created.status, 201, created.text);
    await expectOneSession(service(), user, created.body.id, [['completed', 1]]);
  });
}

function quotas(start: StartService): void {
  const service = started(start, { RATE_LIMIT_BURST: '6/600', RATE_LIMIT_GENERATIONS: '2/3600', RATE_LIMIT_CONCURRENT: '1' });

  it('an exhausted generations policy does not block a replay', async () => {
    const user = await signIn(service());
    const first = await keyed(service(), user, 'k');
    assert.deepEqual(remaining(await keyed(service(), user, 'other')), { burst: 4, generations: 0 });
    const again = await keyed(service(), user, 'k');
    assert.deepEqual([again.status, again.text, remaining(again)], [201, first.text, { burst: 3, generations: 0 }]);
    const refused = await keyed(service(), user, 'third');
    assert.deepEqual(expectProblem(refused, 429, 'rate_limited')['violated-policies'], ['generations']);
  });

  it('an exhausted generations policy refuses another attempt', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(httpError(503), 3);
    expectProblem(await keyed(service(), user, 'k'), 500, 'ai_unavailable');
    for (const key of ['a', 'b']) assert.equal((await keyed(service(), user, key)).status, 201);
    for (const _ of [1, 2]) {
      const refused = await keyed(service(), user, 'k');
      assert.deepEqual(expectProblem(refused, 429, 'rate_limited')['violated-policies'], ['generations']);
    }
    expectProblem(await keyed(service(), user, 'k', { sent: { ...body, model: 'test/second' } }), 422, 'idempotency_key_reused');
    const { sessions } = await rowsOf(service(), user);
    assert.deepEqual(sessions.map(({ status, run }) => [status, run]), [['failed', 1], ['completed', 1], ['completed', 1]]);
  });

  it('a request that joins needs no concurrent place', async () => {
    const gate = createGate();
    const user = await signIn(service());
    service().world.openrouter.next(gated(gate));
    const first = keyed(service(), user, 'k');
    await gate.reached;
    const joined = await keyed(service(), user, 'k', { mode: 'in async mode' });
    assert.equal(joined.status, 202, joined.text);
    const refused = await keyed(service(), user, 'other');
    assert.deepEqual(expectProblem(refused, 429, 'rate_limited')['violated-policies'], ['concurrent']);
    gate.open();
    assert.equal((await first).status, 201);
    const later = await keyed(service(), user, 'other');
    assert.equal(later.status, 201, 'a refused key is not in use');
    assert.notEqual(later.body.id, (await first).body.id);
  });

  it('replayed requests count toward the burst', async () => {
    const user = await signIn(service());
    for (let left = 5; left >= 0; left -= 1) {
      const created = await keyed(service(), user, 'k');
      assert.deepEqual([created.status, remaining(created)], [201, { burst: left, generations: 1 }]);
    }
    const refused = await keyed(service(), user, 'k');
    assert.deepEqual(expectProblem(refused, 429, 'rate_limited')['violated-policies'], ['burst']);
    assert.equal((await rowsOf(service(), user)).sessions.length, 1);
  });
}
