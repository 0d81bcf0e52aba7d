// The answer of a user's object is lost on its way to the edge (the platform moves objects, and a deployment starts them
// anew), so the edge asks again. What was asked has happened once: one session, one call of the model, one unit, and the
// request is counted once.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Answer, create, eventually, expectProblem, lesson, read, remaining, rowsOf, sendRequest, type Service, type SignedIn, signIn } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { FINISH_PATH, SESSIONS_PATH } from '../support/gateway.ts';
import { answer, gated, httpError, type ModelBehaviour, refusal } from '../support/model_behaviour.ts';
import { startAfter } from './workerd.ts';

/** What is lost, by the first digits of the request's id. */
const LOSSES = {
  /** The answer, when it is there. */
  answer: 'aaaaaaaa',
  /** The answer, while the generation runs: the object is asked for a 202 in its place, which it gives at once. */
  early: 'bbbbbbbb',
  /** The question. */
  question: 'cccccccc',
  /** The answer, when the generation has ended: the object is asked for the plain form in its place. */
  late: 'eeeeeeee',
  /** Both answers. */
  both: 'dddddddd',
} as const;
type Loss = keyof typeof LOSSES;

const prelude = `
import { env as desksEnv } from 'cloudflare:workers';
{
  const losses = ${JSON.stringify(LOSSES)};
  const asked = new Map();
  const lost = () => new Error('Network connection lost.');
  const desks = Object.getPrototypeOf(desksEnv.USER_SESSIONS);
  const getByName = desks.getByName;
  desks.getByName = function (name) {
    const stub = getByName.call(this, name);
    return {
      async fetch(request) {
        const ask = await request.clone().json();
        // Callers may give two requests the same id.
        const request_key = ask.wish.generate?.id ?? ask.request_id;
        const nth = (asked.get(request_key) ?? 0) + 1;
        asked.set(request_key, nth);
        const loses = (loss) => ask.request_id.startsWith(losses[loss]);
        if (loses('both') && nth <= 2) {
          await stub.fetch(request);
          throw lost();
        }
        if (nth > 1) return stub.fetch(request);
        if (loses('question')) throw lost();
        if (loses('early')) {
          ask.wish.generate.form = 'later';
          await stub.fetch(new Request(request.url, { method: 'POST', body: JSON.stringify(ask) }));
          throw lost();
        }
        if (loses('late')) {
          ask.wish.generate.form = 'plain';
          await stub.fetch(new Request(request.url, { method: 'POST', body: JSON.stringify(ask) }));
          throw lost();
        }
        const answer = await stub.fetch(request);
        if (loses('answer')) throw lost();
        return answer;
      },
    };
  };
}
`;

const body = { input_text: lesson(), model: 'test/first' };
const KEYED = { 'idempotency-key': 'k' };
const MODES = { 'in sync mode': {}, 'in stream mode': { accept: 'text/event-stream' }, 'in async mode': { prefer: 'respond-async' } } as const;

let service: Service;
before(async () => {
  service = await startAfter(prelude);
});
after(() => service.close());

/** `POST /ai-sessions` that meets a loss. */
function losing(loss: Loss, { token }: SignedIn, headers: Record<string, string> = {}): Promise<Answer> {
  const request_id = LOSSES[loss] + crypto.randomUUID().slice(8);
  return create(service, token, body, { ...headers, 'x-request-id': request_id });
}

/** The user's one session, completed once, which was paid for once. */
async function expectOnce(user: SignedIn, calls = 1): Promise<{ id: string; candidates: object[] }> {
  const { sessions, candidates, events } = await rowsOf(service, user);
  const id = sessions[0]?.['id'];
  assert.deepEqual(sessions.map(({ status }) => status), ['completed']);
  assert.deepEqual(events.map(({ type, session_id }) => [type, session_id]), [['ai_session.completed', id]]);
  const paid = service.world.openrouter.requests.where(({ headers }) => headers['x-session-id'] === id);
  assert.equal(paid.length, calls, 'calls of the model');
  return { id, candidates: candidates.map(({ id, front, back, prompt }) => ({ id, front, back, prompt })) };
}

for (const [how, key] of [['without a key', {}], ['with a key', KEYED]] as const) {
  describe(`a request ${how} whose answer is lost`, () => {
    for (const [mode, headers] of Object.entries(MODES)) {
      it(`when all is done is answered ${mode} with what was made, and counted once`, async () => {
        const user = await signIn(service);
        const response = await losing('answer', user, { ...key, ...headers });
        assert.equal(response.status, { 'in sync mode': 201, 'in stream mode': 200, 'in async mode': 202 }[mode], response.text);
        assert.deepEqual(remaining(response), { burst: 9, generations: 49 });
        const id = response.headers.get('location')?.split('/').at(-1) ?? '';
        // The stream's answer began before there was an end, and the 202's too.
        if (mode === 'in sync mode') assert.deepEqual((await expectOnce(user)).candidates, response.body.candidates);
        await ended(user, id);
        assert.equal((await expectOnce(user)).id, id);
        assert.deepEqual(remaining(await create(service, user.token, '{')), { burst: 8, generations: 49 });
      });
    }

    it('while it runs joins it, and is counted once', async () => {
      const gate = createGate();
      const user = await signIn(service);
      service.world.openrouter.next(gated(gate));
      const pending = losing('early', user, key);
      await gate.reached;
      gate.open();
      const response = await pending;
      assert.equal(response.status, 201, response.text);
      assert.deepEqual(remaining(response), { burst: 9, generations: 49 });
      assert.deepEqual((await expectOnce(user)).candidates, response.body.candidates);
    });

    it('and which never arrived is answered as any other', async () => {
      const user = await signIn(service);
      const response = await losing('question', user, key);
      assert.equal(response.status, 201, response.text);
      assert.deepEqual(remaining(response), { burst: 9, generations: 49 });
      await expectOnce(user);
    });

    it('twice is refused, and what was made is there', async () => {
      const user = await signIn(service);
      expectProblem(await losing('both', user, key), 500, 'rate_limiter_unavailable');
      const { id, candidates } = await expectOnce(user);
      assert.deepEqual((await read(service, user.token, id)).body.candidates, candidates);
      assert.deepEqual(remaining(await create(service, user.token, '{')), { burst: 8, generations: 49 });
    });

    for (const [code, behaviour, used] of [
      ['ai_refused', refusal(), 1],
      ['ai_misconfigured', httpError(402), 0],
    ] as const) {
      it(`and said ${code} says so, and is counted once`, async () => {
        const user = await signIn(service);
        service.world.openrouter.next(behaviour);
        const response = await losing('answer', user, key);
        expectProblem(response, 500, code);
        assert.deepEqual(remaining(response), { burst: 9, generations: 50 - used });
        const { sessions, events } = await rowsOf(service, user);
        assert.deepEqual([sessions.map(({ error_code }) => error_code), events.length], [[code], 1]);
      });
    }

    it('and was not taken by the database writes it now', async () => {
      const user = await signIn(service);
      // The first answer is that of three attempts that failed.
      service.world.gateway.fail(isTheirs(user, FINISH_PATH), { kind: 'answer', status: 503 }, 3);
      const response = await losing('answer', user, key);
      assert.equal(response.status, 201, response.text);
      assert.deepEqual(remaining(response), { burst: 9, generations: 49 });
      assert.deepEqual((await expectOnce(user)).candidates, response.body.candidates);
    });

    it('and cannot be read again pays for nothing twice', async () => {
      const user = await signIn(service);
      const away = service.world.gateway.fail((request) => request.method === 'GET' && isTheirs(user, SESSIONS_PATH)(request), { kind: 'cut' });
      const response = await losing('answer', user, key);
      assert.equal(expectProblem(response, 500, 'database_error').retryable, true);
      assert.deepEqual(remaining(response), { burst: 9, generations: 49 });
      away.clear();
      await expectOnce(user);
    });
  });
}

for (const [how, key] of [['without a key', {}], ['with a key', KEYED]] as const) {
  for (const [mode, headers] of Object.entries(MODES)) {
    it(`a failure that can pass and whose answer is lost is told ${how}, ${mode}, and counted once; the next request tries again`, async () => {
      const user = await signIn(service);
      service.world.openrouter.next(httpError(503), 3);
      const response = await losing('late', user, { ...key, ...headers });
      if (mode === 'in sync mode') expectProblem(response, 500, 'ai_unavailable');
      else if (mode === 'in async mode') assert.deepEqual([response.status, response.body.status, response.body.error], [202, 'failed', 'ai_unavailable'], response.text);
      else assert.match(response.text, /event: error\ndata: .*"code":"ai_unavailable"/);
      assert.deepEqual(remaining(response), { burst: 9, generations: 50 });
      assert.deepEqual((await rowsOf(service, user)).sessions.map(({ status, run }) => [status, run]), [['failed', 1]]);

      const next = await create(service, user.token, body, key);
      assert.equal(next.status, 201, next.text);
      assert.deepEqual(remaining(next), { burst: 8, generations: 49 });
      const runs = (await rowsOf(service, user)).sessions.map(({ status, run }) => [status, run]);
      assert.deepEqual(runs.sort(), how === 'with a key' ? [['completed', 2]] : [['completed', 1], ['failed', 1]]);
    });
  }
}

it('a failure of which there is no row and whose answer is lost is told, and counted once; with its key the next request tries again', async () => {
  const user = await signIn(service);
  service.world.gateway.fail(isTheirs(user, SESSIONS_PATH), { kind: 'answer', status: 403, body: { code: '42501' } }, 1);
  const response = await losing('answer', user, KEYED);
  expectProblem(response, 500, 'database_error');
  assert.deepEqual(remaining(response), { burst: 9, generations: 50 });
  const next = await create(service, user.token, body, KEYED);
  assert.equal(next.status, 201, next.text);
  const { sessions, candidates } = await rowsOf(service, user);
  assert.deepEqual(sessions.map(({ status, run }) => [status, run]), [['completed', 2]]);
  assert.deepEqual(candidates.map(({ id }) => id), next.body.candidates.map(({ id }: { id: string }) => id));
});

it('a failure is told to the request that met it, not to the next one, though its caller gives both the same id', async () => {
  const user = await signIn(service);
  const same = { ...KEYED, 'x-request-id': LOSSES.question + crypto.randomUUID().slice(8) };
  service.world.openrouter.next(httpError(503), 3);
  expectProblem(await create(service, user.token, body, same), 500, 'ai_unavailable');
  const next = await create(service, user.token, body, same);
  assert.equal(next.status, 201, next.text);
  assert.deepEqual(remaining(next), { burst: 8, generations: 49 });
});

for (const [what, candidates, wanted] of [['before a card', 0, 'failed'], ['after two cards', 2, 'completed']] as const) {
  it(`a stop ${what} whose answer is lost has stopped it, and says so`, async () => {
    const user = await signIn(service);
    const gate = createGate();
    service.world.openrouter.next(answer({ hold: { gate, after_candidates: candidates } }) satisfies ModelBehaviour);
    const { id } = (await create(service, user.token, body, { prefer: 'respond-async' })).body;
    await eventually('the model has sent them', async () => (await read(service, user.token, id)).body.candidate_count === candidates || undefined);
    const stop = (headers = {}) => sendRequest(service, 'DELETE', `/ai-sessions/${id}`, { token: user.token, headers });
    assert.equal((await stop({ 'x-request-id': LOSSES.answer + crypto.randomUUID().slice(8) })).status, 204);
    gate.open();
    const { body: session } = await read(service, user.token, id);
    assert.deepEqual([session.status, session.partial], [wanted, candidates > 0]);
    expectProblem(await stop(), 409, 'not_running');
  });
}

const isTheirs = (user: SignedIn, wanted: string) => ({ path, headers }: { path: string; headers: Record<string, unknown> }) =>
  path.split('?')[0] === wanted && headers['authorization'] === `Bearer ${user.token}`;

/** Waits for the end as a client does that has the session's events. */
async function ended({ token }: SignedIn, id: string, end = 'done'): Promise<void> {
  const { text } = await sendRequest(service, 'GET', `/ai-sessions/${id}/events`, { token });
  assert.ok(text.includes(`event: ${end}\n`), text);
}
