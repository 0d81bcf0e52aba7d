// The limits of concurrent streams: 8 of a session, 32 of a user.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { createGate, type Gate } from '../support/gate.ts';
import { gated } from '../support/model_behaviour.ts';
import type { EventSubscriber } from '../support/event_subscriber.ts';
import {
  type Answer,
  create,
  createStream,
  expectProblem,
  lesson,
  NoStream,
  read,
  remainingOfAll,
  type Service,
  signIn,
  started,
  type StartService,
  subscribe,
} from './service.ts';

const PER_SESSION = 8;
const PER_USER = 32;
const body = { input_text: lesson(), model: 'test/first' };

function expectLimited(answer: Answer): void {
  const problem = expectProblem(answer, 429, 'rate_limited');
  assert.deepEqual(problem['violated-policies'], ['concurrent']);
  const retryAfter_s = Number(answer.headers.get('retry-after'));
  assert.ok(retryAfter_s >= 1 && retryAfter_s <= 10, `Retry-After: ${retryAfter_s}`);
}

/** Expects a refusal in place of a stream. */
async function refusal(stream: Promise<EventSubscriber>): Promise<Answer> {
  const refused = await stream.then(() => undefined, (error: unknown) => error);
  assert.ok(refused instanceof NoStream, `a refusal is expected: ${refused}`);
  return refused.answer;
}

/** Starts a stream whose model waits at the gate. */
async function runs(service: Service, token: string, gate: Gate, key: string): Promise<{ id: string; streams: EventSubscriber[] }> {
  service.world.openrouter.next(gated(gate));
  const stream = await createStream(service, token, body, { 'idempotency-key': key });
  const [session] = await stream.some(1);
  return { id: session?.data.id, streams: [stream] };
}

export function tests(start: StartService): void {
  const service = started(start, { RATE_LIMIT_CONCURRENT: '5', RATE_LIMIT_BURST: '100/60' });

  it('a ninth stream of a session is refused by POST and GET', async () => {
    const gate = createGate();
    const { token } = await signIn(service());
    const keyed = { 'idempotency-key': 'k' };
    const { id, streams } = await runs(service(), token, gate, 'k');
    while (streams.length < PER_SESSION - 1) streams.push(await subscribe(service(), token, id));
    streams.push(await createStream(service(), token, body, keyed));
    expectLimited(await refusal(subscribe(service(), token, id)));
    expectLimited(await refusal(createStream(service(), token, body, keyed)));
    // A request without a stream is no subscriber.
    const waiting = create(service(), token, body, keyed);
    assert.equal((await create(service(), token, body, { ...keyed, prefer: 'respond-async' })).status, 202);
    assert.equal((await read(service(), token, id)).status, 200);
    gate.open();
    for (const stream of streams) assert.equal((await stream.whole()).at(-1)?.event, 'done');
    const waited = await waiting;
    assert.equal(waited.status, 201, waited.text);
    assert.equal((await (await subscribe(service(), token, id)).whole()).at(-1)?.event, 'done', 'a subscriber is admitted again');
  });

  it('a user with 32 streams starts no generation with one more', async () => {
    const { openrouter } = service().world;
    const gate = createGate();
    const { token } = await signIn(service());
    openrouter.reset();
    const all: EventSubscriber[] = [];
    for (const key of ['a', 'b', 'c', 'd']) {
      const { id, streams } = await runs(service(), token, gate, key);
      while (streams.length < PER_SESSION) streams.push(await subscribe(service(), token, id));
      all.push(...streams);
    }
    assert.equal(all.length, PER_USER);
    const calls = openrouter.requests.total;
    const refused = await refusal(createStream(service(), token, body));
    expectLimited(refused);
    assert.equal(remainingOfAll(refused)['generations'], 46, 'nothing was reserved');
    assert.equal(openrouter.requests.total, calls);
    gate.open();
    for (const stream of all) assert.equal((await stream.whole()).at(-1)?.event, 'done');
    assert.equal((await create(service(), token, body)).status, 201);
  });
}
