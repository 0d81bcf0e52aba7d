// How many clients may wait for a session at the same time: 8 for one session, 32 for all sessions of a user.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { createGate, type Gate } from '../support/gate.ts';
import { gated } from '../support/model_behaviour.ts';
import type { Listening } from '../support/listening.ts';
import {
  type Answer,
  create,
  createStream,
  eventually,
  expectProblem,
  follow,
  lesson,
  NoStream,
  read,
  remainingOfAll,
  type Service,
  signIn,
  started,
  type StartService,
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

/** The refusal in place of a stream. */
async function refusal(stream: Promise<Listening>): Promise<Answer> {
  const refused = await stream.then(() => undefined, (error: unknown) => error);
  assert.ok(refused instanceof NoStream, `a refusal is expected: ${refused}`);
  return refused.answer;
}

/** A session of a model that waits at the gate, and the stream that started it. */
async function runs(service: Service, token: string, gate: Gate, key: string): Promise<{ id: string; streams: Listening[] }> {
  service.world.openrouter.next(gated(gate));
  const stream = await createStream(service, token, body, { 'idempotency-key': key });
  const [session] = await stream.some(1);
  return { id: session?.data.id, streams: [stream] };
}

export function tests(start: StartService): void {
  const service = started(start, { RATE_LIMIT_CONCURRENT: '5', RATE_LIMIT_BURST: '100/60' });

  it('a ninth subscriber of a session is refused, whichever way it comes, and the others get all of it', async () => {
    const gate = createGate();
    const { token } = await signIn(service());
    const { id, streams } = await runs(service(), token, gate, 'k');
    const waiting = create(service(), token, body, { 'idempotency-key': 'k' });
    while (streams.length < PER_SESSION - 1) streams.push(await follow(service(), token, id));
    // The one that waits for the end may come last of these: then it is the ninth follower that is not refused.
    const ninth = await eventually('eight wait', async () => {
      const stream = await follow(service(), token, id).catch((error: unknown) => {
        if (error instanceof NoStream) return error;
        throw error;
      });
      if (stream instanceof NoStream) return stream.answer;
      stream.leave();
      return undefined;
    });
    expectLimited(ninth);
    expectLimited(await create(service(), token, body, { 'idempotency-key': 'k' }));
    expectLimited(await refusal(createStream(service(), token, body, { 'idempotency-key': 'k' })));
    const later = await create(service(), token, body, { 'idempotency-key': 'k', prefer: 'respond-async' });
    assert.equal(later.status, 202, 'who does not wait is no subscriber');
    assert.equal((await read(service(), token, id)).status, 200);
    gate.open();
    for (const stream of streams) assert.equal((await stream.whole()).at(-1)?.event, 'done');
    assert.equal((await waiting).status, 201);
    assert.equal((await create(service(), token, body, { 'idempotency-key': 'k' })).status, 201, 'there is room again');
  });

  it('a user with 32 subscribers starts no generation that one would wait for', async () => {
    const { openrouter } = service().world;
    const gate = createGate();
    const { token } = await signIn(service());
    openrouter.reset();
    const all: Listening[] = [];
    for (const key of ['a', 'b', 'c', 'd']) {
      const { id, streams } = await runs(service(), token, gate, key);
      while (streams.length < PER_SESSION) streams.push(await follow(service(), token, id));
      all.push(...streams);
    }
    assert.equal(all.length, PER_USER);
    const calls = openrouter.requests.total;
    const refused = await refusal(createStream(service(), token, body));
    expectLimited(refused);
    assert.equal(remainingOfAll(refused)['generations'], 46, 'it reserved nothing');
    expectLimited(await create(service(), token, body));
    assert.equal(openrouter.requests.total, calls);
    gate.open();
    for (const stream of all) assert.equal((await stream.whole()).at(-1)?.event, 'done');
    assert.equal((await create(service(), token, body)).status, 201);
  });
}
