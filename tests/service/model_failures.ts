// The model fails in every way that is known: what the caller is told, what is kept, what it costs.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  answer,
  bareArray,
  choiceError,
  content,
  contentFilter,
  cutAfter,
  cutAfterBytes,
  cutBeforeHeaders,
  cutByLength,
  errorEvent,
  errorIn200,
  fenced,
  htmlPage,
  httpError,
  inChunksOf,
  inProse,
  type ModelBehaviour,
  onlyComments,
  plainCompletion,
  raw,
  refusal,
  silence,
  slowDrip,
  unavailable,
  withoutDone,
} from '../support/model_behaviour.ts';
import {
  type Answer,
  create,
  expectProblem,
  read,
  remaining,
  rowsOf,
  type Service,
  signIn,
  type SignedIn,
  started,
  type StartService,
} from './service.ts';

export function tests(start: StartService): void {
  describe('as it is delivered', () => {
    const service = started(start);
    describe('a failure', () => failures(service));
    describe('another attempt', () => retries(service));
    describe('an answer that breaks off', () => brokenOff(service));
    describe('an answer in another form', () => otherForms(service));
  });
  describe('with 600 ms for silence and 1500 ms for the whole', () => silences(start));
}

type Failed = { user: SignedIn; answer: Answer };

/** One request whose every attempt meets this. */
async function meet(service: Service, behaviour: ModelBehaviour): Promise<Failed> {
  const { openrouter } = service.world;
  const user = await signIn(service);
  openrouter.reset();
  openrouter.always(behaviour);
  try {
    return { user, answer: await create(service, user.token) };
  } finally {
    openrouter.always(answer());
  }
}

/** The caller is told, the session has failed for the same reason, one event says so, and the unit is where it belongs. */
async function expectFailed(service: Service, { user, answer }: Failed, code: string, attempts: number): Promise<void> {
  const problem = expectProblem(answer, 500, code);
  assert.equal(problem.retryable, !['ai_refused', 'ai_misconfigured'].includes(code));
  assert.equal(answer.headers.get('cache-control'), 'no-store');
  assert.deepEqual(remaining(answer), { burst: 9, generations: code === 'ai_refused' ? 49 : 50 });
  const { sessions, candidates, events } = await rowsOf(service, user);
  assert.deepEqual(sessions.map(({ status, error_code, partial }) => ({ status, error_code, partial })), [
    { status: 'failed', error_code: code, partial: false },
  ]);
  assert.ok(sessions[0]?.['ended_at'] instanceof Date);
  assert.deepEqual(candidates, []);
  assert.deepEqual(
    events.map(({ type, session_id, data }) => ({ type, session_id, code: data.code, attempts: data.attempts })),
    [{ type: 'ai_session.failed', session_id: sessions[0]?.['id'], code, attempts }],
  );
  const found = await read(service, user.token, sessions[0]?.['id']);
  assert.deepEqual([found.body.status, found.body.error, found.body.candidates], ['failed', code, []]);
}

/** 201 with so many cards, all of them stored, after one call of the model. */
async function expectCards(service: Service, { user, answer }: Failed, partial: boolean, cards: number): Promise<void> {
  assert.equal(answer.status, 201, answer.text);
  assert.deepEqual([answer.body.partial, answer.body.candidates.length], [partial, cards]);
  const { sessions, candidates, events } = await rowsOf(service, user);
  assert.deepEqual(sessions.map(({ status, partial }) => ({ status, partial })), [{ status: 'completed', partial }]);
  assert.deepEqual(candidates.map(({ id }) => id), answer.body.candidates.map(({ id }: { id: string }) => id));
  assert.deepEqual(events.map(({ type }) => type), ['ai_session.completed']);
  assert.deepEqual(remaining(answer), { burst: 9, generations: 49 });
}

function failures(service: () => Service): void {
  it('to connect is tried three times, is ai_unavailable, and gives the unit back', async () => {
    const { openrouter } = service().world;
    const user = await signIn(service());
    openrouter.down();
    const answer = await create(service(), user.token);
    openrouter.up();
    await expectFailed(service(), { user, answer }, 'ai_unavailable', 3);
  });

  const once: [name: string, behaviour: ModelBehaviour, code: string][] = [
    ['HTTP 400', httpError(400), 'ai_misconfigured'],
    ['HTTP 401', httpError(401), 'ai_misconfigured'],
    ['HTTP 402', httpError(402), 'ai_misconfigured'],
    ['HTTP 403', httpError(403), 'ai_refused'],
    ['HTTP 404', httpError(404), 'ai_misconfigured'],
    ['HTTP 422', httpError(422), 'ai_misconfigured'],
    ['402 in HTTP 200', errorIn200(402), 'ai_misconfigured'],
    ['a word for 402 alone', errorIn200(500, { error_type: 'payment_required' }), 'ai_misconfigured'],
    ['no provider that honours the request', unavailable('constraint_filtered'), 'ai_misconfigured'],
    ['a refusal', refusal(), 'ai_refused'],
    ['the filter, before a card', contentFilter(0), 'ai_refused'],
    ['the filter, as an error', errorIn200(400, { error_type: 'content_policy_violation' }), 'ai_refused'],
  ];
  for (const [name, behaviour, code] of once) {
    it(`by ${name} is ${code}, at the first attempt`, async () => {
      const failed = await meet(service(), behaviour);
      assert.equal(service().world.openrouter.requests.total, 1);
      await expectFailed(service(), failed, code, 1);
    });
  }

  const thrice: [name: string, behaviour: ModelBehaviour, code: string][] = [
    ['HTTP 429', httpError(429), 'ai_unavailable'],
    ['HTTP 500', httpError(500), 'ai_unavailable'],
    ['HTTP 503', httpError(503), 'ai_unavailable'],
    ['HTTP 408', httpError(408), 'ai_timeout'],
    ['HTTP 504', httpError(504), 'ai_timeout'],
    ['a page of a proxy', htmlPage(502), 'ai_unavailable'],
    ['502 in HTTP 200', errorIn200(502), 'ai_unavailable'],
    ['no provider for now', unavailable('provider_overloaded'), 'ai_unavailable'],
    ['a choice with an error', choiceError(502), 'ai_unavailable'],
    ['an error event before the first card', errorEvent(), 'ai_unavailable'],
    ['a cut before the headers', cutBeforeHeaders, 'ai_unavailable'],
    ['a cut before the first card', cutAfter(0, 10), 'ai_unavailable'],
    ['a cut in the first line', cutAfterBytes(20), 'ai_unavailable'],
    ['an end without a word', withoutDone({ finish_reason: null, whole_cards: 0 }), 'ai_unavailable'],
    ['the token limit before the first card', cutByLength(0), 'ai_invalid_response'],
    ['prose without a card', content('I have no cards today.'), 'ai_invalid_response'],
    ['an empty list', content('{"candidates":[]}'), 'ai_invalid_response'],
    ['cards that are all bad', content('{"candidates":[{"front":"","back":"b","prompt":"p"},7]}'), 'ai_invalid_response'],
    ['bytes that are no stream', raw('data: {"choices":\n\ndata: [DONE]\n\n'), 'ai_invalid_response'],
  ];
  for (const [name, behaviour, code] of thrice) {
    it(`by ${name} is ${code}, after three attempts`, async () => {
      const failed = await meet(service(), behaviour);
      assert.equal(service().world.openrouter.requests.total, 3);
      await expectFailed(service(), failed, code, 3);
    });
  }

  it('tells nothing of what the model API said', async () => {
    const message = 'secret words of the provider about org-4711';
    for (const behaviour of [httpError(401, { message }), errorIn200(402, { message }), refusal(message)]) {
      const { user, answer } = await meet(service(), behaviour);
      assert.equal(answer.status, 500);
      const stored = JSON.stringify(await rowsOf(service(), user));
      for (const text of [answer.text, stored, ...service().logs]) assert.ok(!text.includes('org-4711'), text);
    }
  });
}

function retries(service: () => Service): void {
  it('succeeds after two that failed, and the event tells how many were made', async () => {
    const { openrouter } = service().world;
    const user = await signIn(service());
    openrouter.reset();
    openrouter.next(httpError(503));
    openrouter.next(cutAfter(0, 10));
    const answer = await create(service(), user.token);
    await expectCards(service(), { user, answer }, false, 20);
    assert.equal(openrouter.requests.total, 3);
    assert.equal((await rowsOf(service(), user)).events[0]?.['data'].attempts, 3);
    const ids = openrouter.requests.recent.map(({ headers }) => headers['x-session-id']);
    assert.deepEqual(ids, Array(3).fill(answer.body.id));
  });

  it('is not made when the model API wants more time than there is, and the caller is told how much', async () => {
    const failed = await meet(service(), httpError(429, { retry_after_s: 120 }));
    assert.equal(service().world.openrouter.requests.total, 1);
    assert.equal(failed.answer.headers.get('retry-after'), '120');
    await expectFailed(service(), failed, 'ai_unavailable', 1);
  });

  it('waits as long as the model API wants', async () => {
    const { openrouter } = service().world;
    const user = await signIn(service());
    openrouter.reset();
    openrouter.next(httpError(503, { retry_after_s: 1 }));
    const began_ms = performance.now();
    const answer = await create(service(), user.token);
    // A few milliseconds are the clocks' own.
    assert.ok(performance.now() - began_ms > 990, 'the second call is a second later');
    await expectCards(service(), { user, answer }, false, 20);
    assert.equal(openrouter.requests.total, 2);
  });
}

function brokenOff(service: () => Service): void {
  const partial: [name: string, behaviour: ModelBehaviour][] = [
    ['the token limit', cutByLength(3)],
    ['the token limit under the name of a good end', cutByLength(3, 'stop')],
    ['the filter', contentFilter(3)],
    ['an error event', errorEvent({ after_cards: 3, plus_chars: 10 })],
    ['an error event without choices', errorEvent({ after_cards: 3, choices: 'empty', code: 'server_error' })],
    ['a cut in a card', cutAfter(3, 10)],
    ['a cut between two cards', cutAfter(3)],
    ['an end without a word', withoutDone({ finish_reason: null, whole_cards: 3 })],
  ];
  for (const [name, behaviour] of partial) {
    it(`by ${name} keeps the cards that are whole, says so, and is not asked again`, async () => {
      const met = await meet(service(), behaviour);
      await expectCards(service(), met, true, 3);
      assert.equal(service().world.openrouter.requests.total, 1);
    });
  }

  const whole: [name: string, behaviour: ModelBehaviour][] = [
    ['without [DONE]', withoutDone()],
    ['without [DONE] and without a reason', withoutDone({ finish_reason: null })],
    ['by a cut', answer({ instead_of_end: 'cut' })],
    ['as if it had been too long', answer({ finish_reason: 'length' })],
  ];
  for (const [name, behaviour] of whole) {
    it(`${name} after its JSON was closed is whole`, async () => {
      await expectCards(service(), await meet(service(), behaviour), false, 20);
    });
  }
}

function otherForms(service: () => Service): void {
  const forms: [name: string, behaviour: ModelBehaviour][] = [
    ['one piece of JSON instead of a stream', plainCompletion()],
    ['code fences', fenced],
    ['prose around it', inProse],
    ['a list without its object', bareArray],
    ['pieces of one byte', inChunksOf(1)],
    ['lines that end with CR LF, in pieces of seven bytes', inChunksOf(7, { line_end: '\r\n' })],
  ];
  for (const [name, behaviour] of forms) {
    it(`(${name}) is read`, async () => {
      await expectCards(service(), await meet(service(), behaviour), false, 20);
    });
  }

  it('(one piece of JSON that breaks off) keeps its cards', async () => {
    await expectCards(service(), await meet(service(), plainCompletion({ whole_cards: 4, plus_chars: 12, finish_reason: 'length' })), true, 4);
  });
}

function silences(start: StartService): void {
  const service = started(start, { AI_IDLE_TIMEOUT_MS: '600', AI_TIMEOUT_MS: '1500', AI_MAX_ATTEMPTS: '1' });

  for (const [name, behaviour] of [
    ['silence before the headers', silence({ headers: false })],
    ['silence after the headers', silence({ headers: true })],
    ['silence before the first card', answer({ whole_cards: 0, plus_chars: 10, instead_of_end: 'silence' })],
  ] as const) {
    it(`${name} is ai_timeout, long before the end of the whole, and the connection is closed`, async () => {
      const began_ms = performance.now();
      const failed = await meet(service(), behaviour);
      const took_ms = performance.now() - began_ms;
      assert.ok(took_ms >= 590 && took_ms < 1500, `${took_ms} ms`);
      await service().world.openrouter.aborted(1);
      await expectFailed(service(), failed, 'ai_timeout', 1);
    });
  }

  it('comments are signs of life, until the end of the whole', async () => {
    const began_ms = performance.now();
    const failed = await meet(service(), onlyComments());
    assert.ok(performance.now() - began_ms >= 1490);
    await service().world.openrouter.aborted(1);
    await expectFailed(service(), failed, 'ai_timeout', 1);
  });

  it('silence after cards keeps them', async () => {
    const met = await meet(service(), answer({ whole_cards: 3, plus_chars: 10, instead_of_end: 'silence' }));
    await service().world.openrouter.aborted(1);
    await expectCards(service(), met, true, 3);
  });

  it('the end of the whole keeps the cards that are there', async () => {
    const met = await meet(service(), answer({ whole_cards: 3, plus_chars: 10, instead_of_end: 'comments' }));
    await service().world.openrouter.aborted(1);
    await expectCards(service(), met, true, 3);
  });

  it('an answer that is slow and not silent is whole', async () => {
    await expectCards(service(), await meet(service(), slowDrip(40, 200)), false, 20);
  });
}
