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
    it('the owner appends an event and reads it', async () => {
      const { owner } = await createActors(world);
      expectStatus(await owner.rest('POST', EVENTS, rateLimited()), 201);
      const [row] = expectRows(await owner.rest('GET', EVENTS), 1);
      assert.equal(row?.['user_id'], owner.id);
      assert.deepEqual(row?.['data'], { policy: 'burst' });
    });

    it('the owner cannot append an event for another user', async () => {
      expectForbidden(await actors.owner.rest('POST', EVENTS, rateLimited({ user_id: actors.stranger.id })));
    });

    it('the owner cannot change or delete an event', async () => {
      const session_id = await endedSession(actors.owner);
      expectForbidden(await actors.owner.rest('PATCH', `${EVENTS}?session_id=eq.${session_id}`, { data: {} }));
      expectForbidden(await actors.owner.rest('DELETE', `${EVENTS}?session_id=eq.${session_id}`));
    });

    it('the owner cannot replace an event by an upsert', async () => {
      const session_id = await endedSession(actors.owner);
      const [row] = expectRows(await actors.owner.rest('GET', `${EVENTS}?session_id=eq.${session_id}`), 1);
      const answer = await actors.owner.rest('POST', EVENTS, { ...row, data: { forged: true } }, {
        prefer: 'resolution=merge-duplicates',
      });
      expectGenerated(answer);
    });

    it('the owner cannot set the id or time of an event', async () => {
      expectGenerated(await actors.owner.rest('POST', EVENTS, rateLimited({ id: 1 })));
      expectForbidden(await actors.owner.rest('POST', EVENTS, rateLimited({ created_at: '2020-01-01T00:00:00Z' })));
    });

    it('the owner cannot log two ends of a run', async () => {
      const session_id = await endedSession(actors.owner);
      for (const type of ['ai_session.completed', 'ai_session.failed']) {
        expectStatus(await actors.owner.rest('POST', EVENTS, { type, session_id }), 409);
        expectStatus(await actors.owner.rest('POST', EVENTS, { type, session_id, run: 1 }), 409);
      }
      expectStatus(await actors.owner.rest('POST', EVENTS, { type: 'ai_session.failed', session_id, run: 2 }), 201);
      expectStatus(await actors.owner.rest('POST', EVENTS, { type: 'ai_session.completed', session_id, run: 2 }), 409);
    });
  });

  describe('bounds', () => {
    it('a limit has one event in a minute', async () => {
      const policies = ['burst', 'generations', 'concurrent', 'attempts', 'reads', 'spend'];
      // All unknown policies count as one.
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

    it('a limit has another event in the next minute, and for other users', async () => {
      const { owner, stranger } = await createActors(world);
      await world.sql(
        `insert into public.event_logs (user_id, type, data, created_at)
         values ($1, 'ai_session.rate_limited', '{"policy":"burst"}', now() - interval '1 minute')`,
        [owner.id],
      );
      for (const { rest } of [owner, stranger]) expectStatus(await rest('POST', EVENTS, rateLimited()), 201);
    });

    it('the first 1000 runs of a session have events', async () => {
      const session_id = await openSession(actors.owner);
      const end = (run: number) => actors.owner.rest('POST', EVENTS, { type: 'ai_session.failed', session_id, run });
      expectStatus(await end(1000), 201);
      for (const run of [1001, 2_147_483_647]) expectRefusedBy(await end(run), 'event_logs_run_check');
    });

    /** Inserts events of one owner in one minute, with a new owner if a minute ended meanwhile. Returns the responses. */
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
    it('a stranger cannot read the events', async () => {
      const session_id = await endedSession(actors.owner);
      expectRows(await actors.stranger.rest('GET', `${EVENTS}?session_id=eq.${session_id}`), 0);
    });

    it("a stranger cannot append to the owner's session", async () => {
      const session_id = await openSession(actors.owner);
      const event = { type: 'ai_session.failed', session_id };
      const answer = await actors.stranger.rest('POST', EVENTS, event);
      // The composite foreign key: the stranger has no such session.
      expectStatus(answer, 409);
      assert.equal((answer.body as { code: string }).code, '23503');
      expectForbidden(await actors.stranger.rest('POST', EVENTS, { ...event, user_id: actors.owner.id }));
    });

    it('a stranger cannot change or delete an event', async () => {
      const session_id = await endedSession(actors.owner);
      expectForbidden(await actors.stranger.rest('PATCH', `${EVENTS}?session_id=eq.${session_id}`, { data: {} }));
      expectForbidden(await actors.stranger.rest('DELETE', `${EVENTS}?session_id=eq.${session_id}`));
    });
  });

  it('a client without a token has no access to events', async () => {
    expectForbidden(await actors.anonymous('GET', EVENTS));
    expectForbidden(await actors.anonymous('POST', EVENTS, rateLimited({ user_id: actors.owner.id })));
    expectForbidden(await actors.anonymous('PATCH', `${EVENTS}?id=gt.0`, { data: {} }));
    expectForbidden(await actors.anonymous('DELETE', `${EVENTS}?id=gt.0`));
  });

  it('the service key has no access to events', async () => {
    expectForbidden(await world.rest(world.serviceKey)('GET', EVENTS));
  });

  describe('checks of a row', () => {
    it('an unknown type is rejected', async () => {
      const session_id = await openSession(actors.owner);
      const answer = await actors.owner.rest('POST', EVENTS, { type: 'ai_session.paused', session_id });
      expectRefusedBy(answer, 'event_logs_type_check');
    });

    it('an end without a session is rejected', async () => {
      const answer = await actors.owner.rest('POST', EVENTS, { type: 'ai_session.completed' });
      expectRefusedBy(answer, 'event_logs_session_id_check');
    });

    it('an event of run 0 is rejected', async () => {
      const session_id = await openSession(actors.owner);
      const answer = await actors.owner.rest('POST', EVENTS, { type: 'ai_session.failed', session_id, run: 0 });
      expectRefusedBy(answer, 'event_logs_run_check');
    });

    it('a refused request with a session is rejected', async () => {
      const session_id = await openSession(actors.owner);
      const answer = await actors.owner.rest('POST', EVENTS, rateLimited({ session_id }));
      expectRefusedBy(answer, 'event_logs_session_id_check');
    });

    for (const data of [[], 'text', 1, true]) {
      it(`the data ${JSON.stringify(data)} is rejected`, async () => {
        const answer = await actors.owner.rest('POST', EVENTS, rateLimited({ data }));
        expectRefusedBy(answer, 'event_logs_data_object_check');
      });
    }

    it('data is limited to 8192 bytes as text', async () => {
      // Postgres writes {"a": "…"}: 9 bytes around the value.
      const sized = (bytes: number) => rateLimited({ data: { a: 'ü'.repeat(10) + 'x'.repeat(bytes - 9 - 20) } });
      expectStatus(await actors.owner.rest('POST', EVENTS, sized(8192)), 201);
      expectRefusedBy(await actors.owner.rest('POST', EVENTS, sized(8193)), 'event_logs_data_size_check');
    });
  });
});

/** The database generates the id of an event, and rejects one before it checks privileges. */
function expectGenerated(answer: RestAnswer): void {
  expectStatus(answer, 400);
  assert.equal((answer.body as { code: string }).code, '428C9');
}
