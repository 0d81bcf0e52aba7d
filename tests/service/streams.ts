// POST /ai-sessions with `Accept: text/event-stream`: each candidate as soon as it is stored, and always an end. Late and
// reconnecting subscribers: session_events.ts.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate, type Gate } from '../support/gate.ts';
import type { EventSubscriber } from '../support/event_subscriber.ts';
import { FINISH_PATH, SESSIONS_PATH } from '../support/gateway.ts';
import {
  answer,
  candidateByCandidate,
  content,
  contentFilter,
  cutAfter,
  cutByLength,
  errorEvent,
  gated,
  httpError,
  inChunksOf,
  type ModelBehaviour,
  plainCompletion,
  refusal,
} from '../support/model_behaviour.ts';
import {
  candidateOf,
  create,
  createStream,
  eventually,
  expectList,
  expectProblem,
  lesson,
  pathOf,
  read,
  remaining,
  rowsOf,
  sendRequest,
  type Service,
  type SignedIn,
  signIn,
  started,
  type StartService,
  subscribe,
  UUID_V7,
} from './service.ts';

export function tests(start: StartService): void {
  describe('complete', () => asItComes(start));
  describe('refused', () => refused(start));
  describe('of a generation that fails', () => failing(start));
  describe('of a partial generation', () => breakingOff(start));
  describe('not persisted', () => notStored(start));
  describe('disconnected', () => leaving(start));
  describe('silent', () => silent(start));
}

function asItComes(start: StartService): void {
  const service = started(start);

  it('the session event is sent before the model and the database answer', async () => {
    const { openrouter, gateway } = service().world;
    const [model, database] = [createGate(), createGate()];
    const { token } = await signIn(service());
    openrouter.next(gated(model));
    const set = gateway.fail(SESSIONS_PATH, { kind: 'gate', gate: database }, 1);
    const stream = await createStream(service(), token);
    const first = await stream.next();
    assert.deepEqual([first.event, first.id, Object.keys(first.data)], ['session', '1.0', ['id']]);
    assert.match(first.data.id, UUID_V7);
    await Promise.all([model.reached, database.reached]);
    assert.equal(set.hits, 1);
    model.open();
    database.open();
    expectList(await stream.whole(), 20, 'done');
  });

  it('each candidate is sent before the model writes the next one', async () => {
    const gates = Array.from({ length: 7 }, createGate);
    const { token } = await signIn(service());
    service().world.openrouter.next(candidateByCandidate(gates));
    const stream = await createStream(service(), token, undefined, { 'accept-encoding': 'gzip, deflate, br, zstd' });
    assert.equal((await stream.next()).event, 'session');
    for (const [index, gate] of gates.entries()) {
      const { event, id, data } = await stream.next();
      assert.deepEqual([event, id, data.index], ['candidate', `1.${index + 1}`, index]);
      gate.open();
    }
    assert.equal((await stream.next()).event, 'done');
    expectList(await stream.whole(), 7, 'done');
  });

  it('the streamed candidates equal the stored and the read ones', async () => {
    const user = await signIn(service());
    const events = await (await createStream(service(), user.token)).whole();
    const done = expectList(events, 20, 'done');
    const id = events[0]?.data.id;
    const { sessions, candidates } = await rowsOf(service(), user);
    assert.deepEqual(sessions.map(({ id, status, partial }) => [id, status, partial]), [[id, 'completed', false]]);
    const streamed = events.slice(1, -1).map(({ data: { index, ...candidate } }) => candidate);
    assert.deepEqual(candidates.map(candidateOf), streamed);
    const found = await read(service(), user.token, id);
    assert.deepEqual(found.body.candidates, streamed);
    assert.deepEqual(done, { id, count: 20, partial: false, usage: found.body.usage, coverage: Number(sessions[0]?.['coverage_percent']) / 100 });
    assert.ok(done.usage.completion_tokens > 0);
    assert.deepEqual(Object.keys(events[1]?.data), ['index', 'id', 'front', 'back', 'prompt', 'source', 'supported', 'notes']);
  });

  it('the headers prevent buffering', async () => {
    const { token } = await signIn(service());
    const request_id = crypto.randomUUID();
    const stream = await createStream(service(), token, undefined, {
      origin: 'https://cards.example',
      'x-request-id': request_id,
      'accept-encoding': 'gzip, br',
    });
    const [session] = await stream.whole();
    const { headers } = stream;
    assert.equal(headers.get('content-type'), 'text/event-stream');
    assert.equal(headers.get('cache-control'), 'no-store, no-transform');
    assert.equal(headers.get('content-encoding'), null);
    assert.equal(headers.get('content-length'), null);
    assert.equal(headers.get('location'), pathOf(service(), session?.data.id));
    assert.equal(headers.get('x-request-id'), request_id);
    assert.equal(headers.get('access-control-allow-origin'), 'https://cards.example');
    assert.match(headers.get('access-control-expose-headers') ?? '', /Location.*X-Request-Id|X-Request-Id.*Location/i);
    assert.deepEqual(remaining(stream), { burst: 9, generations: 49 });
    assert.equal(headers.get('x-reply'), null);
  });

  for (const bytes of [1, 2, 3, 7, 64]) {
    it(`the candidates do not depend on chunks of ${bytes} bytes`, async () => {
      const { token } = await signIn(service());
      const { body } = await create(service(), token);
      service().world.openrouter.next(inChunksOf(bytes, { line_end: '\r\n' }));
      const events = await (await createStream(service(), token)).whole();
      expectList(events, 20, 'done');
      const fields = ({ front, back, prompt }: Record<string, string>) => ({ front, back, prompt });
      assert.deepEqual(events.slice(1, -1).map(({ data }) => fields(data)), body.candidates.map(fields));
    });
  }

  it('each event is one line of data for any content', async () => {
    const { token } = await signIn(service());
    const candidates = ['a\nb\n\nid: 9\n\ndata: {}', 'c\r\nd', 'e\u2028f\u2029g\u0085h', '"{}\\"', '\u{1f422}\u0000 \ud83d'].map((front) => ({
      front,
      back: front,
      prompt: front,
    }));
    service().world.openrouter.next(answer({ candidates }));
    const stream = await createStream(service(), token);
    const events = await stream.whole();
    const { id } = expectList(events, 5, 'done');
    assert.equal(stream.bytes.toString().split('\n').length - 1, 4 * events.length);
    const found = await read(service(), token, id);
    assert.deepEqual(events.slice(1, -1).map(({ data }) => data.front), found.body.candidates.map(({ front }: any) => front));
    assert.equal(events[1]?.data.front, candidates[0]?.front);
  });

  it('an answer without streaming is sent as a stream', async () => {
    const { token } = await signIn(service());
    service().world.openrouter.next(plainCompletion());
    expectList(await (await createStream(service(), token)).whole(), 20, 'done');
  });
}

function refused(start: StartService): void {
  const service = started(start, { RATE_LIMIT_GENERATIONS: '1/60', RATE_LIMIT_BURST: '4/60' });
  const accept = 'text/event-stream';
  const good = () => ({ input_text: lesson(), model: 'test/first' });

  it('a refused stream is a problem document', async () => {
    const { token } = await signIn(service());
    const post = (body: unknown, headers = {}) => create(service(), token, body, { accept, ...headers });
    expectProblem(await sendRequest(service(), 'POST', '/ai-sessions', { body: good(), headers: { accept } }), 401, 'missing_token');
    expectProblem(await sendRequest(service(), 'POST', '/ai-sessions', { token: 'x.y.z', body: good(), headers: { accept } }), 401, 'invalid_token');
    expectProblem(await post('{'), 400, 'malformed_json');
    expectProblem(await post({ ...good(), input_text: 'short' }), 400, 'validation_failed');
    const garbage = expectProblem(await post(good(), { 'last-event-id': 'x' }), 400, 'invalid_parameter');
    assert.deepEqual(garbage.errors.map(({ field }: { field: string }) => field), ['Last-Event-ID']);
    expectProblem(await post(good(), { 'content-type': 'text/plain' }), 415, 'unsupported_media_type');
    const limited = await post(good());
    expectProblem(limited, 429, 'rate_limited');
    assert.deepEqual(limited.body['violated-policies'], ['burst']);
  });

  it('a stream without a remaining generation is a 429', async () => {
    const { token } = await signIn(service());
    expectList(await (await createStream(service(), token)).whole(), 20, 'done');
    const limited = await create(service(), token, undefined, { accept });
    expectProblem(limited, 429, 'rate_limited');
    assert.ok(Number(limited.headers.get('retry-after')) > 0);
  });
}

function failing(start: StartService): void {
  const service = started(start, { AI_MAX_ATTEMPTS: '1' });

  const failures: [code: string, behaviour: ModelBehaviour][] = [
    ['ai_unavailable', httpError(503, { retry_after_s: 7 })],
    ['ai_timeout', httpError(504)],
    ['ai_refused', refusal()],
    ['ai_invalid_response', content('{"candidates":[]}')],
    ['ai_misconfigured', httpError(402)],
  ];
  for (const [code, behaviour] of failures) {
    it(`a failed stream ends with ${code}, the document of sync mode`, async () => {
      const user = await signIn(service());
      service().world.openrouter.next(behaviour, 2);
      const plain = expectProblem(await create(service(), user.token), 500, code);
      const stream = await createStream(service(), user.token);
      const events = await stream.whole();
      const problem = expectList(events, 0, 'error');
      assert.deepEqual(problem, { ...plain, request_id: stream.headers.get('x-request-id') });
      const later = await subscribe(service(), user.token, events[0]?.data.id);
      assert.deepEqual(expectList(await later.whole(), 0, 'error'), { ...plain, request_id: later.headers.get('x-request-id') });
      const { sessions } = await rowsOf(service(), user);
      assert.deepEqual(sessions.map(({ status, error_code }) => [status, error_code]), [['failed', code], ['failed', code]]);
    });
  }

  it('a stream whose row cannot be opened ends with database_error', async () => {
    const { openrouter, gateway } = service().world;
    const gate = createGate();
    const user = await signIn(service());
    openrouter.reset();
    openrouter.next(gated(gate));
    const set = gateway.fail(SESSIONS_PATH, { kind: 'answer', status: 503 });
    const stream = await createStream(service(), user.token);
    const problem = expectList(await stream.whole(), 0, 'error');
    set.clear();
    gate.open();
    assert.deepEqual([problem.status, problem.code, problem.retryable], [500, 'database_error', true]);
    await openrouter.aborted(1);
    assert.deepEqual(await rowsOf(service(), user), { sessions: [], candidates: [], events: [] });
    assert.deepEqual(remaining(await create(service(), user.token)), { burst: 8, generations: 49 });
  });

  it('a stream stopped before its first candidate ends with cancelled', async () => {
    const { openrouter } = service().world;
    const user = await signIn(service());
    openrouter.reset();
    openrouter.next(gated(createGate()));
    const stream = await createStream(service(), user.token);
    const { data: { id } } = await stream.next();
    assert.equal((await sendRequest(service(), 'DELETE', `/ai-sessions/${id}`, { token: user.token })).status, 204);
    const problem = expectList(await stream.whole(), 0, 'error');
    assert.deepEqual([problem.status, problem.code], [409, 'cancelled']);
    await openrouter.aborted(1);
  });
}

function breakingOff(start: StartService): void {
  const service = started(start);

  const ways: [name: string, behaviour: ModelBehaviour, candidates: number][] = [
    ['at the token limit', cutByLength(5), 5],
    ['by a cut', cutAfter(3, 10), 3],
    ['by an error event', errorEvent({ after_candidates: 2 }), 2],
    ['by the filter', contentFilter(1), 1],
  ];
  for (const [name, behaviour, candidates] of ways) {
    it(`a stream cut ${name} ends with done, partial`, async () => {
      const { openrouter } = service().world;
      const { token } = await signIn(service());
      openrouter.reset();
      openrouter.next(behaviour);
      const done = expectList(await (await createStream(service(), token)).whole(), candidates, 'done');
      assert.deepEqual([done.count, done.partial], [candidates, true]);
      assert.equal(openrouter.requests.total, 1);
      assert.equal((await read(service(), token, done.id)).body.partial, true);
    });
  }

  it('a stopped stream ends with done, partial, for all subscribers', async () => {
    const { openrouter } = service().world;
    const { token } = await signIn(service());
    openrouter.reset();
    openrouter.next(answer({ hold: { gate: createGate(), after_candidates: 4 } }));
    const stream = await createStream(service(), token);
    const [session] = await stream.some(5);
    const other = await subscribe(service(), token, session?.data.id, '1.3');
    assert.equal((await sendRequest(service(), 'DELETE', `/ai-sessions/${session?.data.id}`, { token })).status, 204);
    const done = expectList(await stream.whole(), 4, 'done');
    assert.deepEqual([done.count, done.partial], [4, true]);
    assert.deepEqual(await other.whole(), stream.events.slice(4));
    await openrouter.aborted(1);
  });
}

function notStored(start: StartService): void {
  const service = started(start);

  it('a stream not persisted ends with database_error and can be resumed', async () => {
    const user = await signIn(service());
    const set = service().world.gateway.fail(FINISH_PATH, { kind: 'answer', status: 503 });
    const stream = await createStream(service(), user.token);
    const received = await stream.whole();
    const error = received.at(-1);
    expectList(received.slice(0, -1).concat({ ...error!, id: '1.21' }), 20, 'error');
    assert.deepEqual([error?.id, error?.data.code, error?.data.retryable], ['1.20', 'database_error', true]);
    const id = received[0]?.data.id;

    const inVain = await subscribe(service(), user.token, id, stream.lastEventId);
    assert.deepEqual((await inVain.whole()).map(({ id, event, data }) => [id, event, data.code]), [['1.20', 'error', 'database_error']]);

    set.clear();
    const later = await (await subscribe(service(), user.token, id, stream.lastEventId)).whole();
    assert.deepEqual(later.map(({ id, event }) => [id, event]), [['1.21', 'done']]);
    assert.equal(expectList([...received.slice(0, -1), ...later], 20, 'done').count, 20);
    const { sessions } = await rowsOf(service(), user);
    assert.deepEqual(sessions.map(({ status }) => status), ['completed']);
    assert.deepEqual(await (await subscribe(service(), user.token, id)).whole(), [...received.slice(0, -1), ...later]);
  });

  it('a model failure not yet persisted is streamed as such', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    openrouter.next(httpError(402));
    const set = gateway.fail(FINISH_PATH, { kind: 'cut' });
    const stream = await createStream(service(), user.token);
    assert.equal(expectList(await stream.whole(), 0, 'error').code, 'ai_misconfigured');
    set.clear();
    const later = await subscribe(service(), user.token, stream.events[0]?.data.id, '1.0');
    assert.deepEqual((await later.whole()).map(({ id, data }) => [id, data.code]), [['1.1', 'ai_misconfigured']]);
  });
}

function leaving(start: StartService): void {
  const service = started(start);

  const moments: [name: string, behaviour: (gate: Gate) => ModelBehaviour, events: number][] = [
    ['before the first candidate', (gate) => gated(gate), 1],
    ['between two candidates', (gate) => answer({ hold: { gate, after_candidates: 3 } }), 4],
  ];
  for (const [name, behaviour, events] of moments) {
    it(`a generation left ${name} runs to its end and is no failure`, async () => {
      const gate = createGate();
      const user = await signIn(service());
      service().world.openrouter.reset();
      service().world.openrouter.next(behaviour(gate));
      const stream = await createStream(service(), user.token);
      await stream.some(events);
      stream.leave();
      assert.equal(await stream.end, 'broken');
      gate.open();
      const session = await completed(service(), user);
      assert.deepEqual([session['partial'], (await rowsOf(service(), user)).candidates.length], [false, 20]);
      assert.equal(service().world.openrouter.requests.total, 1);
      const rest = await subscribe(service(), user.token, session['id'], stream.lastEventId);
      expectList([...stream.events, ...(await rest.whole())], 20, 'done');
      assert.deepEqual(service().logs.filter(isComplaint), []);
    });
  }

  it('the other subscribers stay connected', async () => {
    const gate = createGate();
    const { token } = await signIn(service());
    service().world.openrouter.next(answer({ hold: { gate, after_candidates: 3 } }));
    const streams: EventSubscriber[] = [await createStream(service(), token)];
    const [session] = await streams[0]!.some(4);
    while (streams.length < 4) streams.push(await subscribe(service(), token, session?.data.id));
    streams[0]?.leave();
    streams[2]?.leave();
    await Promise.all([streams[0]?.end, streams[2]?.end]);
    gate.open();
    for (const stream of [streams[1], streams[3]]) expectList((await stream?.whole()) ?? [], 20, 'done');
    assert.deepEqual(service().logs.filter(isComplaint), []);
  });
}

/** Lines of level error, or of an uncaught error. A host may log its data points, too. */
function isComplaint(line: string): boolean {
  if (line.startsWith('POINT ')) return false;
  try {
    return JSON.parse(line).level === 'error';
  } catch {
    return true;
  }
}

function completed(service: Service, user: SignedIn) {
  return eventually('the session ends', async () => {
    const [session] = (await rowsOf(service, user)).sessions;
    return session?.['status'] === 'completed' ? session : undefined;
  });
}

function silent(start: StartService): void {
  const service = started(start, { AI_IDLE_TIMEOUT_MS: '60000' });

  it('a silent stream has a comment after 15 s', async () => {
    const gate = createGate();
    const { token } = await signIn(service());
    service().world.openrouter.next(answer({ hold: { gate, after_candidates: 2 } }));
    const stream = await createStream(service(), token);
    await stream.some(3);
    const since_ms = performance.now();
    await stream.nextComment(20_000);
    const silence_ms = performance.now() - since_ms;
    assert.ok(silence_ms > 14_500 && silence_ms < 18_000, `${silence_ms} ms`);
    gate.open();
    expectList(await stream.whole(), 20, 'done');
  });
}
