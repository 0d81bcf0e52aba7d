// GET /ai-sessions?limit=&before=: the user's sessions, newest first, in pages that stay consistent while sessions are added.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { cutByLength, gated, httpError } from '../support/model_behaviour.ts';
import { type Answer, create, eventually, expectProblem, lesson, read, remaining, rowsOf, sendRequest, type Service, type SignedIn, signIn, started, type StartService } from './service.ts';

export function tests(start: StartService): void {
  const service = started(start, { RATE_LIMIT_BURST: '100/60' });
  describe('a list', () => contents(service));
  describe('its pages', () => pages(service));
  describe('a bad parameter', () => badParameters(service));
}

const list = (service: Service, token: string, query = ''): Promise<Answer> => sendRequest(service, 'GET', `/ai-sessions${query}`, { token });

const idsIn = ({ body }: Answer): string[] => body.sessions.map(({ id }: { id: string }) => id);

/** Inserts sessions past the service, every second one in the same microsecond as the one before. The newest first. */
async function withSessions(service: Service, count: number): Promise<{ user: SignedIn; ids: string[] }> {
  const user = await signIn(service);
  await service.world.sql(
    `insert into ai_generation_sessions (id, user_id, model, input_text, created_at)
     select gen_random_uuid(), $1, 'test/first', $2, timestamptz '2026-11-24 09:00:00.123456Z' + (n / 2) * interval '1 microsecond'
     from generate_series(1, $3::int) as n`,
    [user.id, lesson(), count],
  );
  return { user, ids: await idsOf(service, user) };
}

/** The ids in the database, the newest first. */
async function idsOf(service: Service, user: SignedIn): Promise<string[]> {
  const rows = await service.world.sql<{ id: string }>('select id from ai_generation_sessions where user_id = $1 order by created_at desc, id desc', [user.id]);
  return rows.map(({ id }) => id);
}

/** Reads all pages. */
async function walk(service: Service, { token }: SignedIn, limit: number, between: (page: number) => Promise<unknown> = async () => {}): Promise<string[][]> {
  const pages: string[][] = [];
  for (let before = ''; ; ) {
    const page = await list(service, token, `?limit=${limit}${before}`);
    assert.equal(page.status, 200, page.text);
    pages.push(idsIn(page));
    if (page.body.next === null) return pages;
    before = `&before=${encodeURIComponent(page.body.next)}`;
    await between(pages.length);
  }
}

function contents(service: () => Service): void {
  it('the list of a new user is empty', async () => {
    const found = await list(service(), (await signIn(service())).token);
    assert.deepEqual([found.status, found.body], [200, { sessions: [], next: null }]);
  });

  it('a listed session equals the one that GET returns, without candidates', async () => {
    const user = await signIn(service());
    const gate = createGate();
    const { openrouter } = service().world;
    await create(service(), user.token);
    openrouter.next(cutByLength(3));
    await create(service(), user.token);
    openrouter.next(httpError(402));
    await create(service(), user.token);
    openrouter.next(gated(gate));
    const running = create(service(), user.token);
    await gate.reached;
    await eventually('its row is open', async () => (await rowsOf(service(), user)).sessions[3]);

    const found = await list(service(), user.token);
    assert.equal(found.headers.get('content-type'), 'application/json');
    assert.equal(found.headers.get('cache-control'), 'no-store');
    assert.deepEqual(
      found.body.sessions.map(({ status, partial, error, candidate_count }: Record<string, unknown>) => [status, partial, error, candidate_count]),
      [
        ['generating', false, null, 0],
        ['failed', false, 'ai_misconfigured', 0],
        ['completed', true, null, 3],
        ['completed', false, null, 20],
      ],
    );
    for (const listed of found.body.sessions) {
      const { candidates, ...summary } = (await read(service(), user.token, listed.id)).body;
      assert.deepEqual(listed, summary);
      assert.ok(Array.isArray(candidates));
    }
    gate.open();
    await running;
  });

  it('the list has no sessions of others, nor does their cursor', async () => {
    const [owner, stranger] = [await withSessions(service(), 3), await withSessions(service(), 3)];
    assert.deepEqual(idsIn(await list(service(), owner.user.token)), owner.ids);
    const { next } = (await list(service(), stranger.user.token, '?limit=1')).body;
    const behind = await list(service(), owner.user.token, `?before=${next}`);
    assert.ok(idsIn(behind).every((id) => owner.ids.includes(id)));
  });

  it('the list requires a token', async () => {
    expectProblem(await sendRequest(service(), 'GET', '/ai-sessions'), 401, 'missing_token');
  });

  it('a list is not charged', async () => {
    const { token } = await signIn(service());
    for (let n = 0; n < 12; n += 1) assert.equal((await list(service(), token)).status, 200);
    assert.deepEqual(remaining(await create(service(), token)), { burst: 99, generations: 49 });
  });

  it('the list is a 500 during a database outage', async () => {
    const { user, ids } = await withSessions(service(), 2);
    const away = service().world.gateway.fail(({ headers }) => headers['authorization'] === `Bearer ${user.token}`, { kind: 'answer', status: 503 });
    expectProblem(await list(service(), user.token), 500, 'database_error');
    away.clear();
    assert.deepEqual(idsIn(await list(service(), user.token)), ids);
  });
}

function pages(service: () => Service): void {
  it('a page has 20 sessions by default', async () => {
    const { user, ids } = await withSessions(service(), 21);
    const first = await list(service(), user.token);
    assert.deepEqual(idsIn(first), ids.slice(0, 20));
    const second = await list(service(), user.token, `?before=${first.body.next}`);
    assert.deepEqual([idsIn(second), second.body.next], [ids.slice(20), null]);
  });

  for (const limit of [1, 2, 3, 10, 11, 12, 13]) {
    it(`pages of ${limit} contain each session once and in order`, async () => {
      const { user, ids } = await withSessions(service(), 12);
      const pages = await walk(service(), user, limit);
      assert.deepEqual(pages.flat(), ids);
      assert.equal(pages.length, Math.ceil(ids.length / limit), 'the last page has no cursor');
    });
  }

  it('a page has up to 100 sessions', async () => {
    const { user, ids } = await withSessions(service(), 101);
    const pages = await walk(service(), user, 100);
    assert.deepEqual(pages.map(({ length }) => length), [100, 1]);
    assert.deepEqual(pages.flat(), ids);
  });

  it('pages are not shifted by new sessions', async () => {
    const { user, ids } = await withSessions(service(), 6);
    const pages = await walk(service(), user, 2, () => create(service(), user.token));
    assert.deepEqual(pages.flat(), ids);
    assert.equal((await idsOf(service(), user)).length, 8);
  });

  it('the next page follows a session that has changed or was deleted', async () => {
    const { user, ids } = await withSessions(service(), 6);
    const pages = await walk(service(), user, 2, (page) => service().world.sql('delete from ai_generation_sessions where id = $1', [ids[2 * page - 1]]));
    assert.deepEqual(pages.flat(), ids);
  });

  it('cursors need no escaping in a URL', async () => {
    const { user } = await withSessions(service(), 2);
    const { next } = (await list(service(), user.token, '?limit=1')).body;
    assert.match(next, /^[\w.~-]{1,100}$/);
  });

  it('unknown parameters are ignored', async () => {
    const { user, ids } = await withSessions(service(), 2);
    assert.deepEqual(idsIn(await list(service(), user.token, '?utm_source=x&select=*&order=id.asc&user_id=eq.1')), ids);
  });
}

function badParameters(service: () => Service): void {
  const id = '00000000000000000000000000000005';
  const bad: [field: string, query: string][] = [
    ...['0', '101', '-1', '1.5', '+1', '', 'ten', '1e1', '99999999999999999999', '%31'].map((limit): [string, string] => ['limit', `limit=${limit}`]),
    ['limit', 'limit=1&limit=2'],
    ...['', 'x', '1', `-1-${id}`, `x-${id}`, '1-x', `99999999999999999999-${id}`, `253402300800000000-${id}`, `1-${id})`].map((before): [string, string] => ['before', `before=${before}`]),
  ];
  for (const [field, query] of bad) {
    it(`the bad parameter of ${query} is named`, async () => {
      const problem = expectProblem(await list(service(), (await signIn(service())).token, `?${query}`), 400, 'invalid_parameter');
      assert.equal(problem.errors[0].field, field);
      assert.match(problem.detail, new RegExp(field));
    });
  }

  it('two bad parameters are reported together', async () => {
    const problem = expectProblem(await list(service(), (await signIn(service())).token, '?limit=0&before=x'), 400, 'invalid_parameter');
    assert.deepEqual(problem.errors.map(({ field }: { field: string }) => field), ['limit', 'before']);
  });

  for (const edge of [`0-${id}`, `253402300799999999-${id}`]) {
    it(`the furthest cursor is valid (${edge})`, async () => {
      assert.equal((await list(service(), (await signIn(service())).token, `?before=${edge}`)).status, 200);
    });
  }
}
