// Every fault of the database, at the opening and at the completing of a session, each with its outcome. Each case has a
// user of its own whose requests alone meet the fault, so that they run at the same time: some of them hang for long.

import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { type Fault, FINISH_PATH, type GatewayRequest, SESSIONS_PATH, type SetFault } from '../support/gateway.ts';
import { answer, gated, httpError, type ModelBehaviour, refusal, silence } from '../support/model_behaviour.ts';
import { type MarkedScript, scriptByMark } from '../support/model_by_mark.ts';
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

type Row = { name: string; fault: Fault; /** How often the same write is tried before it counts as failed. */ attempts: number };

const passing: Row[] = [
  ...[500, 502, 503, 429, 408].map((status): Row => ({ name: `answers ${status}`, fault: { kind: 'answer', status, body: { message: 'no' } }, attempts: 3 })),
  { name: 'answers 503 with a page', fault: { kind: 'answer', status: 503, body: '<html>', headers: { 'content-type': 'text/html' } }, attempts: 3 },
  { name: 'cuts the line', fault: { kind: 'cut' }, attempts: 3 },
  { name: 'hangs', fault: { kind: 'hang' }, attempts: 3 },
  { name: 'never ends its answer', fault: { kind: 'endless' }, attempts: 3 },
];
const refusing: Row[] = [
  { name: 'answers 400', fault: { kind: 'answer', status: 400, body: { code: '22023', message: 'no' } }, attempts: 1 },
  { name: 'does not take the token', fault: { kind: 'answer', status: 401, body: { code: 'PGRST301', message: 'JWT expired' } }, attempts: 1 },
  { name: 'answers 403', fault: { kind: 'answer', status: 403, body: { code: '42501', message: 'permission denied' } }, attempts: 1 },
  { name: 'answers 404', fault: { kind: 'answer', status: 404, body: { code: 'PGRST205', message: 'no such table' } }, attempts: 1 },
  { name: 'answers 409', fault: { kind: 'answer', status: 409, body: { code: '23001', message: 'no' } }, attempts: 1 },
];

export function tests(start: StartService): void {
  // Longer than an opening that hangs, so that the model's silence is not what ends it.
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
  // Nearly all of them wait, most for the 5 s after which a request to the database is given up.
  const concurrency = 24;
  describe('a database', { concurrency }, () => {
    describe('at the opening', { concurrency }, () => atTheOpening(begin));
    describe('at the completing', { concurrency }, () => atTheCompleting(begin));
    describe('that is slow', { concurrency }, () => slow(begin));
    describe('that takes a write and is not heard', { concurrency }, () => unacknowledged(begin));
    describe('behind a page', { concurrency }, () => pages(begin));
    describe('that does not take the token any more', () => endedTokens(begin));
  });
  describe('the whole database', () => theWhole(service, begin));
}

type Begun = { service: Service; user: SignedIn; script: MarkedScript; set: SetFault; answer: Promise<Answer> };

/** A user whose writes to that path meet the fault, and the request that makes them. */
type Begin = (
  path: string,
  fault: Fault,
  behaviour: ModelBehaviour,
  /** How many of them meet it (all, until it is cleared), and how long the user's token lives. */
  wanted?: { times?: number; expires_in_s?: number },
) => Promise<Begun>;

const writesOf = ({ id }: SignedIn, path: string) => (request: GatewayRequest) =>
  request.method === 'POST' && request.path === path && subjectOf(request) === id;

/** Whose token it is: the owner may come back with another one. */
function subjectOf({ headers }: GatewayRequest): string | undefined {
  const claims = String(headers['authorization']).split('.')[1] ?? '';
  return (JSON.parse(Buffer.from(claims, 'base64url').toString() || '{}') as { sub?: string }).sub;
}

const writes = ({ service, user }: Begun, path: string): GatewayRequest[] => service.world.gateway.requests.where(writesOf(user, path));

const freshToken = ({ service, user }: Begun): string => service.world.auth.token(user, { expires_in_s: 7200 });

/** The session is there once, completed: its row, so many cards, one event; and one call of the model was paid for. */
async function expectStoredOnce({ service, user, script }: Begun, cards: { id: string }[], partial = false): Promise<void> {
  const rows = await rowsOf(service, user);
  assert.deepEqual(rows.sessions.map(({ status, error_code, partial }) => ({ status, error_code, partial })), [{ status: 'completed', error_code: null, partial }]);
  assert.deepEqual(rows.candidates.map(({ id, front, back, prompt }) => ({ id, front, back, prompt })), cards);
  assert.deepEqual(rows.events.map(({ type, session_id, data }) => [type, session_id, data.attempts]), [['ai_session.completed', rows.sessions[0]?.['id'], 1]]);
  assert.equal(script.requests.length, 1, 'one call of the model');
}

/** Waits until the end is written, however it comes to that, and expects a failure with one event. */
async function expectFailedOnce({ service, user }: Begun, code: string): Promise<void> {
  const rows = await eventually('the end is written', async () => {
    const rows = await rowsOf(service, user);
    // The event is read with the session, and not in one transaction with it.
    return rows.sessions.some(({ status }) => status !== 'generating') && rows.events.length > 0 ? rows : undefined;
  }, 30_000);
  assert.deepEqual(rows.sessions.map(({ status, error_code, partial }) => [status, error_code, partial]), [['failed', code, false]]);
  assert.deepEqual(rows.candidates, []);
  assert.deepEqual(rows.events.map(({ type, data }) => [type, data.code]), [['ai_session.failed', code]]);
}

function atTheOpening(begin: Begin): void {
  for (const { name, fault, attempts } of [...passing, ...refusing]) {
    it(`one that ${name} stops a model without a card, and costs nothing`, async () => {
      const begun = await begin(SESSIONS_PATH, fault, silence({ headers: true }));
      const answer = await begun.answer;
      assert.equal(expectProblem(answer, 500, 'database_error').retryable, true);
      assert.deepEqual(remaining(answer), { burst: 9, generations: 50 });
      assert.equal(begun.set.hits, attempts);
      begun.set.clear();
      if (attempts > 1) {
        // It may have taken effect without a word, so an end has to be written, whether or not it did.
        await expectFailedOnce(begun, 'database_error');
      } else {
        // It said no: there is nothing to end, now or when the owner is back.
        const again = await create(begun.service, freshToken(begun));
        assert.equal(again.status, 201, again.text);
        const { sessions, events } = await rowsOf(begun.service, begun.user);
        assert.deepEqual([sessions.map(({ id }) => id), events.length], [[again.body.id], 1]);
      }
      // A refusal can be faster than the request to the model, which then never leaves.
      if (attempts > 1) await eventually('the model was asked', () => begun.script.requests[0]);
      assert.ok(begun.script.requests.length <= 1, 'the model is not asked again');
      for (const { over } of begun.script.requests) assert.equal(await within(over, 'the connection is closed'), 'client left');
    });
  }

  for (const { name, fault, attempts } of passing.filter(({ fault }) => fault.kind === 'hang' || fault.kind === 'endless')) {
    it(`one that ${name} while cards come does not cost them: the completing opens the session`, async () => {
      const begun = await begin(SESSIONS_PATH, fault, answer());
      const created = await begun.answer;
      assert.equal(created.status, 201, created.text);
      assert.equal(begun.set.hits, attempts);
      assert.equal(remaining(created)['generations'], 49);
      await expectStoredOnce(begun, created.body.candidates);
    });
  }

  it('one that says that the row is there, and is wrong, does not cost the cards', async () => {
    const begun = await begin(SESSIONS_PATH, { kind: 'answer', status: 409, body: { code: '23505', message: 'duplicate key' } }, answer());
    const created = await begun.answer;
    assert.equal(created.status, 201, created.text);
    await expectStoredOnce(begun, created.body.candidates);
  });

  it('one that answers 200 and is no database does not cost the cards', async () => {
    const begun = await begin(SESSIONS_PATH, { kind: 'answer', status: 200, body: '<html>', headers: { 'content-type': 'text/html' } }, answer());
    const created = await begun.answer;
    assert.equal(created.status, 201, created.text);
    await expectStoredOnce(begun, created.body.candidates);
  });
}

function atTheCompleting(begin: Begin): void {
  const noDatabase: Row = { name: 'answers 200 with a page', fault: { kind: 'answer', status: 200, body: '<html>', headers: { 'content-type': 'text/html' } }, attempts: 1 };
  // A row that was opened and is not there is looked into once more: the function then opens it itself.
  const twice = ({ fault, attempts }: Row) => (fault.kind === 'answer' && fault.status === 404 ? 2 : attempts);

  for (const row of [...passing, ...refusing, noDatabase]) {
    it(`one that ${row.name} is told; the unit stays used; the owner gets the session with another token`, async () => {
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
      await eventually('it is written', async () => ((await rowsOf(service, user)).events.length > 0 ? true : undefined));
      await expectStoredOnce(begun, found.body.candidates);
      const next = await create(service, freshToken(begun));
      assert.equal(remaining(next)['generations'], 48, 'the unit stays used');
    });
  }

  for (const [name, behaviour, code, generations] of [
    ['that misconfigures', httpError(402), 'ai_misconfigured', 50],
    ['that refuses the text', refusal(), 'ai_refused', 49],
  ] as const) {
    for (const { name: how, fault } of [...passing, ...refusing].filter(({ fault }) => fault.kind !== 'answer' || [401, 404, 503].includes(fault.status))) {
      it(`one that ${how} does not change what is told of a model ${name}; its failure is written later`, async () => {
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

  it('one that fails keeps a partial session partial', async () => {
    const begun = await begin(FINISH_PATH, { kind: 'cut' }, answer({ whole_cards: 3, plus_chars: 10, instead_of_end: 'cut' }));
    expectProblem(await begun.answer, 500, 'database_error');
    begun.set.clear();
    const id = (await rowsOf(begun.service, begun.user)).sessions[0]?.['id'];
    const found = await read(begun.service, begun.user.token, id);
    assert.deepEqual([found.body.status, found.body.partial, found.body.candidates.length], ['completed', true, 3]);
    await eventually('it is written', async () => ((await rowsOf(begun.service, begun.user)).events.length > 0 ? true : undefined));
    await expectStoredOnce(begun, found.body.candidates, true);
  });
}

function slow(begin: Begin): void {
  for (const [step, path] of [['opening', SESSIONS_PATH], ['completing', FINISH_PATH]] as const) {
    it(`at the ${step} for a second is waited for, and asked once`, async () => {
      const begun = await begin(path, { kind: 'delay', ms: 1000 }, answer());
      const created = await begun.answer;
      assert.equal(created.status, 201, created.text);
      assert.equal(begun.set.hits, 1);
      await expectStoredOnce(begun, created.body.candidates);
    });

    it(`at the ${step}, and lands the first write after the second one, has the session once`, async () => {
      const begun = await begin(path, { kind: 'delay', ms: 6000 }, answer(), { times: 1 });
      const created = await begun.answer;
      assert.equal(created.status, 201, created.text);
      const [late, ...more] = writes(begun, path);
      assert.equal(more.length, 1);
      await eventually('the first write has landed', () => late?.status);
      await expectStoredOnce(begun, created.body.candidates);
    });

    it(`at the ${step} and hangs once is asked again`, async () => {
      const begun = await begin(path, { kind: 'hang' }, answer(), { times: 1 });
      const created = await begun.answer;
      assert.equal(created.status, 201, created.text);
      assert.equal(writes(begun, path).length, 2);
      await expectStoredOnce(begun, created.body.candidates);
    });
  }
}

function unacknowledged(begin: Begin): void {
  for (const [step, path] of [['opening', SESSIONS_PATH], ['completing', FINISH_PATH]] as const) {
    for (const [how, fault] of [
      ['no answer', { kind: 'hang', kept: true }],
      ['half an answer', { kind: 'endless', kept: true }],
      ['a 500', { kind: 'answer', status: 500, kept: true }],
    ] as const satisfies [string, Fault][]) {
      it(`at the ${step} (${how}) is repeated and leaves the session once`, async () => {
        const begun = await begin(path, fault, answer(), { times: 1 });
        const created = await begun.answer;
        assert.equal(created.status, 201, created.text);
        assert.equal(begun.set.hits, 1);
        assert.equal(remaining(created)['generations'], 49);
        await expectStoredOnce(begun, created.body.candidates);
      });
    }
  }
}

/** Of somebody who stands before the database: it says no, and nothing of what the database has done. */
function pages(begin: Begin): void {
  for (const status of [403, 404]) {
    for (const kept of [true, false]) {
      const page: Fault = { kind: 'answer', status, body: '<html>', headers: { 'content-type': 'text/html' }, kept };
      const effect = kept ? 'let the write through' : 'kept the write back';

      it(`at the opening (${status}) that ${effect} leaves a session that has ended`, async () => {
        const begun = await begin(SESSIONS_PATH, page, silence({ headers: true }));
        const answered = await begun.answer;
        expectProblem(answered, 500, 'database_error');
        assert.deepEqual(remaining(answered), { burst: 9, generations: 50 });
        assert.equal(begun.set.hits, 1);
        begun.set.clear();
        await expectFailedOnce(begun, 'database_error');
      });

      it(`at the completing (${status}) that ${effect} keeps the cards for their owner`, async () => {
        const begun = await begin(FINISH_PATH, page, answer());
        expectProblem(await begun.answer, 500, 'database_error');
        begun.set.clear();
        const id = (await rowsOf(begun.service, begun.user)).sessions[0]?.['id'];
        const found = await read(begun.service, begun.user.token, id);
        assert.deepEqual([found.body.status, found.body.candidates.length], ['completed', 20]);
        await eventually('it is written', async () => (await rowsOf(begun.service, begun.user)).events[0]);
        await expectStoredOnce(begun, found.body.candidates);
      });
    }
  }
}

function endedTokens(begin: Begin): void {
  const EXPIRED: Fault = { kind: 'answer', status: 401, body: { code: 'PGRST301', message: 'JWT expired' } };

  it('does not get it again; the owner’s next one writes what was paid for', async () => {
    const expires_in_s = 3;
    const ends_ms = Date.now() + expires_in_s * 1000;
    const begun = await begin(FINISH_PATH, EXPIRED, answer(), { expires_in_s });
    const { service, user } = begun;
    expectProblem(await begun.answer, 500, 'database_error');
    const id = (await rowsOf(service, user)).sessions[0]?.['id'];
    await eventually('the token has ended', () => (Date.now() > ends_ms + 1000 ? true : undefined));
    const sent = writes(begun, FINISH_PATH).length;
    // Attempts with a token that lives come 2 and 6 s after the first.
    await eventually('their time is over', () => (Date.now() > ends_ms + 5000 ? true : undefined), 15_000);
    assert.equal(writes(begun, FINISH_PATH).length, sent, 'nothing is sent with a dead token');

    begun.set.clear();
    const fresh = freshToken(begun);
    const found = await read(service, fresh, id);
    assert.deepEqual([found.status, found.body.status, found.body.candidates.length], [200, 'completed', 20]);
    await eventually('it is written', async () => ((await rowsOf(service, user)).events.length > 0 ? true : undefined));
    assert.deepEqual(writes(begun, FINISH_PATH).slice(sent).map(({ headers }) => headers['authorization']), [`Bearer ${fresh}`]);
    await expectStoredOnce(begun, found.body.candidates);
  });
}

function theWhole(service: () => Service, begin: Begin): void {
  it('may go down while the model talks: what was paid for is there when it is back', async () => {
    const gate = createGate();
    const begun = await begin('/nothing', { kind: 'cut' }, gated(gate));
    await eventually('the session is opened', async () => (await rowsOf(service(), begun.user)).sessions[0]);
    service().world.gateway.down();
    gate.open();
    const answered = await begun.answer;
    service().world.gateway.up();
    expectProblem(answered, 500, 'database_error');
    assert.equal(remaining(answered)['generations'], 49);
    const id = (await rowsOf(service(), begun.user)).sessions[0]?.['id'];
    const found = await read(service(), begun.user.token, id);
    assert.deepEqual([found.body.status, found.body.candidates.length], ['completed', 20]);
    await eventually('it is written', async () => ((await rowsOf(service(), begun.user)).events.length > 0 ? true : undefined));
    await expectStoredOnce(begun, found.body.candidates);
  });

  it('may forget its grants: what was paid for is there when they are back', async () => {
    const { sql } = service().world;
    await sql('revoke execute on function public.finish_ai_session(jsonb, jsonb, jsonb) from authenticated');
    const begun = await begin('/nothing', { kind: 'cut' }, answer());
    const answered = await begun.answer;
    await sql('grant execute on function public.finish_ai_session(jsonb, jsonb, jsonb) to authenticated');
    expectProblem(answered, 500, 'database_error');
    const id = (await rowsOf(service(), begun.user)).sessions[0]?.['id'];
    const found = await read(service(), begun.user.token, id);
    assert.deepEqual([found.body.status, found.body.candidates.length], ['completed', 20]);
    await eventually('it is written', async () => ((await rowsOf(service(), begun.user)).events.length > 0 ? true : undefined));
    await expectStoredOnce(begun, found.body.candidates);
  });

  it('may lose the session’s row: the cards are stored with a new one', async () => {
    const gate = createGate();
    const begun = await begin('/nothing', { kind: 'cut' }, gated(gate));
    const id = await eventually('the session is opened', async () => (await rowsOf(service(), begun.user)).sessions[0]?.['id']);
    await service().world.sql('delete from ai_generation_sessions where id = $1', [id]);
    gate.open();
    const created = await begun.answer;
    assert.equal(created.status, 201, created.text);
    assert.equal(created.body.id, id);
    await expectStoredOnce(begun, created.body.candidates);
  });
}
