import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type RestAnswer, startWorld, type World } from '../support/world.ts';
import {
  type Actors,
  createActors,
  endedSession,
  EVENTS,
  expectForbidden,
  expectRefusedBy,
  expectRows,
  expectStatus,
  openSession,
} from './actors.ts';

describe('event_logs', () => {
  let world: World;
  let actors: Actors;
  before(async () => {
    world = await startWorld({ model: false });
    actors = await createActors(world);
  });
  after(() => world.close());

  const rateLimited = (more: object = {}) => ({ type: 'ai_session.rate_limited', data: { policy: 'burst' }, ...more });

  describe('the owner', () => {
    it('appends an event and reads it', async () => {
      const { owner } = await createActors(world);
      expectStatus(await owner.rest('POST', EVENTS, rateLimited()), 201);
      const [row] = expectRows(await owner.rest('GET', EVENTS), 1);
      assert.equal(row?.['user_id'], owner.id);
      assert.deepEqual(row?.['data'], { policy: 'burst' });
    });

    it('cannot append one for another user', async () => {
      expectForbidden(await actors.owner.rest('POST', EVENTS, rateLimited({ user_id: actors.stranger.id })));
    });

    it('cannot change or delete one', async () => {
      const session_id = await endedSession(actors.owner);
      expectForbidden(await actors.owner.rest('PATCH', `${EVENTS}?session_id=eq.${session_id}`, { data: {} }));
      expectForbidden(await actors.owner.rest('DELETE', `${EVENTS}?session_id=eq.${session_id}`));
    });

    it('cannot replace one by an upsert', async () => {
      const session_id = await endedSession(actors.owner);
      const [row] = expectRows(await actors.owner.rest('GET', `${EVENTS}?session_id=eq.${session_id}`), 1);
      const answer = await actors.owner.rest('POST', EVENTS, { ...row, data: { forged: true } }, {
        prefer: 'resolution=merge-duplicates',
      });
      expectGenerated(answer);
    });

    it('cannot number or date one', async () => {
      expectGenerated(await actors.owner.rest('POST', EVENTS, rateLimited({ id: 1 })));
      expectForbidden(await actors.owner.rest('POST', EVENTS, rateLimited({ created_at: '2020-01-01T00:00:00Z' })));
    });

    it('cannot end a run of a session twice in the log', async () => {
      const session_id = await endedSession(actors.owner);
      for (const type of ['ai_session.completed', 'ai_session.failed']) {
        expectStatus(await actors.owner.rest('POST', EVENTS, { type, session_id }), 409);
        expectStatus(await actors.owner.rest('POST', EVENTS, { type, session_id, run: 1 }), 409);
      }
      expectStatus(await actors.owner.rest('POST', EVENTS, { type: 'ai_session.failed', session_id, run: 2 }), 201);
      expectStatus(await actors.owner.rest('POST', EVENTS, { type: 'ai_session.completed', session_id, run: 2 }), 409);
    });
  });

  describe('is bounded', () => {
    it('to one event of a limit in a minute', async () => {
      const policies = ['burst', 'generations', 'concurrent', 'attempts', 'reads', 'spend'];
      // Whatever is no limit of the service counts as one.
      const others = [{ policy: 'mine' }, { policy: 'another' }, { policy: 1 }, { policy: null }, {}];
      const { owner, answers } = await inOneMinute([
        ...policies.map((policy) => ({ policy })),
        ...policies.map((policy) => ({ policy, forged: true })),
        ...others,
      ]);
      const taken = { status: 409, code: '23505' };
      assert.deepEqual(
        answers.map(({ status, body }) => (status === 201 ? status : { status, code: (body as { code: string }).code })),
        [...policies.map(() => 201), ...policies.map(() => taken), 201, ...others.slice(1).map(() => taken)],
      );
      expectRows(await owner.rest('GET', EVENTS), policies.length + 1);
    });

    it('and takes the next one in the next minute, and those of other users', async () => {
      const { owner, stranger } = await createActors(world);
      await world.sql(
        `insert into public.event_logs (user_id, type, data, created_at)
         values ($1, 'ai_session.rate_limited', '{"policy":"burst"}', now() - interval '1 minute')`,
        [owner.id],
      );
      for (const { rest } of [owner, stranger]) expectStatus(await rest('POST', EVENTS, rateLimited()), 201);
    });

    it('to the first 1000 runs of a session', async () => {
      const session_id = await openSession(actors.owner);
      const end = (run: number) => actors.owner.rest('POST', EVENTS, { type: 'ai_session.failed', session_id, run });
      expectStatus(await end(1000), 201);
      for (const run of [1001, 2_147_483_647]) expectRefusedBy(await end(run), 'event_logs_run_check');
    });

    /** What the database answers to these events of one owner in one minute: with a new owner when a minute ended meanwhile. */
    async function inOneMinute(events: object[]): Promise<{ owner: Actors['owner']; answers: RestAnswer[] }> {
      for (;;) {
        const { owner } = await createActors(world);
        const began = await minute();
        const answers: RestAnswer[] = [];
        for (const data of events) answers.push(await owner.rest('POST', EVENTS, rateLimited({ data })));
        if ((await minute()) === began) return { owner, answers };
      }
    }

    async function minute(): Promise<string> {
      const [row] = await world.sql<{ minute: string }>("select date_trunc('minute', clock_timestamp())::text as minute");
      return row?.minute ?? '';
    }
  });

  describe('a stranger', () => {
    it('does not see them', async () => {
      const session_id = await endedSession(actors.owner);
      expectRows(await actors.stranger.rest('GET', `${EVENTS}?session_id=eq.${session_id}`), 0);
    });

    it("cannot write into the log of the owner's session", async () => {
      const session_id = await openSession(actors.owner);
      const event = { type: 'ai_session.failed', session_id };
      const answer = await actors.stranger.rest('POST', EVENTS, event);
      // The composite foreign key: there is no such session of the stranger's.
      expectStatus(answer, 409);
      assert.equal((answer.body as { code: string }).code, '23503');
      expectForbidden(await actors.stranger.rest('POST', EVENTS, { ...event, user_id: actors.owner.id }));
    });

    it('cannot change or delete one', async () => {
      const session_id = await endedSession(actors.owner);
      expectForbidden(await actors.stranger.rest('PATCH', `${EVENTS}?session_id=eq.${session_id}`, { data: {} }));
      expectForbidden(await actors.stranger.rest('DELETE', `${EVENTS}?session_id=eq.${session_id}`));
    });
  });

  it('gives somebody without a token nothing', async () => {
    expectForbidden(await actors.anonymous('GET', EVENTS));
    expectForbidden(await actors.anonymous('POST', EVENTS, rateLimited({ user_id: actors.owner.id })));
    expectForbidden(await actors.anonymous('PATCH', `${EVENTS}?id=gt.0`, { data: {} }));
    expectForbidden(await actors.anonymous('DELETE', `${EVENTS}?id=gt.0`));
  });

  it('gives the service key nothing either', async () => {
    expectForbidden(await world.rest(world.serviceKey)('GET', EVENTS));
  });

  describe('keeps a row that makes sense', () => {
    it('not an unknown type', async () => {
      const session_id = await openSession(actors.owner);
      const answer = await actors.owner.rest('POST', EVENTS, { type: 'ai_session.paused', session_id });
      expectRefusedBy(answer, 'event_logs_type_check');
    });

    it('not an end without a session', async () => {
      const answer = await actors.owner.rest('POST', EVENTS, { type: 'ai_session.completed' });
      expectRefusedBy(answer, 'event_logs_session_id_check');
    });

    it('not a run before the first', async () => {
      const session_id = await openSession(actors.owner);
      const answer = await actors.owner.rest('POST', EVENTS, { type: 'ai_session.failed', session_id, run: 0 });
      expectRefusedBy(answer, 'event_logs_run_check');
    });

    it('not a refused request with a session', async () => {
      const session_id = await openSession(actors.owner);
      const answer = await actors.owner.rest('POST', EVENTS, rateLimited({ session_id }));
      expectRefusedBy(answer, 'event_logs_session_id_check');
    });

    for (const data of [[], 'text', 1, true]) {
      it(`not ${JSON.stringify(data)} as data`, async () => {
        const answer = await actors.owner.rest('POST', EVENTS, rateLimited({ data }));
        expectRefusedBy(answer, 'event_logs_data_object_check');
      });
    }

    it('data of 8192 bytes as text, and not one more', async () => {
      // Postgres writes {"a": "…"}: 9 bytes around the value.
      const sized = (bytes: number) => rateLimited({ data: { a: 'ü'.repeat(10) + 'x'.repeat(bytes - 9 - 20) } });
      expectStatus(await actors.owner.rest('POST', EVENTS, sized(8192)), 201);
      expectRefusedBy(await actors.owner.rest('POST', EVENTS, sized(8193)), 'event_logs_data_size_check');
    });
  });
});

/** The database numbers events itself, and says so before it looks at privileges. */
function expectGenerated(answer: RestAnswer): void {
  expectStatus(answer, 400);
  assert.equal((answer.body as { code: string }).code, '428C9');
}
