// The three limits of POST /ai-sessions: counting, the response of a refusal, and refunds.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createGate } from '../support/gate.ts';
import { content, gated, httpError, refusal } from '../support/model_behaviour.ts';
import { within } from '../support/within.ts';
import {
  type Answer,
  create,
  eventually,
  expectProblem,
  remaining,
  rowsOf,
  type Row,
  type Service,
  signIn,
  type SignedIn,
  started,
  type StartService,
} from './service.ts';

const QUOTA_EXCEEDED = 'https://iana.org/assignments/http-problem-types#quota-exceeded';
const POLICY = '"burst";q=5;w=60, "generations";q=3;w=3600, "attempts";q=150;w=86400';

export function tests(start: StartService): void {
  describe('burst, generations and concurrent', () => {
    const variables = { RATE_LIMIT_BURST: '5/60', RATE_LIMIT_GENERATIONS: '3/3600', RATE_LIMIT_CONCURRENT: '2' };
    const service = started(start, variables);
    describe('burst', () => burst(service));
    describe('generations', () => generations(service));
    describe('concurrent', () => concurrent(service));
    describe('the event log', () => eventLog(service));
    it('all limits survive a restart', () => surviveRestart(service()));
    it('a limit is logged once in a window, also after a restart', () => loggedOnce(service()));
  });
  describe('fifty requests at once', () => allAtOnce(start));
  describe('a window of a second', () => shortWindow(start));
}

/** Expects a complete 429. Returns Retry-After in seconds. */
function expectLimited(answer: Answer, ...policies: string[]): number {
  const problem = expectProblem(answer, 429, 'rate_limited');
  assert.equal(problem.type, QUOTA_EXCEEDED);
  assert.deepEqual(problem['violated-policies'], policies);
  assert.equal(answer.headers.get('ratelimit-policy'), POLICY);
  const retryAfter = answer.headers.get('retry-after') ?? '';
  assert.match(retryAfter, /^[1-9]\d*$/);
  return Number(retryAfter);
}

/** Seconds until the policy resets, from RateLimit. */
function resetIn_s(answer: Answer, policy: string): number {
  const field = answer.headers.get('ratelimit') ?? '';
  return Number(field.match(new RegExp(`"${policy}";r=\\d+;t=(\\d+)`))?.[1]);
}

/** Sends a request that counts and starts no generation. */
const badBody = (service: Service, { token }: SignedIn) => create(service, token, '{');

function burst(service: () => Service): void {
  it('burst admits its quota and not one more, with a Retry-After', async () => {
    const user = await signIn(service());
    for (let left = 4; left >= 0; left -= 1) {
      const counted = await badBody(service(), user);
      assert.equal(counted.status, 400);
      assert.deepEqual(remaining(counted), { burst: left, generations: 3 });
    }
    const limited = await badBody(service(), user);
    const retryAfter_s = expectLimited(limited, 'burst');
    // Counting may be stricter by a hundredth of the window, and a second is rounded up.
    assert.ok(retryAfter_s >= 50 && retryAfter_s <= 62, `Retry-After: ${retryAfter_s}`);
    assert.deepEqual(remaining(limited), { burst: 0, generations: 3 });
    assert.equal(resetIn_s(limited, 'burst'), retryAfter_s);
  });

  it('a valid request beyond the burst is refused before it costs anything', async () => {
    const { openrouter } = service().world;
    const user = await signIn(service());
    for (let n = 0; n < 5; n += 1) await badBody(service(), user);
    openrouter.requests.clear();
    const limited = await create(service(), user.token);
    expectLimited(limited, 'burst');
    assert.deepEqual(remaining(limited), { burst: 0, generations: 3 });
    assert.equal(openrouter.requests.total, 0);
    assert.deepEqual((await rowsOf(service(), user)).sessions, []);
  });

  it('burst admits no more than its quota of concurrent requests', async () => {
    const user = await signIn(service());
    const answers = await Promise.all(Array.from({ length: 12 }, () => badBody(service(), user)));
    const statuses = answers.map(({ status }) => status).sort();
    assert.deepEqual(statuses, [...Array(5).fill(400), ...Array(7).fill(429)]);
  });

  it('the burst of one user does not affect another', async () => {
    const [first, second] = [await signIn(service()), await signIn(service())];
    for (let n = 0; n < 6; n += 1) await badBody(service(), first);
    assert.deepEqual(remaining(await badBody(service(), second)), { burst: 4, generations: 3 });
  });

  it('all tokens of a user share one burst', async () => {
    const user = await signIn(service());
    await badBody(service(), user);
    const token = service().world.auth.token(user, { alg: 'RS256' });
    assert.deepEqual(remaining(await create(service(), token, '{')), { burst: 3, generations: 3 });
  });
}

function generations(service: () => Service): void {
  it('generations admits its quota; a refusal makes no model call', async () => {
    const { openrouter } = service().world;
    const user = await signIn(service());
    for (let left = 2; left >= 0; left -= 1) {
      const created = await create(service(), user.token);
      assert.equal(created.status, 201, created.text);
      assert.equal(created.headers.get('ratelimit-policy'), POLICY);
      assert.equal(remaining(created)['generations'], left);
    }
    openrouter.requests.clear();
    const limited = await create(service(), user.token);
    const retryAfter_s = expectLimited(limited, 'generations');
    assert.ok(retryAfter_s > 3500 && retryAfter_s <= 3637, `Retry-After: ${retryAfter_s}`);
    assert.equal(resetIn_s(limited, 'generations'), retryAfter_s);
    assert.deepEqual(remaining(limited), { burst: 1, generations: 0 });
    assert.equal(openrouter.requests.total, 0);
    assert.equal((await rowsOf(service(), user)).sessions.length, 3);
  });

  it('a refusal names both exhausted policies and the longer wait', async () => {
    const user = await signIn(service());
    for (let n = 0; n < 3; n += 1) assert.equal((await create(service(), user.token)).status, 201);
    for (let n = 0; n < 2; n += 1) await badBody(service(), user);
    const retryAfter_s = expectLimited(await create(service(), user.token), 'burst', 'generations');
    assert.ok(retryAfter_s > 3500, `Retry-After: ${retryAfter_s}`);
  });

  for (const [name, behaviour, code] of [
    ['that the model API refused', httpError(402), 'ai_misconfigured'],
    ['without a candidate', content('I have no cards today.'), 'ai_invalid_response'],
  ] as const) {
    it(`a generation ${name} is refunded, and RateLimit shows it`, async () => {
      const user = await signIn(service());
      for (let burst = 4; burst >= 1; burst -= 1) {
        service().world.openrouter.next(behaviour, 3);
        const failed = await create(service(), user.token);
        service().world.openrouter.reset();
        expectProblem(failed, 500, code);
        assert.equal(failed.headers.get('ratelimit-policy'), POLICY);
        assert.deepEqual(remaining(failed), { burst, generations: 3 });
      }
      const created = await create(service(), user.token);
      assert.equal(created.status, 201, created.text);
      assert.equal(remaining(created)['generations'], 2);
    });
  }

  it('a refused text stays charged', async () => {
    const user = await signIn(service());
    for (const left of [2, 1]) {
      service().world.openrouter.next(refusal());
      const refused = await create(service(), user.token);
      assert.equal(expectProblem(refused, 500, 'ai_refused').retryable, false);
      assert.equal(remaining(refused)['generations'], left);
    }
  });
}

function concurrent(service: () => Service): void {
  it('a third concurrent generation is refused until one has ended', async () => {
    const { openrouter } = service().world;
    const gates = [createGate(), createGate()] as const;
    const user = await signIn(service());
    const other = await signIn(service());
    openrouter.reset();
    const running: Promise<Answer>[] = [];
    try {
      for (const [index, gate] of gates.entries()) {
        openrouter.next(gated(gate));
        running.push(create(service(), user.token));
        await openrouter.arrived(index + 1);
      }
      const limited = await create(service(), user.token);
      const retryAfter_s = expectLimited(limited, 'concurrent');
      assert.ok(retryAfter_s <= 10, `Retry-After: ${retryAfter_s}`);
      assert.deepEqual(remaining(limited), { burst: 2, generations: 1 });
      assert.equal(openrouter.requests.total, 2);
      assert.equal((await create(service(), other.token)).status, 201);
      gates[0].open();
      assert.equal((await running[0])?.status, 201);
      const later = await create(service(), user.token);
      assert.equal(later.status, 201, later.text);
    } finally {
      for (const gate of gates) gate.open();
    }
    assert.equal((await running[1])?.status, 201);
  });

  it('two of the requests that arrive together are admitted', async () => {
    const { openrouter } = service().world;
    const gate = createGate();
    const user = await signIn(service());
    openrouter.reset();
    openrouter.always(gated(gate));
    const refused = Promise.withResolvers<void>();
    const pending = Array.from({ length: 4 }, async () => {
      const answer = await create(service(), user.token);
      if (answer.status !== 201) refused.resolve();
      return answer;
    });
    try {
      await openrouter.arrived(2);
      await within(refused.promise, 'one of them is refused');
    } finally {
      gate.open();
    }
    const statuses = (await Promise.all(pending)).map(({ status }) => status).sort();
    openrouter.reset();
    assert.deepEqual(statuses, [201, 201, 429, 429]);
  });

  it('a failed generation no longer counts as concurrent', async () => {
    const { openrouter } = service().world;
    const user = await signIn(service());
    openrouter.reset();
    for (let n = 0; n < 4; n += 1) {
      openrouter.next(httpError(400));
      expectProblem(await create(service(), user.token), 500, 'ai_misconfigured');
    }
    assert.equal((await create(service(), user.token)).status, 201);
  });
}

function eventLog(service: () => Service): void {
  it('each limit is logged once in a window, not once per refusal', async () => {
    const user = await signIn(service());
    const limitedRows = async (): Promise<Row[]> => {
      const { events } = await rowsOf(service(), user);
      return events.filter(({ type }) => type === 'ai_session.rate_limited');
    };
    const row = (policy: string) =>
      eventually(`the row of ${policy}`, async () => (await limitedRows()).find(({ data }) => data.policy === policy));

    for (let n = 0; n < 3; n += 1) assert.equal((await create(service(), user.token)).status, 201);
    for (let n = 0; n < 2; n += 1) expectLimited(await create(service(), user.token), 'generations');
    assert.deepEqual((await row('generations'))['session_id'], null);
    for (let n = 0; n < 3; n += 1) expectLimited(await create(service(), user.token), 'burst', 'generations');
    await row('burst');
    // A second row would have been sent before this: a generation of another user takes several times as long.
    assert.equal((await create(service(), (await signIn(service())).token)).status, 201);
    assert.deepEqual((await limitedRows()).map(({ data }) => data), [{ policy: 'generations' }, { policy: 'burst' }]);
  });

  it('a refusal neither waits for its log entry nor fails with it', async () => {
    const { gateway } = service().world;
    const gate = createGate();
    const user = await signIn(service());
    const held = gateway.fail('/rest/v1/event_logs', { kind: 'gate', gate });
    for (let n = 0; n < 5; n += 1) await badBody(service(), user);
    expectLimited(await badBody(service(), user), 'burst');
    assert.deepEqual((await rowsOf(service(), user)).events, []);
    gate.open();
    const events = await eventually('the row', async () => {
      const { events } = await rowsOf(service(), user);
      return events.length > 0 ? events : undefined;
    });
    held.clear();
    assert.deepEqual(events.map(({ type, data }) => [type, data]), [['ai_session.rate_limited', { policy: 'burst' }]]);
  });
}

async function surviveRestart(service: Service): Promise<void> {
  const [limited, counted] = [await signIn(service), await signIn(service)];
  for (let n = 0; n < 6; n += 1) await badBody(service, limited);
  assert.equal((await create(service, counted.token)).status, 201);
  await service.restart();
  expectLimited(await badBody(service, limited), 'burst');
  assert.deepEqual(remaining(await badBody(service, counted)), { burst: 3, generations: 2 });
}

async function loggedOnce(service: Service): Promise<void> {
  const user = await signIn(service);
  const logged = async () => (await rowsOf(service, user)).events.map(({ type, data }) => [type, data]);
  for (let n = 0; n < 6; n += 1) await badBody(service, user);
  await eventually('the row', async () => ((await logged()).length > 0 ? true : undefined));
  await service.restart();
  expectLimited(await badBody(service, user), 'burst');
  // A second row would have been sent before this: a generation of another user takes several times as long.
  assert.equal((await create(service, (await signIn(service)).token)).status, 201);
  assert.deepEqual(await logged(), [['ai_session.rate_limited', { policy: 'burst' }]]);
}

const AT_ONCE = 50;

/** Counts the statuses of fifty requests of one user. */
async function fiftyAtOnce(service: Service, body?: unknown): Promise<Record<number, number>> {
  const { token } = await signIn(service);
  const answers = await Promise.all(Array.from({ length: AT_ONCE }, () => create(service, token, body)));
  const byStatus = Map.groupBy(answers, ({ status }) => status);
  return Object.fromEntries([...byStatus].map(([status, those]) => [status, those.length]));
}

function allAtOnce(start: StartService): void {
  const bursting = started(start, { RATE_LIMIT_BURST: '10/60' });
  const generating = started(start, { RATE_LIMIT_BURST: '100/60', RATE_LIMIT_GENERATIONS: '10/3600', RATE_LIMIT_CONCURRENT: '100' });

  it('fifty requests against a burst of ten: ten are admitted', async () => {
    assert.deepEqual(await fiftyAtOnce(bursting(), '{'), { 400: 10, 429: 40 });
  });

  it('fifty requests against ten generations: ten model calls', async () => {
    const { openrouter } = generating().world;
    const gate = createGate();
    openrouter.always(gated(gate));
    const pending = fiftyAtOnce(generating());
    await openrouter.arrived(10);
    gate.open();
    assert.deepEqual(await pending, { 201: 10, 429: 40 });
    assert.equal(openrouter.requests.total, 10);
  });
}

function shortWindow(start: StartService): void {
  const service = started(start, { RATE_LIMIT_BURST: '2/1' });

  it('a client that waits exactly Retry-After is admitted', async () => {
    const user = await signIn(service());
    for (let round = 0; round < 2; round += 1) {
      let answer = await badBody(service(), user);
      while (answer.status !== 429) answer = await badBody(service(), user);
      // This test is about the time itself.
      await pause(Number(answer.headers.get('retry-after')) * 1000);
      assert.equal((await badBody(service(), user)).status, 400);
    }
  });
}
