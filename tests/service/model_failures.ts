// All listed failures of the model: the response, the kept candidates, the charge. Each case has its own user and mark, so that
// the cases run concurrently. Odd answers with candidates are in model_answers.ts, slow ones in model_deadlines.ts.

import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import {
  answer,
  choiceError,
  content,
  contentFilter,
  cutAfter,
  cutAfterBytes,
  cutBeforeHeaders,
  cutByLength,
  errorEvent,
  errorIn200,
  htmlPage,
  httpError,
  type ModelBehaviour,
  plainCompletion,
  raw,
  refusal,
  unavailable,
  withoutDone,
} from '../support/model_behaviour.ts';
import { type MarkedScript, scriptByMark } from '../support/model_by_mark.ts';
import { within } from '../support/within.ts';
import {
  type Answer,
  candidateOf,
  create,
  eventually,
  expectProblem,
  lesson,
  read,
  remaining,
  type Row,
  rowsOf,
  type Service,
  type SignedIn,
  signIn,
  started,
  type StartService,
  type Variables,
} from './service.ts';

export function tests(start: StartService): void {
  describe('with the default variables', () => {
    const meet = meeting(start);
    describe('a final failure', { concurrency: AT_ONCE }, () => finalFailures(meet));
    describe('a transient failure', { concurrency: AT_ONCE }, () => passingFailures(meet));
    describe('another attempt', { concurrency: AT_ONCE }, () => retries(meet));
  });
  // workerd notices that a kept connection was cut only when it uses it again. After that many concurrent requests there
  // would be more such connections than attempts.
  describe('the model API', () => asAWhole(meeting(start)));
}

/** Most cases wait for a backoff or a timeout; two cores suffice for that many. */
export const AT_ONCE = 16;

/** The outcome of one request. */
export type Met = { service: Service; user: SignedIn; answer: Answer; script: MarkedScript };

/** Sends a request whose attempts meet these behaviours; the last one is repeated. */
export type Meet = {
  (...behaviours: ModelBehaviour[]): Promise<Met>;
  readonly service: () => Service;
};

/** Starts a service for the suite around this call. Returns the function that sends requests with behaviours. */
export function meeting(start: StartService, variables: Variables = {}): Meet {
  const service = started(start, variables);
  let scripted: ReturnType<typeof scriptByMark>;
  before(() => {
    scripted = scriptByMark(service().world.openrouter);
  });
  const meet = async (...behaviours: ModelBehaviour[]): Promise<Met> => {
    const script = scripted(behaviours);
    const user = await signIn(service());
    const answer = await create(service(), user.token, { input_text: `${script.mark} ${lesson()}`, model: 'test/first' });
    return { service: service(), user, answer, script };
  };
  return Object.assign(meet, { service });
}

/** Expects the failure in the response, the session, one event and one log line, and the right charge. */
export async function expectFailed({ service, user, answer, script }: Met, code: string, attempts: number): Promise<Row> {
  const problem = expectProblem(answer, 500, code);
  assert.equal(problem.retryable, !['ai_refused', 'ai_misconfigured'].includes(code));
  assert.equal(answer.headers.get('cache-control'), 'no-store');
  assert.deepEqual(remaining(answer), { burst: 9, generations: code === 'ai_refused' ? 49 : 50 });
  assert.equal(script.requests.length, attempts, 'attempts made');

  const { sessions, candidates, events } = await rowsOf(service, user);
  const [session] = sessions;
  assert.deepEqual(sessions.map(({ status, error_code, partial }) => ({ status, error_code, partial })), [
    { status: 'failed', error_code: code, partial: false },
  ]);
  assert.ok(session?.['ended_at'] instanceof Date);
  assert.deepEqual(candidates, []);
  assert.deepEqual(
    events.map(({ type, session_id, data }) => ({ type, session_id, code: data.code, attempts: data.attempts, candidates: data.candidates })),
    [{ type: 'ai_session.failed', session_id: session['id'], code, attempts, candidates: 0 }],
  );
  const found = await read(service, user.token, session['id']);
  assert.deepEqual([found.body.status, found.body.error, found.body.candidates], ['failed', code, []]);
  const { level } = await endingLine(service, session['id']);
  assert.equal(level, code === 'ai_misconfigured' ? 'error' : 'warn', 'an operator must act on errors');
  return session;
}

/** The log line of a generation. */
async function endingLine({ logs }: Service, id: string): Promise<Row> {
  const lines = () => logs.filter((line) => line.includes(id) && line.startsWith('{')).map((line) => JSON.parse(line) as Row);
  return eventually('the log line of the generation', () => lines().find(({ message }) => message === 'generation'));
}

/** Expects 201 with these candidates (or that many), stored once, and one charged generation. */
export async function expectCandidates(met: Met, expected: { partial: boolean; candidates: number | object[]; attempts?: number; dropped?: number }): Promise<Row> {
  const { service, user, answer, script } = met;
  const { partial, candidates: wanted, attempts = 1, dropped } = expected;
  assert.equal(answer.status, 201, answer.text);
  assert.equal(answer.body.partial, partial);
  const given = answer.body.candidates.map(({ front, back, prompt }: Row) => ({ front, back, prompt }));
  if (typeof wanted === 'number') assert.equal(given.length, wanted);
  else assert.deepEqual(given, wanted);
  assert.equal(script.requests.length, attempts, 'attempts made');
  assert.deepEqual(remaining(answer), { burst: 9, generations: 49 });

  const { sessions, candidates, events } = await rowsOf(service, user);
  assert.deepEqual(sessions.map(({ id, status, error_code, partial }) => ({ id, status, error_code, partial })), [
    { id: answer.body.id, status: 'completed', error_code: null, partial },
  ]);
  assert.deepEqual(candidates.map(candidateOf), answer.body.candidates);
  assert.deepEqual(events.map(({ type, session_id }) => ({ type, session_id })), [{ type: 'ai_session.completed', session_id: answer.body.id }]);
  assert.deepEqual([events[0]?.['data'].attempts, events[0]?.['data'].candidates], [attempts, given.length]);
  if (dropped !== undefined) assert.equal(events[0]?.['data'].dropped, dropped);
  return { ...sessions[0], event: events[0]?.['data'] };
}

/** Expects that the service closed the connection of that attempt: tokens that are not sent are not billed. */
export async function expectConnectionClosed({ script }: Met, attempt = 1): Promise<void> {
  const request = script.requests[attempt - 1];
  assert.ok(request, `there was an attempt ${attempt}`);
  assert.equal(await within(request.over, 'the connection is closed'), 'client left');
}

/** The same error in each place that can contain one. */
function inEachPlace(code: number | string, error_type: string | null): [place: string, behaviour: ModelBehaviour][] {
  return [
    ['in HTTP 200', errorIn200(code, { error_type })],
    ['in an event', errorEvent({ code, error_type })],
    ['in an event without choices', errorEvent({ code, error_type, choices: 'empty', done: true })],
  ];
}

type Case = [name: string, behaviour: ModelBehaviour, code: string];

const FINAL_STATUSES: [status: number, code: string][] = [
  ...[400, 401, 402, 404, 405, 409, 413, 422, 451].map((status): [number, string] => [status, 'ai_misconfigured']),
  [403, 'ai_refused'],
];
const PASSING_STATUSES: [status: number, code: string][] = [
  ...[429, 500, 502, 503, 520, 529].map((status): [number, string] => [status, 'ai_unavailable']),
  [408, 'ai_timeout'],
  [504, 'ai_timeout'],
];
const FINAL_WORDS: [word: string, code: string][] = [
  ...['payment_required', 'authentication', 'context_length_exceeded', 'max_tokens_exceeded', 'invalid_request', 'not_found'].map(
    (word): [string, string] => [word, 'ai_misconfigured'],
  ),
  ...['permission_denied', 'content_policy_violation', 'refusal'].map((word): [string, string] => [word, 'ai_refused']),
];
const PASSING_WORDS: [word: string, code: string][] = [
  ...['rate_limit_exceeded', 'provider_overloaded', 'provider_unavailable', 'server', 'unmapped'].map(
    (word): [string, string] => [word, 'ai_unavailable'],
  ),
  ['timeout', 'ai_timeout'],
];

function finalFailures(meet: Meet): void {
  const cases: Case[] = [
    ...FINAL_STATUSES.flatMap(([status, code]): Case[] => [
      [`HTTP ${status}`, httpError(status), code],
      [`HTTP ${status} of another server than OpenRouter`, htmlPage(status), code],
      [`${status} in HTTP 200`, errorIn200(status, { error_type: null }), code],
    ]),
    ...inEachPlace(402, null).map(([place, behaviour]): Case => [`402 ${place}`, behaviour, 'ai_misconfigured']),
    ...inEachPlace('401', null).map(([place, behaviour]): Case => [`"401" ${place}`, behaviour, 'ai_misconfigured']),
    // The word decides: the number alone would be transient.
    ...FINAL_WORDS.map(([word, code]): Case => [`"${word}" with a 502 in HTTP 200`, errorIn200(502, { error_type: word }), code]),
    ...FINAL_WORDS.map(([word, code]): Case => [`"${word}" as the code of an event`, errorEvent({ code: word, error_type: null }), code]),
    ['HTTP 402 with a Retry-After', httpError(402, { retry_after_s: 1 }), 'ai_misconfigured'],
    ['HTTP 400 with a transient word', httpError(400, { error_type: 'rate_limit_exceeded' }), 'ai_unavailable'],
    ['a choice with 403', choiceError(403), 'ai_refused'],
    ['no provider that honours the request', unavailable('constraint_filtered'), 'ai_misconfigured'],
    ['no provider, marked as not retryable', unavailable('provider_unavailable', { retryable: false }), 'ai_unavailable'],
    ['a refusal', refusal(), 'ai_refused'],
    ['a refusal in a plain completion', plainRefusal, 'ai_refused'],
    ['the filter, before a candidate', contentFilter(0), 'ai_refused'],
    ['the filter, in a plain completion', plainCompletion({ content: '', finish_reason: 'content_filter' }), 'ai_refused'],
  ];
  for (const [name, behaviour, code] of cases) {
    it(`${name} is ${code} after one attempt`, async () => {
      await expectFailed(await meet(behaviour), code, 1);
    });
  }

  for (const status of [301, 302, 307, 308]) {
    it(`HTTP ${status} is ai_misconfigured, and the redirect is not followed`, async () => {
      const elsewhere = `/elsewhere-${status}`;
      const { gateway } = meet.service().world;
      const location = gateway.url + elsewhere;
      await expectFailed(await meet((turn) => turn.reply(status, '', { location })), 'ai_misconfigured', 1);
      assert.deepEqual(gateway.requests.where(({ path }) => path.startsWith(elsewhere)), []);
    });
  }

  it('no text of the model API is in the response, the rows or the log', async () => {
    const message = 'secret words of the provider about org-4711';
    for (const behaviour of [httpError(401, { message }), errorIn200(402, { message }), refusal(message)]) {
      const { service, user, answer } = await meet(behaviour);
      assert.equal(answer.status, 500);
      const stored = JSON.stringify(await rowsOf(service, user));
      for (const text of [answer.text, stored, ...service.logs]) assert.ok(!text.includes('org-4711'), text);
    }
  });

  it('a refusal stores its usage', async () => {
    const session = await expectFailed(await meet(refusal()), 'ai_refused', 1);
    assert.deepEqual([session['prompt_tokens'] > 0, session['completion_tokens'], Number(session['cost']) > 0], [true, 400, true]);
  });
}

const plainRefusal: ModelBehaviour = (turn) => {
  const message = { role: 'assistant', content: null, refusal: 'I cannot help with that.' };
  turn.reply(200, { model: turn.model, choices: [{ index: 0, message, finish_reason: 'stop' }] });
};

function passingFailures(meet: Meet): void {
  const cases: Case[] = [
    ...PASSING_STATUSES.flatMap(([status, code]): Case[] => [
      [`HTTP ${status}`, httpError(status), code],
      [`HTTP ${status} of a proxy`, htmlPage(status), code],
      [`${status} in HTTP 200`, errorIn200(status, { error_type: null }), code],
    ]),
    ...inEachPlace('503', null).map(([place, behaviour]): Case => [`"503" ${place}`, behaviour, 'ai_unavailable']),
    ...inEachPlace('a_word_that_is_new', null).map(([place, behaviour]): Case => [`an unknown word ${place}`, behaviour, 'ai_unavailable']),
    ...PASSING_WORDS.map(([word, code]): Case => [`"${word}" as the code of an event`, errorEvent({ code: word, error_type: null }), code]),
    ['"timeout" with a 500', errorIn200(500, { error_type: 'timeout' }), 'ai_timeout'],
    ['no provider for now', unavailable('provider_overloaded'), 'ai_unavailable'],
    ['a choice with an error', choiceError(502), 'ai_unavailable'],
    ['a choice that broke off in a candidate', choiceError(504, '{"candidates":[{"front":"a","ba'), 'ai_timeout'],
    ['the reason "error" without an error', plainCompletion({ content: '', finish_reason: 'error' }), 'ai_unavailable'],
    ['an error event in the first candidate', errorEvent({ plus_chars: 10 }), 'ai_unavailable'],
    ['a cut before the headers', cutBeforeHeaders, 'ai_unavailable'],
    ['a cut after the headers', raw('', { then: 'cut' }), 'ai_unavailable'],
    ['a cut in a comment', cutAfterBytes(9), 'ai_unavailable'],
    ['a cut in the first line', cutAfterBytes(40), 'ai_unavailable'],
    ['a cut in the first candidate', cutAfter(0, 10), 'ai_unavailable'],
    ['a cut in a plain completion', raw('{"choices":[{"message":{"cont', { content_type: 'application/json', then: 'cut' }), 'ai_unavailable'],
    ['a cut error', raw('{"error":{"code":5', { status: 503, content_type: 'application/json', then: 'cut' }), 'ai_unavailable'],
    ['an end without a reason', withoutDone({ finish_reason: null, whole_candidates: 0 }), 'ai_unavailable'],
    ['an end after the headers', raw(''), 'ai_unavailable'],
    ['an end after comments', raw(': OPENROUTER PROCESSING\n\n'.repeat(3)), 'ai_unavailable'],
    ['[DONE] alone', raw('data: [DONE]\n\n'), 'ai_invalid_response'],
    ['the token limit before the first candidate', cutByLength(0), 'ai_invalid_response'],
    ['a tool call', answer({ content: '', finish_reason: 'tool_calls' }), 'ai_invalid_response'],
    ['prose without a candidate', content('I have no cards today.'), 'ai_invalid_response'],
    ['no content', content(''), 'ai_invalid_response'],
    ['an empty list', content('{"candidates":[]}'), 'ai_invalid_response'],
    ['another object', content('{"error":"no"}'), 'ai_invalid_response'],
    ['a string', content('"front, back, prompt"'), 'ai_invalid_response'],
    ['invalid candidates alone', content('{"candidates":[{"front":"","back":"b","prompt":"p"},7]}'), 'ai_invalid_response'],
    ['a page of HTML', htmlPage(200), 'ai_invalid_response'],
    ['HTML in the stream', raw('<!doctype html><title>x</title>'), 'ai_unavailable'],
    ['an empty document', raw('', { content_type: 'application/json' }), 'ai_invalid_response'],
    ['HTTP 204', (turn) => turn.reply(204, ''), 'ai_invalid_response'],
    ['a chunk that is no JSON', raw('data: {"choices":\n\ndata: [DONE]\n\n'), 'ai_invalid_response'],
  ];
  for (const [name, behaviour, code] of cases) {
    it(`${name} is ${code} after three attempts`, async () => {
      await expectFailed(await meet(behaviour), code, 3);
    });
  }
}

function retries(meet: Meet): void {
  it('a third attempt succeeds, and the event counts three', async () => {
    const met = await meet(httpError(503), cutAfter(0, 10), answer());
    await expectCandidates(met, { partial: false, candidates: 20, attempts: 3 });
    const ids = met.script.requests.map(({ headers }) => headers['x-session-id']);
    assert.deepEqual(ids, Array(3).fill(met.answer.body.id));
    assert.equal(new Set(met.script.requests.map(({ raw }) => raw)).size, 1, 'the same bytes each time');
  });

  it('a final failure ends the attempts after a transient one', async () => {
    await expectFailed(await meet(httpError(503), httpError(402)), 'ai_misconfigured', 2);
    await expectFailed(await meet(content('no cards'), httpError(503), refusal()), 'ai_refused', 3);
  });

  it('the reported failure is that of the last attempt', async () => {
    await expectFailed(await meet(httpError(503), httpError(504), content('no cards')), 'ai_invalid_response', 3);
  });

  it('the usage of all attempts is added up', async () => {
    const { completion_tokens, event } = await expectCandidates(await meet(content('no cards'), answer()), { partial: false, candidates: 20, attempts: 2 });
    assert.deepEqual([completion_tokens, event.usage.completion_tokens], [800, 800]);
  });

  it('a Retry-After beyond the deadline is forwarded without a retry', async () => {
    for (const status of [429, 503]) {
      const failed = await meet(httpError(status, { retry_after_s: 120 }));
      assert.equal(failed.answer.headers.get('retry-after'), '120');
      await expectFailed(failed, 'ai_unavailable', 1);
    }
  });

  it('a 429 of the model API has a Retry-After in the response', async () => {
    const failed = await meet(httpError(429));
    await expectFailed(failed, 'ai_unavailable', 3);
    assert.equal(failed.answer.headers.get('retry-after'), '10');
  });

  for (const [name, behaviour] of [
    ['in the header of a 503', httpError(503, { retry_after_s: 1 })],
    ['in the header of a 429', httpError(429, { retry_after_s: 1 })],
    ['in the body', unavailable('provider_overloaded', { retry_after_s: 1 })],
  ] as const) {
    it(`a retry waits for the model API’s Retry-After (${name})`, async () => {
      const began_ms = performance.now();
      await expectCandidates(await meet(behaviour, answer()), { partial: false, candidates: 20, attempts: 2 });
      // The clocks may differ by a few milliseconds.
      assert.ok(performance.now() - began_ms > 990, 'the second call is a second later');
    });
  }
}

function asAWhole(meet: Meet): void {
  it('an unreachable model API is ai_unavailable after three attempts', async () => {
    const { openrouter } = meet.service().world;
    assert.equal((await meet(answer())).answer.status, 201);
    openrouter.down();
    const failed = await meet(answer());
    openrouter.up();
    const problem = expectProblem(failed.answer, 500, 'ai_unavailable');
    assert.equal(problem.retryable, true);
    assert.deepEqual(remaining(failed.answer), { burst: 9, generations: 50 });
    const { sessions, events } = await rowsOf(failed.service, failed.user);
    assert.deepEqual(sessions.map(({ status, error_code }) => [status, error_code]), [['failed', 'ai_unavailable']]);
    assert.deepEqual(events.map(({ data }) => data.attempts), [3]);
    const { answer: next } = await meet(answer());
    assert.deepEqual([next.status, next.body.candidates?.length], [201, 20], next.text);
  });
}
