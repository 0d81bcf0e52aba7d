// Two isolates of an Edge Function at once, for one user: the limits are those of one, and a generation of one isolate can be
// joined, resumed and stopped in the other.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Answer, create, createStream, expectList, expectProblem, lesson, NoStream, ofTheList, read, remaining, remainingOfAll, rowsOf, sendRequest, signIn } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { answer, candidateByCandidate, gated, goodAnswer } from '../support/model_behaviour.ts';
import { followed, inIsolate, refusals, subscribeIn } from './isolates.ts';
import { type EdgeService, startInIsolates } from './supabase_edge.ts';

const QUOTA = 10;
const REQUESTS = 50;
const KEY = { 'idempotency-key': '"the-one"' };
const body = { input_text: lesson(), model: 'test/first' };

describe('the limits of a user in two isolates', () => {
  let service: EdgeService;
  before(async () => {
    service = await startInIsolates({ isolates: 2 }, { RATE_LIMIT_GENERATIONS: `${QUOTA}/86400`, RATE_LIMIT_BURST: '60/3600', RATE_LIMIT_CONCURRENT: '100' });
    service.runtime.spread = 'round robin';
  });
  after(() => service.close());

  it(`a quota of ${QUOTA} admits exactly ${QUOTA} of ${REQUESTS} parallel requests`, async () => {
    const { openrouter } = service.world;
    const gate = createGate();
    openrouter.reset();
    openrouter.always(gated(gate));
    const user = await signIn(service);
    const ended: Answer[] = [];
    const refused = Promise.withResolvers<void>();
    const pending = Array.from({ length: REQUESTS }, async () => {
      const answer = await create(service, user.token);
      if (ended.push(answer) === REQUESTS - QUOTA) refused.resolve();
      return answer;
    });
    await openrouter.arrived(QUOTA, 30_000);
    await Promise.race([refused.promise, Promise.all(pending)]);
    const statuses = ended.map(({ status, body }) => `${status} ${body['violated-policies']}`);
    assert.deepEqual(statuses, Array.from({ length: REQUESTS - QUOTA }, () => '429 generations'));
    assert.deepEqual(new Set(ended.map((one) => remaining(one)['generations'])), new Set([0]));
    gate.open();
    await Promise.all(pending);
    assert.equal(ended.filter(({ status }) => status === 201).length, QUOTA);
    assert.equal(openrouter.requests.total, QUOTA);
    const { sessions } = await rowsOf(service, user);
    assert.deepEqual(sessions.map(({ status }) => status), Array.from({ length: QUOTA }, () => 'completed'));
  });

  it('each request counts once in the RateLimit of its response', async () => {
    const user = await signIn(service);
    service.world.openrouter.reset();
    const gate = createGate();
    service.world.openrouter.always(gated(gate));
    const answers = await Promise.all(Array.from({ length: QUOTA }, () => create(service, user.token, body, { prefer: 'respond-async' })));
    gate.open();
    assert.deepEqual(answers.map(({ status }) => status), answers.map(() => 202));
    const left = (policy: string) => answers.map((one) => remainingOfAll(one)[policy]).sort((a = 0, b = 0) => b - a);
    assert.deepEqual(left('generations'), Array.from({ length: QUOTA }, (_, n) => QUOTA - 1 - n));
    assert.deepEqual(left('burst'), Array.from({ length: QUOTA }, (_, n) => 59 - n));
    const [policy] = new Set(answers.map(({ headers }) => headers.get('ratelimit-policy')));
    assert.ok(answers.every(({ headers }) => headers.get('ratelimit-policy') === policy));
  });

  it('a reservation of one isolate is refunded in the other', async () => {
    const user = await signIn(service);
    const { openrouter } = service.world;
    openrouter.reset();
    openrouter.always(answer({ whole_candidates: 0, instead_of_end: 'silence' }));
    const { body: accepted } = await create(service, user.token, body, inIsolate(0, { prefer: 'respond-async' }));
    assert.equal((await sendRequest(service, 'DELETE', `/ai-sessions/${accepted.id}`, { token: user.token, headers: inIsolate(0) })).status, 204);
    openrouter.always(goodAnswer);
    assert.equal(remaining(await create(service, user.token, body, inIsolate(1)))['generations'], QUOTA - 1);
  });
});

describe('a generation of another isolate', () => {
  let service: EdgeService;
  before(async () => {
    service = await startInIsolates({ isolates: 2 }, { RATE_LIMIT_CONCURRENT: '1' });
  });
  after(() => service.close());

  it('a request with the same key joins it in sync mode', async () => {
    const user = await signIn(service);
    const { openrouter } = service.world;
    const gate = createGate();
    openrouter.reset();
    openrouter.next(gated(gate));
    const first = create(service, user.token, body, inIsolate(0, KEY));
    await openrouter.arrived(1);
    const second = create(service, user.token, body, inIsolate(1, KEY));
    await followed(service, user);
    gate.open();
    const answers = await Promise.all([first, second]);
    assert.deepEqual(answers.map(({ status }) => status), [201, 201]);
    assert.deepEqual(answers[1].body, answers[0].body);
    assert.equal(openrouter.requests.total, 1);
    assert.deepEqual(answers.map((one) => remaining(one)['generations']), [49, 49]);
    assert.equal((await rowsOf(service, user)).sessions.length, 1);
  });

  it('a request with the same key joins it in stream mode', async () => {
    const user = await signIn(service);
    const { openrouter } = service.world;
    const gates = [createGate(), createGate(), createGate()];
    openrouter.reset();
    openrouter.next(candidateByCandidate(gates));
    const first = await createStream(service, user.token, body, inIsolate(0, KEY));
    gates[0]?.open();
    const [session] = await first.some(2);
    const second = await createStream(service, user.token, body, inIsolate(1, KEY));
    assert.equal((await second.some(2))[0]?.data.id, session?.data.id);
    for (const gate of gates) gate.open();
    const lists = [await first.whole(), await second.whole()];
    expectList(lists[0] ?? [], 3, 'done');
    assert.deepEqual(lists[1]?.map(ofTheList), lists[0]?.map(ofTheList));
    assert.equal(openrouter.requests.total, 1);
  });

  it('another text with the same key is refused', async () => {
    const user = await signIn(service);
    const { openrouter } = service.world;
    const gate = createGate();
    openrouter.reset();
    openrouter.next(gated(gate));
    const first = create(service, user.token, body, inIsolate(0, KEY));
    await openrouter.arrived(1);
    expectProblem(await create(service, user.token, { ...body, input_text: lesson(30) }, inIsolate(1, KEY)), 422, 'idempotency_key_reused');
    gate.open();
    assert.equal((await first).status, 201);
  });

  it('the concurrent limit counts it', async () => {
    const user = await signIn(service);
    const { openrouter } = service.world;
    const gate = createGate();
    openrouter.reset();
    openrouter.next(gated(gate));
    const first = create(service, user.token, body, inIsolate(0));
    await openrouter.arrived(1);
    const refused = expectProblem(await create(service, user.token, body, inIsolate(1)), 429, 'rate_limited');
    assert.deepEqual(refused['violated-policies'], ['concurrent']);
    gate.open();
    assert.equal((await first).status, 201);
    assert.equal((await create(service, user.token, body, inIsolate(1))).status, 201);
  });

  it('its stream is resumed after an event with the same bytes', async () => {
    const user = await signIn(service);
    const gates = Array.from({ length: 6 }, createGate);
    service.world.openrouter.reset();
    service.world.openrouter.next(candidateByCandidate(gates));
    const stream = await createStream(service, user.token, body, inIsolate(0));
    for (const gate of gates.slice(0, 3)) gate.open();
    const received = await stream.some(4);
    const soFar = received.length;
    const rests = await Promise.all(received.map(({ id }) => subscribeIn(service, 1, user, received[0]?.data.id, id)));
    // The resumed streams are in mid-stream: the next candidate arrives while the model waits.
    gates[3]?.open();
    for (const [n, rest] of rests.entries()) assert.equal((await rest.some(soFar - n)).at(-1)?.id, '1.4');
    for (const gate of gates) gate.open();
    expectList(await stream.whole(), gates.length, 'done');
    const whole = stream.bytes.toString();
    for (const [n, rest] of rests.entries()) {
      await rest.whole();
      assert.equal(rest.bytes.toString(), whole.slice(whole.indexOf(`id: 1.${n + 1}\n`)), `after 1.${n}`);
    }
    assert.equal(service.world.openrouter.requests.total, 1);
  });

  it('it is read as generating, and with its end', async () => {
    const user = await signIn(service);
    const gate = createGate();
    service.world.openrouter.reset();
    service.world.openrouter.next(gated(gate));
    const { body: accepted } = await create(service, user.token, body, inIsolate(0, { prefer: 'respond-async' }));
    const readIn = (isolate: number) => sendRequest(service, 'GET', `/ai-sessions/${accepted.id}`, { token: user.token, headers: inIsolate(isolate) });
    assert.equal((await readIn(1)).body.status, 'generating');
    const stream = await subscribeIn(service, 1, user, accepted.id);
    gate.open();
    expectList(await stream.whole(), 20, 'done');
    assert.deepEqual((await readIn(1)).body, (await readIn(0)).body);
    assert.equal((await readIn(1)).body.status, 'completed');
  });

  for (const candidates of [0, 2]) {
    it(`a stop after ${candidates} candidates closes the connection of the model`, async (test) => {
      const user = await signIn(service);
      const { openrouter } = service.world;
      openrouter.reset();
      openrouter.next(answer({ whole_candidates: candidates, instead_of_end: 'silence' }));
      const stream = await createStream(service, user.token, body, inIsolate(0));
      const [session] = await stream.some(1 + candidates);
      const call = await openrouter.arrived(1);
      const began_ms = performance.now();
      const closed = call.over.then(() => performance.now() - began_ms);
      const stopped = await sendRequest(service, 'DELETE', `/ai-sessions/${session?.data.id}`, { token: user.token, headers: inIsolate(1) });
      assert.equal(stopped.status, 204);
      const stopped_ms = performance.now() - began_ms;
      await openrouter.aborted(1);
      // The second that is promised is tested in tests/core, where no other process takes time. Polls that fail would leave it to
      // the renewal of the lease, 5 s later.
      assert.deepEqual(refusals(service), []);
      assert.ok(stopped_ms < 4_000, `${stopped_ms} ms`);
      test.diagnostic(`the model's connection was closed after ${(await closed).toFixed(0)} ms, and the stop had its response after ${stopped_ms.toFixed(0)} ms`);
      const end = expectList(await stream.whole(), candidates, candidates > 0 ? 'done' : 'error');
      assert.deepEqual([end.partial, end.code], candidates > 0 ? [true, undefined] : [undefined, 'cancelled']);
      const found = await read(service, user.token, session?.data.id);
      assert.deepEqual([found.body.status, found.body.candidates.length], [candidates > 0 ? 'completed' : 'failed', candidates]);
      assert.equal(openrouter.requests.total, 1);
      assert.equal(remaining(await create(service, user.token, body, inIsolate(1)))['generations'], candidates > 0 ? 48 : 49);
    });
  }

  it('a stop of both isolates at once ends it once', async () => {
    const user = await signIn(service);
    service.world.openrouter.reset();
    service.world.openrouter.next(answer({ whole_candidates: 2, instead_of_end: 'silence' }));
    const stream = await createStream(service, user.token, body, inIsolate(0));
    const [session] = await stream.some(3);
    const stops = await Promise.all(
      [0, 1].map((isolate) => sendRequest(service, 'DELETE', `/ai-sessions/${session?.data.id}`, { token: user.token, headers: inIsolate(isolate) })),
    );
    const statuses = stops.map(({ status }) => status);
    assert.ok(statuses.includes(204) && statuses.every((status) => [204, 409].includes(status)), String(statuses));
    expectList(await stream.whole(), 2, 'done');
    const { sessions, events } = await rowsOf(service, user);
    assert.deepEqual([sessions.map(({ status }) => status), events.map(({ type }) => type)], [['completed'], ['ai_session.completed']]);
  });

  it('a foreign user finds it in no isolate', async () => {
    const [user, stranger] = [await signIn(service), await signIn(service)];
    const gate = createGate();
    service.world.openrouter.reset();
    service.world.openrouter.next(gated(gate));
    const { body: accepted } = await create(service, user.token, body, inIsolate(0, { prefer: 'respond-async' }));
    for (const isolate of [0, 1]) {
      const refused = await subscribeIn(service, isolate, stranger, accepted.id).catch((error: unknown) => error);
      assert.ok(refused instanceof NoStream);
      expectProblem(refused.answer, 404, 'not_found');
    }
    gate.open();
    expectList(await (await subscribeIn(service, 1, user, accepted.id)).whole(), 20, 'done');
  });
});
