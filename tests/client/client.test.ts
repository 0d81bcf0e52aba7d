// The client for pages, against a scripted service: its requests, and its handling of every kind of response.

import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { type AiSessions, connect, type LineEvent, type SessionEvent } from '../../examples/astro/src/ai-sessions/client.ts';
import { ConnectionError, ProblemError } from '../../examples/astro/src/ai-sessions/errors.ts';
import type { Quota } from '../../examples/astro/src/ai-sessions/quota.ts';
import { document, events, json, noAnswer, problem, scripted, type SentEvent } from './scripted_fetch.ts';

const request = { input_text: 'A text.', model: 'a/one' };
const card = (index: number) => ({ index, id: `card-${index}`, front: `f${index}`, back: `b${index}`, prompt: `p${index}` });
const session: SentEvent = ['r.1', 'session', { id: 's-1' }];
const cards: SentEvent[] = [0, 1, 2].map((index) => [`r.${index + 2}`, 'candidate', card(index)]);
const done: SentEvent = ['r.5', 'done', { id: 's-1', count: 3, partial: false, usage: null }];
const whole = [session, ...cards, done];
const asReceived = ([lastEventId, type, data]: SentEvent) => ({ lastEventId, type, ...data });

const all = (stream: AsyncIterable<SessionEvent | LineEvent>) => Array.fromAsync(stream);
const withCode = (code: string) => (error: unknown) => error instanceof ProblemError && error.code === code;

test('create sends text, model, token and a key, and returns the candidates', async () => {
  const created = { id: 's-1', partial: false, candidates: [] };
  const service = scripted(json(created, 201), json(created, 201));
  const client = connect(service);
  assert.deepEqual(await client.create(request), created);
  await client.create(request);
  const [first, second] = service.sent;
  assert.equal(first?.method, 'POST');
  assert.deepEqual(first?.body, request);
  assert.equal(first?.headers.get('authorization'), 'Bearer token');
  assert.equal(first?.headers.get('content-type'), 'application/json');
  assert.match(first?.headers.get('idempotency-key') ?? '', /^"[\x21-\x7e]{1,255}"$/);
  assert.notEqual(first?.headers.get('idempotency-key'), second?.headers.get('idempotency-key'));
});

for (const slash of ['', '/', '//']) {
  test(`every path is under the base path of a URL that ends with "${slash}"`, async () => {
    const running = { id: 's-1', status: 'generating' };
    const service = scripted(
      json({ models: [] }),
      json({ id: 's-1' }, 201),
      json(running, 202, { location: '/functions/v1/flashcards/ai-sessions/s-1' }),
      events(whole),
      events(whole),
      json(running),
      json({ ...running, status: 'completed' }),
      json({ sessions: [], next: null }),
      new Response(null, { status: 204 }),
    );
    const client = connect({ ...service, url: `${service.url}/functions/v1/flashcards${slash}` });
    await client.models();
    await client.create(request);
    await client.createAsync(request);
    await all(client.stream(request));
    await all(client.subscribe('s-1'));
    await client.ended('s-1');
    await client.list({ limit: 2, before: 'a' });
    await client.cancel('s-1');
    const paths = ['/models', '/ai-sessions', '/ai-sessions', '/ai-sessions', '/ai-sessions/s-1/events', '/ai-sessions/s-1', '/ai-sessions/s-1', '/ai-sessions?limit=2&before=a', '/ai-sessions/s-1'];
    assert.deepEqual(service.sent.map(({ path }) => path), paths.map((path) => `/functions/v1/flashcards${path}`));
  });
}

test('a signed-out user sends no token', async () => {
  const service = scripted(problem(401, 'missing_token'));
  const client = connect({ ...service, accessToken: async () => undefined });
  await assert.rejects(client.list(), withCode('missing_token'));
  assert.equal(service.sent[0]?.headers.has('authorization'), false);
});

test('a broken connection is retried with the same key, up to a limit', async () => {
  const service = scripted(noAnswer(), new Response('<h1>502</h1>', { status: 502 }), json({ id: 's-1' }, 201));
  await connect(service).create(request);
  assert.equal(new Set(service.sent.map(({ headers }) => headers.get('idempotency-key'))).size, 1);
  assert.ok(service.pauses_ms.length === 2 && service.pauses_ms.every((ms) => ms >= 250 && ms <= 15_000));

  const away = scripted(...Array.from({ length: 12 }, noAnswer));
  await assert.rejects(connect(away).create(request), ConnectionError);
  assert.equal(away.sent.length, 12);
});

test('a response cut in its body is requested again', async () => {
  const cut = new Response('{"id":"s-', { status: 201 });
  assert.deepEqual(await connect(scripted(cut, json({ id: 's-1' }, 201))).create(request), { id: 's-1' });
});

test('a problem is a typed error with all of its members', async () => {
  const errors = [{ field: 'input_text', code: 'length' as const, message: 'has 7 characters', min: 1000, max: 10000, actual: 7 }];
  const service = scripted(problem(400, 'validation_failed', { errors }));
  await assert.rejects(connect(service).create(request), (error: ProblemError) => {
    assert.equal(error.code, 'validation_failed');
    assert.deepEqual(error.problem.errors, errors);
    assert.equal(error.problem.request_id, 'r');
    assert.equal(error.retryable, false);
    return true;
  });
  assert.equal(service.sent.length, 1);
});

test('a token that has expired is renewed once', async () => {
  const service = scripted(problem(401, 'expired_token'), json({ sessions: [], next: null }));
  await connect(service).list();
  assert.deepEqual(service.renewals, [false, true]);
  assert.equal(service.sent[1]?.headers.get('authorization'), 'Bearer new-token');

  const always = scripted(problem(401, 'expired_token'), problem(401, 'expired_token'));
  await assert.rejects(connect(always).list(), withCode('expired_token'));
});

test('Retry-After is waited for only up to wait_s', async () => {
  const limited = (after_s: number) => problem(429, 'rate_limited', { 'violated-policies': ['burst'] }, { 'retry-after': String(after_s) });
  const impatient = scripted(limited(7));
  await assert.rejects(connect(impatient).create(request), (error: ProblemError) => error.retryAfter_s === 7);
  assert.deepEqual(impatient.pauses_ms, []);

  const patient = scripted(limited(7), limited(3), json({ id: 's-1' }, 201));
  await connect(patient).create(request, { wait_s: 10 });
  assert.deepEqual(patient.pauses_ms, [7000, 3000]);

  const tooLong = scripted(limited(7), limited(4));
  await assert.rejects(connect(tooLong).create(request, { wait_s: 10 }), withCode('rate_limited'));

  const hopeless = scripted(problem(500, 'ai_misconfigured', { retryable: false }, { 'retry-after': '1' }));
  await assert.rejects(connect(hopeless).create(request, { wait_s: 10 }), withCode('ai_misconfigured'));
});

test('a refusal by spend has the amounts in dollars', async () => {
  const spend = { limit: '0.5', remaining: '0.02375', window_s: 86400 };
  const limited = scripted(problem(429, 'rate_limited', { 'violated-policies': ['spend'], spend }, { 'retry-after': '7' }));
  await assert.rejects(connect(limited).create(request), (error: ProblemError) => {
    assert.deepEqual(error.problem.spend, spend);
    return error.problem['violated-policies']?.[0] === 'spend';
  });
});

test('onQuota receives the limits of every response that has them', async () => {
  const quotas: Quota[][] = [];
  const fields = {
    'ratelimit-policy': '"burst";q=10;w=60, "generations";q=50;w=86400, "attempts";q=150;w=86400, "spend";q=5;w=86400',
    ratelimit: '"burst";r=9;t=6, "generations";r=49, "attempts";r=149;t=9, "spend";r=5',
  };
  const service = scripted(json({ id: 's-1' }, 201, fields), json({ models: [] }));
  const client = connect({ ...service, onQuota: (quota) => quotas.push(quota) });
  await client.create(request);
  await client.models();
  assert.deepEqual(quotas, [
    [
      { policy: 'burst', limit: 10, window_s: 60, remaining: 9, reset_s: 6 },
      { policy: 'generations', limit: 50, window_s: 86400, remaining: 49, reset_s: undefined },
      { policy: 'attempts', limit: 150, window_s: 86400, remaining: 149, reset_s: 9 },
      { policy: 'spend', limit: 5, window_s: 86400, remaining: 5, reset_s: undefined },
    ],
  ]);
});

test('a stream yields every event, and ends after done', async () => {
  const service = scripted(events(whole, 'silence'));
  assert.deepEqual(await all(connect(service).stream(request)), whole.map(asReceived));
  assert.equal(service.sent[0]?.headers.get('accept'), 'text/event-stream');
});

test('a cut stream is resumed after its last event', async () => {
  for (const then of ['break', 'end'] as const) {
    for (let seen = 1; seen < whole.length; seen += 1) {
      const service = scripted(events(whole.slice(0, seen), then), events(whole.slice(seen)));
      const received = await all(connect(service).stream(request));
      assert.deepEqual(received.filter((event) => 'lastEventId' in event), whole.map(asReceived));
      assert.deepEqual(received.slice(seen, seen + 2), [{ type: 'interrupted', offline: false }, { type: 'resumed' }]);
      const again = service.sent[1];
      assert.equal(`${again?.method} ${again?.path}`, 'GET /ai-sessions/s-1/events');
      assert.equal(again?.headers.get('last-event-id'), `r.${seen}`);
    }
  }
});

test('a stream cut before its session event is requested with the same key', async () => {
  const service = scripted(noAnswer(), events([], 'break'), events(whole));
  const received = await all(connect(service).stream(request));
  assert.deepEqual(received.filter((event) => 'lastEventId' in event), whole.map(asReceived));
  assert.deepEqual(service.sent.map(({ method }) => method), ['POST', 'POST', 'POST']);
  assert.equal(new Set(service.sent.map(({ headers }) => headers.get('idempotency-key'))).size, 1);
});

test('a stream fails after several resumptions without an event', async () => {
  const breaks = (n: number) => Array.from({ length: n }, noAnswer);
  const lost = scripted(events([session], 'break'), ...breaks(11));
  await assert.rejects(all(connect(lost).stream(request)), ConnectionError);
  const saved = scripted(events([session], 'break'), ...breaks(10), events(cards, 'break'), ...breaks(10), events([done]));
  assert.equal((await all(connect(saved).stream(request))).at(-1)?.type, 'done');
});

test('a silent connection is replaced', async () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    const service = scripted(events([session, ...cards], 'silence'), events([done]));
    const stream = connect(service).stream(request);
    for (let seen = 0; seen < 4; seen += 1) await stream.next();
    const next = stream.next();
    mock.timers.tick(45_000);
    assert.equal((await next).value.type, 'interrupted');
    assert.equal((await stream.next()).value.type, 'resumed');
    assert.equal((await stream.next()).value.type, 'done');
    assert.equal(service.sent[1]?.headers.get('last-event-id'), 'r.4');
  } finally {
    mock.timers.reset();
  }
});

test('an error event is a typed error, and is not retried', async () => {
  const service = scripted(events([session, ['r.2', 'error', document(500, 'ai_timeout', { retryable: true })]], 'silence'));
  await assert.rejects(all(connect(service).stream(request)), (error: ProblemError) => error.code === 'ai_timeout' && error.retryable);
  assert.equal(service.sent.length, 1);
});

test('a refused stream is a typed error, after Retry-After', async () => {
  await assert.rejects(all(connect(scripted(problem(422, 'idempotency_key_reused'))).stream(request)), withCode('idempotency_key_reused'));
  const service = scripted(problem(429, 'rate_limited', {}, { 'retry-after': '2' }), events(whole));
  assert.equal((await all(connect(service).stream(request, { wait_s: 2 }))).length, whole.length);
  assert.deepEqual(service.pauses_ms, [2000]);
});

test('an unknown event is skipped', async () => {
  const service = scripted(events([session, ['r.9', 'weather', { rain: true }], done]));
  assert.deepEqual((await all(connect(service).stream(request))).map(({ type }) => type), ['session', 'done']);
});

test('a stream is resumed after a reload from the saved place', async () => {
  const service = scripted(events([done]), events([done]), events(whole));
  const client = connect(service);
  await all(client.stream(request, { key: 'k', from: { id: 's-1', lastEventId: 'r.4' } }));
  await all(client.subscribe('s-1', { lastEventId: 'r.4' }));
  await all(client.subscribe('s-1'));
  assert.deepEqual(
    service.sent.map(({ method, path, headers }) => [method, path, headers.get('last-event-id')]),
    [
      ['GET', '/ai-sessions/s-1/events', 'r.4'],
      ['GET', '/ai-sessions/s-1/events', 'r.4'],
      ['GET', '/ai-sessions/s-1/events', null],
    ],
  );
});

test('an abort ends every operation at once', async () => {
  const ways: ((client: AiSessions, signal: AbortSignal) => Promise<unknown>)[] = [
    (client, signal) => client.create(request, { signal }),
    (client, signal) => client.read('s-1', signal),
    (client, signal) => client.ended('s-1', signal),
  ];
  for (const way of ways) {
    const abort = new AbortController();
    const service = scripted((signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))));
    const waiting = way(connect(service), abort.signal);
    abort.abort();
    await assert.rejects(waiting, { name: 'AbortError' });
  }
  const abort = new AbortController();
  const stream = connect(scripted(events([session], 'silence'))).stream(request, { signal: abort.signal });
  await stream.next();
  const next = stream.next();
  abort.abort();
  await assert.rejects(next, { name: 'AbortError' });
});

test('a running session is polled after Retry-After', async () => {
  const running = { id: 's-1', status: 'generating' };
  const service = scripted(
    json(running, 202, { location: '/ai-sessions/s-1' }),
    json(running, 200, { 'retry-after': '3' }),
    json(running),
    noAnswer(),
    json({ ...running, status: 'completed' }),
  );
  const client = connect(service);
  const { id } = await client.createAsync(request);
  assert.equal((await client.ended(id)).status, 'completed');
  assert.equal(service.sent[0]?.headers.get('prefer'), 'respond-async');
  assert.deepEqual(service.pauses_ms.slice(0, 2), [3000, 2000]);
});

test('sessions are listed in pages, and cancelled by id', async () => {
  const service = scripted(json({ sessions: [], next: null }), json({ sessions: [], next: 'c/1' }), new Response(null, { status: 204 }), problem(409, 'not_running'));
  const client = connect(service);
  await client.list();
  await client.list({ limit: 5, before: 'c/1' });
  await client.cancel('s-1');
  await assert.rejects(client.cancel('s-1'), withCode('not_running'));
  assert.deepEqual(
    service.sent.map(({ method, path }) => `${method} ${path}`),
    ['GET /ai-sessions', 'GET /ai-sessions?limit=5&before=c%2F1', 'DELETE /ai-sessions/s-1', 'DELETE /ai-sessions/s-1'],
  );
});
