// The reply of a user object is lost on its way to the edge (the platform moves objects, a deployment restarts them), so the
// edge sends the command again. It takes effect once: one session, one model call, one charge, one counted request.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Answer, candidateOf, create, eventually, expectProblem, lesson, read, remaining, rowsOf, sendRequest, type Service, type SignedIn, signIn } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { FINISH_PATH, SESSIONS_PATH } from '../support/gateway.ts';
import { answer, gated, httpError, type ModelBehaviour, refusal } from '../support/model_behaviour.ts';
import { startAfter } from './workerd.ts';

/** The loss, by the first digits of the request's id. */
const LOSSES = {
  /** The reply. */
  reply: 'aaaaaaaa',
  /** The reply, while the generation runs: the object replies in async mode, at once. */
  early: 'bbbbbbbb',
  /** The command. */
  command: 'cccccccc',
  /** The reply, when the generation has ended: the object replies in sync mode. */
  late: 'eeeeeeee',
  /** The replies to both commands. */
  both: 'dddddddd',
} as const;
type Loss = keyof typeof LOSSES;

const prelude = `
import { env as workerEnv } from 'cloudflare:workers';
{
  const losses = ${JSON.stringify(LOSSES)};
  const counts = new Map();
  const lost = () => new Error('Network connection lost.');
  const namespace = Object.getPrototypeOf(workerEnv.USER_SESSIONS);
  const getByName = namespace.getByName;
  namespace.getByName = function (name) {
    const stub = getByName.call(this, name);
    return {
      async execute(command) {
        const message = JSON.parse(new TextDecoder().decode(command));
        const changed = (members) => new TextEncoder().encode(JSON.stringify({ ...message, ...members }));
        // Callers may give two requests the same id.
        const request_key = message.operation === 'generate' ? message.id : message.request_id;
        const nth = (counts.get(request_key) ?? 0) + 1;
        counts.set(request_key, nth);
        const loses = (loss) => message.request_id.startsWith(losses[loss]);
        if (loses('both') && nth <= 2) {
          await stub.execute(command);
          throw lost();
        }
        if (nth > 1) return stub.execute(command);
        if (loses('command')) throw lost();
        if (loses('early')) {
          await stub.execute(changed({ mode: 'async' }));
          throw lost();
        }
        if (loses('late')) {
          await stub.execute(changed({ mode: 'sync' }));
          throw lost();
        }
        const reply = await stub.execute(command);
        if (loses('reply')) throw lost();
        return reply;
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

/** Sends a `POST /ai-sessions` that meets a loss. */
function losing(loss: Loss, { token }: SignedIn, headers: Record<string, string> = {}): Promise<Answer> {
  const request_id = LOSSES[loss] + crypto.randomUUID().slice(8);
  return create(service, token, body, { ...headers, 'x-request-id': request_id });
}

/** Expects the user's only session, completed and billed once. */
async function expectOnce(user: SignedIn, calls = 1): Promise<{ id: string; candidates: object[] }> {
  const { sessions, candidates, events } = await rowsOf(service, user);
  const id = sessions[0]?.['id'];
  assert.deepEqual(sessions.map(({ status }) => status), ['completed']);
  assert.deepEqual(events.map(({ type, session_id }) => [type, session_id]), [['ai_session.completed', id]]);
  const paid = service.world.openrouter.requests.where(({ headers }) => headers['x-session-id'] === id);
  assert.equal(paid.length, calls, 'model calls');
  return { id, candidates: candidates.map(candidateOf) };
}

for (const [how, key] of [['without a key', {}], ['with a key', KEYED]] as const) {
  describe(`a request ${how} with a lost reply`, () => {
    for (const [mode, headers] of Object.entries(MODES)) {
      it(`a reply lost after the end is repeated ${mode}, counted once`, async () => {
        const user = await signIn(service);
        const response = await losing('reply', user, { ...key, ...headers });
        assert.equal(response.status, { 'in sync mode': 201, 'in stream mode': 200, 'in async mode': 202 }[mode], response.text);
        assert.deepEqual(remaining(response), { burst: 9, generations: 49 });
        const id = response.headers.get('location')?.split('/').at(-1) ?? '';
        // The replies in stream and async mode began before the end.
        if (mode === 'in sync mode') assert.deepEqual((await expectOnce(user)).candidates, response.body.candidates);
        await ended(user, id);
        assert.equal((await expectOnce(user)).id, id);
        assert.deepEqual(remaining(await create(service, user.token, '{')), { burst: 8, generations: 49 });
      });
    }

    it('a reply lost during the generation is joined, counted once', async () => {
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

    it('a lost command is executed when it is repeated', async () => {
      const user = await signIn(service);
      const response = await losing('command', user, key);
      assert.equal(response.status, 201, response.text);
      assert.deepEqual(remaining(response), { burst: 9, generations: 49 });
      await expectOnce(user);
    });

    it('a reply lost twice is a 500, and the session is stored', async () => {
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
      it(`a lost reply with ${code} is repeated, counted once`, async () => {
        const user = await signIn(service);
        service.world.openrouter.next(behaviour);
        const response = await losing('reply', user, key);
        expectProblem(response, 500, code);
        assert.deepEqual(remaining(response), { burst: 9, generations: 50 - used });
        const { sessions, events } = await rowsOf(service, user);
        assert.deepEqual([sessions.map(({ error_code }) => error_code), events.length], [[code], 1]);
      });
    }

    it('a session not yet persisted is persisted on the repetition', async () => {
      const user = await signIn(service);
      // The first reply is that of three failed attempts.
      service.world.gateway.fail(isTheirs(user, FINISH_PATH), { kind: 'answer', status: 503 }, 3);
      const response = await losing('reply', user, key);
      assert.equal(response.status, 201, response.text);
      assert.deepEqual(remaining(response), { burst: 9, generations: 49 });
      assert.deepEqual((await expectOnce(user)).candidates, response.body.candidates);
    });

    it('a session that cannot be read again is not billed twice', async () => {
      const user = await signIn(service);
      const away = service.world.gateway.fail((request) => request.method === 'GET' && isTheirs(user, SESSIONS_PATH)(request), { kind: 'cut' });
      const response = await losing('reply', user, key);
      assert.equal(expectProblem(response, 500, 'database_error').retryable, true);
      assert.deepEqual(remaining(response), { burst: 9, generations: 49 });
      away.clear();
      await expectOnce(user);
    });
  });
}

for (const [how, key] of [['without a key', {}], ['with a key', KEYED]] as const) {
  for (const [mode, headers] of Object.entries(MODES)) {
    it(`a lost retryable failure is repeated ${how}, ${mode}, counted once`, async () => {
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

it('a lost failure without a row is repeated, and its key tries again', async () => {
  const user = await signIn(service);
  // The row is refused before the first candidate.
  const gate = createGate();
  service.world.openrouter.next(gated(gate));
  service.world.gateway.fail(isTheirs(user, SESSIONS_PATH), { kind: 'answer', status: 403, body: { code: '42501' } }, 1);
  const response = await losing('reply', user, KEYED);
  gate.open();
  expectProblem(response, 500, 'database_error');
  assert.deepEqual(remaining(response), { burst: 9, generations: 50 });
  const next = await create(service, user.token, body, KEYED);
  assert.equal(next.status, 201, next.text);
  const { sessions, candidates } = await rowsOf(service, user);
  assert.deepEqual(sessions.map(({ status, run }) => [status, run]), [['completed', 2]]);
  assert.deepEqual(candidates.map(({ id }) => id), next.body.candidates.map(({ id }: { id: string }) => id));
});

it('two requests with one id do not share a failure', async () => {
  const user = await signIn(service);
  const same = { ...KEYED, 'x-request-id': LOSSES.command + crypto.randomUUID().slice(8) };
  service.world.openrouter.next(httpError(503), 3);
  expectProblem(await create(service, user.token, body, same), 500, 'ai_unavailable');
  const next = await create(service, user.token, body, same);
  assert.equal(next.status, 201, next.text);
  assert.deepEqual(remaining(next), { burst: 8, generations: 49 });
});

for (const [what, candidates, wanted] of [['before a candidate', 0, 'failed'], ['after two candidates', 2, 'completed']] as const) {
  it(`a stop ${what} with a lost reply has stopped the generation`, async () => {
    const user = await signIn(service);
    const gate = createGate();
    service.world.openrouter.next(answer({ hold: { gate, after_candidates: candidates } }) satisfies ModelBehaviour);
    const { id } = (await create(service, user.token, body, { prefer: 'respond-async' })).body;
    await eventually('the model has sent them', async () => (await read(service, user.token, id)).body.candidate_count === candidates || undefined);
    const stop = (headers = {}) => sendRequest(service, 'DELETE', `/ai-sessions/${id}`, { token: user.token, headers });
    assert.equal((await stop({ 'x-request-id': LOSSES.reply + crypto.randomUUID().slice(8) })).status, 204);
    gate.open();
    const { body: session } = await read(service, user.token, id);
    assert.deepEqual([session.status, session.partial], [wanted, candidates > 0]);
    expectProblem(await stop(), 409, 'not_running');
  });
}

const isTheirs = (user: SignedIn, wanted: string) => ({ path, headers }: { path: string; headers: Record<string, unknown> }) =>
  path.split('?')[0] === wanted && headers['authorization'] === `Bearer ${user.token}`;

/** Waits for the end by the session's events. */
async function ended({ token }: SignedIn, id: string, end = 'done'): Promise<void> {
  const { text } = await sendRequest(service, 'GET', `/ai-sessions/${id}/events`, { token });
  assert.ok(text.includes(`event: ${end}\n`), text);
}
