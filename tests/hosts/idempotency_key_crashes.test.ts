// `kill -9` of workerd, and a start on the same storage: a key has the same session before and after. The sessions
// themselves: crash_recovery.test.ts.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Answer, create, eventually, expectProblem, lesson, read, remaining, rowsOf, sendRequest, type SignedIn, signIn } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { FINISH_PATH } from '../support/gateway.ts';
import { answer, gated, goodAnswer, httpError, type ModelBehaviour, refusal, silence } from '../support/model_behaviour.ts';
import { startOnWorkerd, type WorkerdService } from './workerd.ts';

const REOPEN = '/rest/v1/rpc/reopen_ai_session';

const body = { input_text: lesson(), model: 'test/first' };
const ASYNC = { prefer: 'respond-async' };

type Case = {
  /** The state of the key's session at the crash. */
  when: string;
  /** Brings the session to that state. */
  before: (user: SignedIn) => Promise<unknown>;
  /** The response to the key afterwards. */
  status: 201 | 500;
  code?: string;
  partial?: boolean;
  candidates?: number;
  run: number;
  modelCalls: number;
  generationsCharged: number;
};

let service: WorkerdService;
const victims = new Map<Pick<Case, 'before'>, SignedIn>();

const keyed = ({ token }: SignedIn, headers: Record<string, string> = {}, sent: object = body): Promise<Answer> =>
  create(service, token, sent, { 'idempotency-key': 'k', ...headers });

/** Starts a generation, and waits for the model call. */
async function begin(user: SignedIn, behaviour: ModelBehaviour): Promise<string> {
  const { openrouter } = service.world;
  openrouter.next(behaviour);
  const called = openrouter.arrived(openrouter.requests.total + 1);
  const { id } = (await keyed(user, ASYNC)).body;
  await called;
  return id;
}

async function failOnce(user: SignedIn): Promise<void> {
  service.world.openrouter.next(httpError(503), 3);
  expectProblem(await keyed(user), 500, 'ai_unavailable');
}

const rowIsOpen = (user: SignedIn, run: number) =>
  eventually('the run is open', async () => (await rowsOf(service, user)).sessions.find((row) => row['run'] === run && row['status'] === 'generating'));

const cases: Case[] = [
  {
    when: 'no candidates yet',
    before: async (user) => {
      await begin(user, gated(createGate()));
      await rowIsOpen(user, 1);
    },
    ...{ status: 201, partial: false, candidates: 20, run: 1, modelCalls: 2, generationsCharged: 1 },
  },
  {
    when: 'five candidates',
    before: async (user) => {
      const id = await begin(user, answer({ hold: { gate: createGate(), after_candidates: 5 } }));
      await eventually('the candidates are stored', async () => ((await read(service, user.token, id)).body.candidate_count === 5 ? true : undefined));
    },
    ...{ status: 201, partial: true, candidates: 5, run: 1, modelCalls: 1, generationsCharged: 1 },
  },
  {
    when: 'its completion stored',
    before: async (user) => assert.equal((await keyed(user)).status, 201),
    ...{ status: 201, partial: false, candidates: 20, run: 1, modelCalls: 1, generationsCharged: 1 },
  },
  {
    when: 'its completion not yet persisted',
    before: async (user) => {
      service.world.gateway.fail(({ path, headers }) => path === FINISH_PATH && headers['authorization'] === `Bearer ${user.token}`, { kind: 'answer', status: 503 });
      expectProblem(await keyed(user), 500, 'database_error');
    },
    ...{ status: 201, partial: false, candidates: 20, run: 1, modelCalls: 1, generationsCharged: 1 },
  },
  {
    when: 'a final failure',
    before: async (user) => {
      service.world.openrouter.next(refusal());
      expectProblem(await keyed(user), 500, 'ai_refused');
    },
    ...{ status: 500, code: 'ai_refused', run: 1, modelCalls: 1, generationsCharged: 1 },
  },
  {
    when: 'a retryable failure',
    before: failOnce,
    ...{ status: 201, partial: false, candidates: 20, run: 2, modelCalls: 4, generationsCharged: 1 },
  },
  {
    when: 'another run in progress',
    before: async (user) => {
      await failOnce(user);
      await begin(user, gated(createGate()));
      await rowIsOpen(user, 2);
    },
    ...{ status: 201, partial: false, candidates: 20, run: 2, modelCalls: 5, generationsCharged: 1 },
  },
  {
    when: 'another run without a row',
    before: async (user) => {
      await failOnce(user);
      const opening = createGate();
      service.world.gateway.fail(({ path, headers }) => path === REOPEN && headers['authorization'] === `Bearer ${user.token}`, { kind: 'gate', gate: opening });
      await begin(user, gated(createGate()));
      await opening.reached;
    },
    ...{ status: 201, partial: false, candidates: 20, run: 2, modelCalls: 5, generationsCharged: 1 },
  },
];

describe('a key after a crash', { concurrency: true }, () => {
  before(async () => {
    service = await startOnWorkerd({ RATE_LIMIT_BURST: '100/60', RATE_LIMIT_CONCURRENT: '1', AI_IDLE_TIMEOUT_MS: '60000' });
    for (const each of [...cases, stopped]) {
      const user = await signIn(service);
      await each.before(user);
      victims.set(each, user);
    }
    service.world.gateway.clearFaults();
    const [silenced] = (await rowsOf(service, victims.get(stopped)!)).sessions;
    // No behaviour is queued: the model answers every call from now on, except that of the stopped session.
    service.world.openrouter.always((turn) => (turn.request.headers['x-session-id'] === silenced?.['id'] ? silence({ headers: true }) : goodAnswer)(turn));
    await service.kill();
  });
  after(() => service.close());

  for (const each of cases) {
    it(`a key whose session had ${each.when} keeps it, billed once`, async () => {
      const user = victims.get(each);
      assert.ok(user, 'it has reached that state');
      const [opened] = (await rowsOf(service, user)).sessions;
      const modes = [{}, ASYNC, { accept: 'text/event-stream' }];
      const answers = await Promise.all(Array.from({ length: 9 }, (_, n) => keyed(user, modes[n % 3])));
      const sync = answers.filter((_, n) => n % 3 === 0);
      for (const response of sync) {
        assert.deepEqual([response.status, response.body.code, response.body.partial, response.body.candidates?.length], [each.status, each.code, each.partial, each.candidates], response.text);
        assert.equal(remaining(response)['generations'], 50 - each.generationsCharged);
      }
      if (each.status === 201) assert.equal(new Set(sync.map(({ text }) => text)).size, 1);

      expectProblem(await keyed(user, {}, { ...body, model: 'test/second' }), 422, 'idempotency_key_reused');
      const { sessions, candidates, events } = await rowsOf(service, user);
      assert.deepEqual(sessions.map(({ id, run }) => [id, run]), [[opened?.['id'], each.run]]);
      assert.equal(candidates.length, each.candidates ?? 0);
      assert.deepEqual(events.map(({ run }) => run), Array.from({ length: each.run }, (_, n) => n + 1), 'each run ended once');
      const calls = service.world.openrouter.requests.where(({ headers }) => headers['x-session-id'] === opened?.['id']);
      assert.equal(calls.length, each.modelCalls);
    });
  }

  it('a generation without candidates can be stopped after a crash', async () => {
    const user = victims.get(stopped);
    assert.ok(user, 'it has reached that state');
    const { id } = (await rowsOf(service, user)).sessions[0]!;
    assert.equal((await sendRequest(service, 'DELETE', `/ai-sessions/${id}`, { token: user.token })).status, 204);
    const found = await read(service, user.token, id);
    assert.deepEqual([found.body.status, found.body.error], ['failed', 'cancelled']);
    const { events } = await rowsOf(service, user);
    assert.deepEqual(events.map(({ data }) => data.code), ['cancelled']);
    assert.equal(remaining(await create(service, user.token))['generations'], 49);
  });
});

/** A session that is stopped before any other request for it. */
const stopped: Pick<Case, 'before'> = {
  before: async (user) => {
    await begin(user, gated(createGate()));
    await rowIsOpen(user, 1);
  },
};
