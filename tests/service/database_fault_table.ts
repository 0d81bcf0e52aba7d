// Every fault of the database, at the opening and at the completion of a session, each with its outcome. Each case has its
// own user, and only the requests of that user meet the fault: the cases run concurrently, because some hang for long.

import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { type Fault, FINISH_PATH, type GatewayRequest, SESSIONS_PATH, type SetFault } from '../support/gateway.ts';
import { answer, gated, httpError, type ModelBehaviour, refusal, silence } from '../support/model_behaviour.ts';
import { type MarkedScript, scriptByMark } from '../support/model_by_mark.ts';
import { expectStoredOnce } from '../support/stored_session.ts';
import { within } from '../support/within.ts';
import {
  type Answer,
  create,
  eventually,
  expectProblem,
  lesson,
  read,
  remaining,
  rowsOf,
  type Service,
  signIn,
  type SignedIn,
  started,
  type StartService,
} from './service.ts';

type Row = { name: string; fault: Fault; /** Attempts at the same write before it counts as failed. */ attempts: number };

const passing: Row[] = [
  ...[500, 502, 503, 429, 408].map((status): Row => ({ name: `answers ${status}`, fault: { kind: 'answer', status, body: { message: 'no' } }, attempts: 3 })),
  { name: 'answers 503 with a page', fault: { kind: 'answer', status: 503, body: '<html>', headers: { 'content-type': 'text/html' } }, attempts: 3 },
  { name: 'cuts the connection', fault: { kind: 'cut' }, attempts: 3 },
  { name: 'hangs', fault: { kind: 'hang' }, attempts: 3 },
  { name: 'never ends its response', fault: { kind: 'endless' }, attempts: 3 },
];
const refusing: Row[] = [
  { name: 'answers 400', fault: { kind: 'answer', status: 400, body: { code: '22023', message: 'no' } }, attempts: 1 },
  { name: 'rejects the token', fault: { kind: 'answer', status: 401, body: { code: 'PGRST301', message: 'JWT expired' } }, attempts: 1 },
  { name: 'answers 403', fault: { kind: 'answer', status: 403, body: { code: '42501', message: 'permission denied' } }, attempts: 1 },
  { name: 'answers 404', fault: { kind: 'answer', status: 404, body: { code: 'PGRST205', message: 'no such table' } }, attempts: 1 },
  { name: 'answers 409', fault: { kind: 'answer', status: 409, body: { code: '23001', message: 'no' } }, attempts: 1 },
];

export function tests(start: StartService): void {
  // Longer than an opening that hangs, so that the idle timeout does not end it.
  const service = started(start, { AI_IDLE_TIMEOUT_MS: '50000' });
  let scripted: ReturnType<typeof scriptByMark>;
  before(() => {
    scripted = scriptByMark(service().world.openrouter);
  });
  const begin: Begin = async (path, fault, behaviour, { times, expires_in_s } = {}) => {
    const signedIn = await signIn(service());
    const token = expires_in_s === undefined ? signedIn.token : service().world.auth.token(signedIn, { expires_in_s });
    const user = { ...signedIn, token };
    const script = scripted([behaviour]);
    const set = service().world.gateway.fail(writesOf(user, path), fault, times);
    const answer = create(service(), user.token, { input_text: `${script.mark} ${lesson()}`, model: 'test/first' });
    return { service: service(), user, script, set, answer };
  };
  // Nearly all of them wait, most for the 5 s timeout of a request to the database.
  const concurrency = 24;
  describe('a database fault', { concurrency }, () => {
    describe('at the opening', { concurrency }, () => atTheOpening(begin));
    describe('at the completion', { concurrency }, () => atTheCompletion(begin));
    describe('a slow response', { concurrency }, () => slow(begin));
    describe('an applied write without confirmation', { concurrency }, () => unacknowledged(begin));
    describe('an HTML page in place of a response', { concurrency }, () => pages(begin));
    describe('an expired token', () => expiredTokens(begin));
  });
  describe('an outage of the whole database', () => wholeDatabase(service, begin));
}

type Begun = { service: Service; user: SignedIn; script: MarkedScript; set: SetFault; answer: Promise<Answer> };

/** Creates a user whose writes to the path meet the fault, and sends the request that makes them. */
type Begin = (
  path: string,
  fault: Fault,
  behaviour: ModelBehaviour,
  /** How many writes meet it (default: all, until it is cleared), and the lifetime of the token. */
  wanted?: { times?: number; expires_in_s?: number },
) => Promise<Begun>;

const writesOf = ({ id }: SignedIn, path: string) => (request: GatewayRequest) =>
  request.method === 'POST' && request.path === path && subjectOf(request) === id;

/** The subject of the token: the owner may send another one later. */
function subjectOf({ headers }: GatewayRequest): string | undefined {
  const claims = String(headers['authorization']).split('.')[1] ?? '';
  return (JSON.parse(Buffer.from(claims, 'base64url').toString() || '{}') as { sub?: string }).sub;
}

const writes = ({ service, user }: Begun, path: string): GatewayRequest[] => service.world.gateway.requests.where(writesOf(user, path));

const freshToken = ({ service, user }: Begun): string => service.world.auth.token(user, { expires_in_s: 7200 });

/** Expects one stored session, after one model call. */
async function expectPaidOnce({ service, user, script }: Begun, session: { id: string; candidates: object[] }, partial = false): Promise<void> {
  const rows = await rowsOf(service, user);
  expectStoredOnce(rows, session, partial);
  assert.deepEqual(rows.events.map(({ data }) => data.attempts), [1]);
  assert.equal(script.requests.length, 1, 'one model call');
}

/** Waits until the event of the user's session is stored. */
const loggedEvent = ({ service, user }: Begun) => eventually('the event is stored', async () => (await rowsOf(service, user)).events[0]);

/** Waits until the session has ended, and expects a failure with one event. */
async function expectFailedOnce({ service, user }: Begun, code: string): Promise<void> {
  const rows = await eventually('the session has ended', async () => {
    const rows = await rowsOf(service, user);
    // Session and event are read in two transactions.
    return rows.sessions.some(({ status }) => status !== 'generating') && rows.events.length > 0 ? rows : undefined;
  }, 30_000);
  assert.deepEqual(rows.sessions.map(({ status, error_code, partial }) => [status, error_code, partial]), [['failed', code, false]]);
  assert.deepEqual(rows.candidates, []);
  assert.deepEqual(rows.events.map(({ type, data }) => [type, data.code]), [['ai_session.failed', code]]);
}

function atTheOpening(begin: Begin): void {
  for (const { name, fault, attempts } of [...passing, ...refusing]) {
    it(`an opening that ${name} ends a silent model call without a charge`, async () => {
      const begun = await begin(SESSIONS_PATH, fault, silence({ headers: true }));
      const answer = await begun.answer;
      assert.equal(expectProblem(answer, 500, 'database_error').retryable, true);
      assert.deepEqual(remaining(answer), { burst: 9, generations: 50 });
      assert.equal(begun.set.hits, attempts);
      begun.set.clear();
      if (attempts > 1) {
        // The write may have been applied, so the session has to be ended in any case.
        await expectFailedOnce(begun, 'database_error');
      } else {
        // The write was rejected: no session has to be ended, now or at the next request of the owner.
        const again = await create(begun.service, freshToken(begun));
        assert.equal(again.status, 201, again.text);
        const { sessions, events } = await rowsOf(begun.service, begun.user);
        assert.deepEqual([sessions.map(({ id }) => id), events.length], [[again.body.id], 1]);
      }
      // A rejection can arrive before the model call is sent.
      if (attempts > 1) await eventually('the model was called', () => begun.script.requests[0]);
      assert.ok(begun.script.requests.length <= 1, 'the model is not called again');
      for (const { over } of begun.script.requests) assert.equal(await within(over, 'the connection is closed'), 'client left');
    });
  }

  for (const { name, fault, attempts } of passing.filter(({ fault }) => fault.kind === 'hang' || fault.kind === 'endless')) {
    it(`an opening that ${name} does not lose the candidates`, async () => {
      const begun = await begin(SESSIONS_PATH, fault, answer());
      const created = await begun.answer;
      assert.equal(created.status, 201, created.text);
      assert.equal(begun.set.hits, attempts);
      assert.equal(remaining(created)['generations'], 49);
      await expectPaidOnce(begun, created.body);
    });
  }

  it('an opening rejected as a duplicate by mistake loses no candidates', async () => {
    const begun = await begin(SESSIONS_PATH, { kind: 'answer', status: 409, body: { code: '23505', message: 'duplicate key' } }, answer());
    const created = await begun.answer;
    assert.equal(created.status, 201, created.text);
    await expectPaidOnce(begun, created.body);
  });
}

function atTheCompletion(begin: Begin): void {
  const noDatabase: Row = { name: 'answers 200 with a page', fault: { kind: 'answer', status: 200, body: '<html>', headers: { 'content-type': 'text/html' } }, attempts: 1 };
  // A row that was opened and is missing is tried once more: the function then opens it itself.
  const twice = ({ fault, attempts }: Row) => (fault.kind === 'answer' && fault.status === 404 ? 2 : attempts);

  for (const row of [...passing, ...refusing, noDatabase]) {
    it(`a completion that ${row.name} is reported, charged and stored later`, async () => {
      const begun = await begin(FINISH_PATH, row.fault, answer());
      const { service, user } = begun;
      const answered = await begun.answer;
      assert.equal(expectProblem(answered, 500, 'database_error').retryable, true);
      assert.deepEqual(remaining(answered), { burst: 9, generations: 49 });
      assert.ok(begun.set.hits >= twice(row), `${begun.set.hits} attempts`);
      const before = await rowsOf(service, user);
      assert.deepEqual(before.sessions.map(({ status }) => status), ['generating']);
      assert.deepEqual([before.candidates, before.events], [[], []]);

      begun.set.clear();
      const found = await read(service, freshToken(begun), before.sessions[0]?.['id']);
      assert.deepEqual([found.status, found.body.status, found.body.error, found.body.candidates.length], [200, 'completed', null, 20]);
      assert.equal(found.body.partial, false);
      assert.ok(found.body.usage.prompt_tokens > 0);
      await loggedEvent(begun);
      await expectPaidOnce(begun, found.body);
      assert.deepEqual((await read(service, freshToken(begun), found.body.id)).body.candidates, found.body.candidates);
      const next = await create(service, freshToken(begun));
      assert.equal(remaining(next)['generations'], 48, 'the generation stays charged');
    });
  }

  for (const [name, behaviour, code, generations] of [
    ['misconfiguration', httpError(402), 'ai_misconfigured', 50],
    ['refusal', refusal(), 'ai_refused', 49],
  ] as const) {
    for (const { name: how, fault } of [...passing, ...refusing].filter(({ fault }) => fault.kind !== 'answer' || [401, 404, 503].includes(fault.status))) {
      it(`a completion that ${how} reports and stores the model’s ${name}`, async () => {
        const begun = await begin(FINISH_PATH, fault, behaviour);
        const answered = await begun.answer;
        expectProblem(answered, 500, code);
        assert.deepEqual(remaining(answered), { burst: 9, generations });
        assert.deepEqual((await rowsOf(begun.service, begun.user)).events, []);
        begun.set.clear();
        await expectFailedOnce(begun, code);
        assert.equal(remaining(await create(begun.service, begun.user.token))['generations'], generations - 1);
      });
    }
  }

  it('a failed completion keeps a partial session partial', async () => {
    const begun = await begin(FINISH_PATH, { kind: 'cut' }, answer({ whole_candidates: 3, plus_chars: 10, instead_of_end: 'cut' }));
    expectProblem(await begun.answer, 500, 'database_error');
    begun.set.clear();
    const id = (await rowsOf(begun.service, begun.user)).sessions[0]?.['id'];
    const found = await read(begun.service, begun.user.token, id);
    assert.deepEqual([found.body.status, found.body.partial, found.body.candidates.length], ['completed', true, 3]);
    await loggedEvent(begun);
    await expectPaidOnce(begun, found.body, true);
  });
}

function slow(begin: Begin): void {
  for (const [step, path] of [['opening', SESSIONS_PATH], ['completion', FINISH_PATH]] as const) {
    it(`the ${step} is sent once when its response takes a second`, async () => {
      const begun = await begin(path, { kind: 'delay', ms: 1000 }, answer());
      const created = await begun.answer;
      assert.equal(created.status, 201, created.text);
      assert.equal(begun.set.hits, 1);
      await expectPaidOnce(begun, created.body);
    });

    it(`the ${step} applied after its repetition stores the session once`, async () => {
      const begun = await begin(path, { kind: 'delay', ms: 6000 }, answer(), { times: 1 });
      const created = await begun.answer;
      assert.equal(created.status, 201, created.text);
      const [late, ...more] = writes(begun, path);
      assert.equal(more.length, 1);
      await eventually('the first write was applied', () => late?.status);
      await expectPaidOnce(begun, created.body);
    });

    it(`the ${step} is repeated when its first response hangs`, async () => {
      const begun = await begin(path, { kind: 'hang' }, answer(), { times: 1 });
      const created = await begun.answer;
      assert.equal(created.status, 201, created.text);
      assert.equal(writes(begun, path).length, 2);
      await expectPaidOnce(begun, created.body);
    });
  }
}

function unacknowledged(begin: Begin): void {
  for (const [step, path] of [['opening', SESSIONS_PATH], ['completion', FINISH_PATH]] as const) {
    for (const [how, fault] of [
      ['without a response', { kind: 'hang', kept: true }],
      ['with half a response', { kind: 'endless', kept: true }],
      ['with a 500', { kind: 'answer', status: 500, kept: true }],
      ['with a 503', { kind: 'answer', status: 503, kept: true }],
      ['on a cut connection', { kind: 'cut', kept: true }],
    ] as const satisfies [string, Fault][]) {
      it(`the ${step} applied ${how} is repeated and stores the session once`, async () => {
        const begun = await begin(path, fault, answer(), { times: 1 });
        const created = await begun.answer;
        assert.equal(created.status, 201, created.text);
        assert.equal(begun.set.hits, 1);
        assert.equal(remaining(created)['generations'], 49);
        await expectPaidOnce(begun, created.body);
      });
    }
  }
}

/** Pages of a proxy before the database: they do not say whether the write was applied. */
function pages(begin: Begin): void {
  for (const status of [403, 404]) {
    for (const kept of [true, false]) {
      const page: Fault = { kind: 'answer', status, body: '<html>', headers: { 'content-type': 'text/html' }, kept };
      const effect = kept ? 'after' : 'before';

      it(`a ${status} page ${effect} the opening leaves a session that has ended`, async () => {
        const begun = await begin(SESSIONS_PATH, page, silence({ headers: true }));
        const answered = await begun.answer;
        expectProblem(answered, 500, 'database_error');
        assert.deepEqual(remaining(answered), { burst: 9, generations: 50 });
        assert.equal(begun.set.hits, 1);
        begun.set.clear();
        await expectFailedOnce(begun, 'database_error');
      });

      it(`a ${status} page ${effect} the completion keeps the candidates`, async () => {
        const begun = await begin(FINISH_PATH, page, answer());
        expectProblem(await begun.answer, 500, 'database_error');
        begun.set.clear();
        const id = (await rowsOf(begun.service, begun.user)).sessions[0]?.['id'];
        const found = await read(begun.service, begun.user.token, id);
        assert.deepEqual([found.body.status, found.body.candidates.length], ['completed', 20]);
        await loggedEvent(begun);
        await expectPaidOnce(begun, found.body);
      });
    }
  }
}

function expiredTokens(begin: Begin): void {
  const EXPIRED: Fault = { kind: 'answer', status: 401, body: { code: 'PGRST301', message: 'JWT expired' } };

  it('an expired token is not sent again; the next one stores the session', async () => {
    const expires_in_s = 3;
    const ends_ms = Date.now() + expires_in_s * 1000;
    const begun = await begin(FINISH_PATH, EXPIRED, answer(), { expires_in_s });
    const { service, user } = begun;
    expectProblem(await begun.answer, 500, 'database_error');
    const id = (await rowsOf(service, user)).sessions[0]?.['id'];
    await eventually('the token has expired', () => (Date.now() > ends_ms + 1000 ? true : undefined));
    const sent = writes(begun, FINISH_PATH).length;
    // With a valid token, attempts follow 2 and 6 s after the first.
    await eventually('their time has passed', () => (Date.now() > ends_ms + 5000 ? true : undefined), 15_000);
    assert.equal(writes(begun, FINISH_PATH).length, sent, 'nothing is sent with an expired token');

    begun.set.clear();
    const fresh = freshToken(begun);
    const found = await read(service, fresh, id);
    assert.deepEqual([found.status, found.body.status, found.body.candidates.length], [200, 'completed', 20]);
    await loggedEvent(begun);
    assert.deepEqual(writes(begun, FINISH_PATH).slice(sent).map(({ headers }) => headers['authorization']), [`Bearer ${fresh}`]);
    await expectPaidOnce(begun, found.body);
  });
}

function wholeDatabase(service: () => Service, begin: Begin): void {
  it('an outage during the model call delays the candidates', async () => {
    const gate = createGate();
    const begun = await begin('/nothing', { kind: 'cut' }, gated(gate));
    await eventually('the session is open', async () => (await rowsOf(service(), begun.user)).sessions[0]);
    service().world.gateway.down();
    gate.open();
    const answered = await begun.answer;
    service().world.gateway.up();
    expectProblem(answered, 500, 'database_error');
    assert.equal(remaining(answered)['generations'], 49);
    const id = (await rowsOf(service(), begun.user)).sessions[0]?.['id'];
    const found = await read(service(), begun.user.token, id);
    assert.deepEqual([found.body.status, found.body.candidates.length], ['completed', 20]);
    await loggedEvent(begun);
    await expectPaidOnce(begun, found.body);
  });

  it('revoked grants delay the candidates until they are restored', async () => {
    const { sql } = service().world;
    await sql('revoke execute on function public.finish_ai_session(jsonb, jsonb, jsonb) from authenticated');
    const begun = await begin('/nothing', { kind: 'cut' }, answer());
    const answered = await begun.answer;
    await sql('grant execute on function public.finish_ai_session(jsonb, jsonb, jsonb) to authenticated');
    expectProblem(answered, 500, 'database_error');
    const id = (await rowsOf(service(), begun.user)).sessions[0]?.['id'];
    const found = await read(service(), begun.user.token, id);
    assert.deepEqual([found.body.status, found.body.candidates.length], ['completed', 20]);
    await loggedEvent(begun);
    await expectPaidOnce(begun, found.body);
  });

  it('candidates whose session row was deleted are stored with a new row', async () => {
    const gate = createGate();
    const begun = await begin('/nothing', { kind: 'cut' }, gated(gate));
    const id = await eventually('the session is open', async () => (await rowsOf(service(), begun.user)).sessions[0]?.['id']);
    await service().world.sql('delete from ai_generation_sessions where id = $1', [id]);
    gate.open();
    const created = await begun.answer;
    assert.equal(created.status, 201, created.text);
    assert.equal(created.body.id, id);
    await expectPaidOnce(begun, created.body);
  });
}
