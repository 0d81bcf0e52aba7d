// Rows that an owner writes into a running session past the service: public.finish_ai_session still stores all billed
// candidates, under the ids and positions that the caller has already received.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import pg from 'pg';
import { startWorld, type World } from '../support/world.ts';
import {
  type Actors,
  CANDIDATES,
  completed,
  createActors,
  EVENTS,
  expectForbidden,
  expectRows,
  expectStatus,
  failed,
  FINISH,
  newCandidate,
  nextRun,
  openSession,
  REOPEN,
  RETURN_ROWS,
  SESSIONS,
  storedRows,
} from './actors.ts';

type Candidate = ReturnType<typeof newCandidate>;

describe('rows that an owner inserts past the service', () => {
  let world: World;
  let actors: Actors;
  before(async () => {
    world = await startWorld({ model: false });
    actors = await createActors(world);
  });
  after(() => world.close());

  const paid = () => ['First?', 'Second?', 'Third?'].map((front) => newCandidate({ front, back: 'Paid.' }));
  const forged = (session_id: string, position: number, more: object = {}) => newCandidate({ session_id, position, front: 'Forged?', ...more });

  const add = async (...candidates: object[]) => expectStatus(await actors.owner.rest('POST', CANDIDATES, candidates), 201);
  const finish = (args: object) => actors.owner.rest('POST', FINISH, args);

  async function expectReturned(args: object, status: string): Promise<void> {
    const answer = await finish(args);
    expectStatus(answer, 200);
    assert.equal(answer.body, status);
  }

  async function expectStored(id: string, candidates: Candidate[]): Promise<void> {
    const stored = await storedRows(world, id);
    assert.deepEqual(
      stored.candidates.map(({ id, position, front, back, prompt, user_id }) => ({ id, position, front, back, prompt, user_id })),
      candidates.map(({ id, front, back, prompt }, position) => ({ id, position, front, back, prompt, user_id: actors.owner.id })),
    );
  }

  describe('at the completion of a session', () => {
    const attacks: [what: string, attack: (id: string, candidates: Candidate[]) => Promise<unknown>][] = [
      ['a candidate at position 0', (id) => add(forged(id, 0))],
      ['a candidate after the last position', (id) => add(forged(id, 3))],
      ['a candidate with a billed id at its own position', (id, candidates) => add(forged(id, 0, { id: candidates[0]?.id }))],
      ['a candidate with a billed id at another position', (id, candidates) => add(forged(id, 1999, { id: candidates[0]?.id }))],
      [
        'a candidate with a billed id in another running session',
        async (_, candidates) => add(forged(await openSession(actors.owner), 0, { id: candidates[1]?.id })),
      ],
      ['2000 candidates', (id) => add(...Array.from({ length: 2000 }, (_, position) => forged(id, position)))],
      ['an event of the same type', async (session_id) => insertEvent({ type: 'ai_session.completed', session_id })],
      ['an event of the other type', async (session_id) => insertEvent({ type: 'ai_session.failed', session_id })],
      ['an event of a later run', async (session_id) => insertEvent({ type: 'ai_session.failed', session_id, run: 2 })],
    ];
    for (const [what, attack] of attacks) {
      it(`${what} does not prevent the completion`, async () => {
        const [id, candidates] = [await openSession(actors.owner), paid()];
        await attack(id, candidates);
        await expectReturned(completed(id, candidates), 'completed');
        await expectStored(id, candidates);
        // The call is repeated after a lost response.
        await expectReturned(completed(id, candidates), 'completed');
        await expectStored(id, candidates);
      });
    }

    async function insertEvent(event: object): Promise<void> {
      expectStatus(await actors.owner.rest('POST', EVENTS, event), 201);
    }

    it('all inserted rows together do not prevent a later run', async () => {
      const [id, candidates] = [await openSession(actors.owner), paid()];
      await expectReturned(failed(id), 'failed');
      expectStatus(await actors.owner.rest('POST', REOPEN, nextRun(id)), 200);
      await add(forged(id, 0), forged(id, 1, { id: candidates[2]?.id }));
      for (const run of [2, 3]) await insertEvent({ type: 'ai_session.completed', session_id: id, run });
      expectStatus(await actors.owner.rest('POST', REOPEN, nextRun(id)), 200);
      await expectReturned(completed(id, candidates, { run: 2 }), 'completed');
      await expectStored(id, candidates);
    });
  });

  it('inserted rows do not prevent a failure, which has no candidates', async () => {
    const id = await openSession(actors.owner);
    await add(forged(id, 0), forged(id, 7));
    expectStatus(await actors.owner.rest('POST', EVENTS, { type: 'ai_session.failed', session_id: id, data: { forged: true } }), 201);
    await expectReturned(failed(id), 'failed');
    const { session, candidates, events } = await storedRows(world, id);
    assert.deepEqual([session?.['error_code'], candidates], ['ai_unavailable', []]);
    assert.deepEqual(events.map(({ type, data }) => [type, data]), [['ai_session.failed', { forged: true }]]);
  });

  it('inserted rows of another user are kept', async () => {
    const id = await openSession(actors.owner);
    const taken = paid();
    await add(forged(id, 0, { id: taken[0]?.id }));
    const theirs = await openSession(actors.stranger);
    // A stranger with the id: the owner's row stays, and the stranger's completion is rejected as a whole.
    expectStatus(await actors.stranger.rest('POST', FINISH, completed(theirs, taken)), 409);
    assert.equal((await storedRows(world, theirs)).candidates.length, 0);
    assert.deepEqual((await storedRows(world, id)).candidates.map(({ front }) => front), ['Forged?']);
  });

  it('rows of an ended session are kept', async () => {
    const [id, candidates] = [await openSession(actors.owner), paid()];
    await expectReturned(completed(id, candidates), 'completed');
    await expectReturned(completed(id, paid()), 'completed');
    expectStatus(await finish(completed(await openSession(actors.owner), [newCandidate({ id: candidates[0]?.id })])), 409);
    await expectStored(id, candidates);
  });

  describe('removed by the completion only', () => {
    it('no user can delete inserted rows', async () => {
      const running = await openSession(actors.owner);
      await add(forged(running, 0));
      const ended = await openSession(actors.owner);
      await expectReturned(completed(ended, paid()), 'completed');
      for (const session_id of [running, ended]) {
        const before = await storedRows(world, session_id);
        for (const rest of [actors.owner.rest, actors.stranger.rest, actors.anonymous]) {
          expectForbidden(await rest('DELETE', `${CANDIDATES}?session_id=eq.${session_id}`));
        }
        assert.deepEqual(await storedRows(world, session_id), before);
      }
    });

    it('a forged completion deletes rows of its own running sessions only', async () => {
      const running = await openSession(actors.owner);
      await add(forged(running, 0));
      const ended = await openSession(actors.owner);
      await expectReturned(completed(ended, paid()), 'completed');
      const removed = async (userId: string) => {
        const client = new pg.Client({ connectionString: world.databaseUrl });
        await client.connect();
        try {
          await client.query('begin');
          await client.query("select set_config('role', 'authenticated', true), set_config('ai_sessions.finishes', 'on', true)");
          await client.query("select set_config('request.jwt.claims', $1, true)", [JSON.stringify({ sub: userId })]);
          const { rows } = await client.query('delete from public.flashcard_candidates returning session_id');
          return rows.filter(({ session_id }) => [running, ended].includes(session_id)).map(({ session_id }) => session_id);
        } finally {
          await client.end();
        }
      };
      assert.deepEqual(await removed(actors.stranger.id), []);
      assert.deepEqual(await removed(actors.owner.id), [running]);
    });
  });

  describe('written concurrently', () => {
    // Each connection is an uncommitted request of the owner.
    async function asOwner(): Promise<pg.Client> {
      const client = new pg.Client({ connectionString: world.databaseUrl });
      await client.connect();
      await client.query('begin');
      await client.query("select set_config('role', 'authenticated', true), set_config('request.jwt.claims', $1, true)", [
        JSON.stringify({ sub: actors.owner.id }),
      ]);
      return client;
    }

    const insert = (client: pg.Client, candidate: Candidate) =>
      client.query('insert into public.flashcard_candidates (id, session_id, position, front, back, prompt) values ($1, $2, $3, $4, $5, $6)', [
        candidate.id,
        candidate['session_id'],
        candidate['position'],
        candidate['front'],
        candidate['back'],
        candidate['prompt'],
      ]);

    const callFinish = (client: pg.Client, { session, candidates, event }: ReturnType<typeof completed>) =>
      client.query('select public.finish_ai_session($1, $2, $3)', [session, JSON.stringify(candidates), event].map((value) => (typeof value === 'string' ? value : JSON.stringify(value))));

    /** Waits until that connection waits for another one. */
    async function waits(client: pg.Client): Promise<void> {
      const pid = (client as unknown as { processID: number }).processID;
      for (;;) {
        const [row] = await world.sql<{ waits: boolean }>('select cardinality(pg_blocking_pids($1)) > 0 as waits', [pid]);
        if (row?.waits) return;
      }
    }

    it('a candidate inserted before the completion is replaced', async () => {
      const [id, candidates] = [await openSession(actors.owner), paid()];
      const [writer, finisher] = [await asOwner(), await asOwner()];
      try {
        await insert(writer, forged(id, 0));
        const finished = callFinish(finisher, completed(id, candidates));
        await waits(finisher);
        await writer.query('commit');
        await finished;
        await finisher.query('commit');
      } finally {
        await Promise.all([writer.end(), finisher.end()]);
      }
      await expectStored(id, candidates);
    });

    it('a candidate inserted during the completion is rejected', async () => {
      const [id, candidates] = [await openSession(actors.owner), paid()];
      const [writer, finisher] = [await asOwner(), await asOwner()];
      try {
        await callFinish(finisher, completed(id, candidates));
        const inserted = assert.rejects(insert(writer, forged(id, 7)), { code: '42501' });
        await waits(writer);
        await finisher.query('commit');
        await inserted;
      } finally {
        await Promise.all([writer.end(), finisher.end()]);
      }
      await expectStored(id, candidates);
    });

    it('an inserted event neither waits for the completion nor stops it', async () => {
      const [id, candidates] = [await openSession(actors.owner), paid()];
      const [writer, finisher] = [await asOwner(), await asOwner()];
      try {
        await writer.query("insert into public.event_logs (session_id, type) values ($1, 'ai_session.failed')", [id]);
        const finished = callFinish(finisher, completed(id, candidates));
        await waits(finisher);
        await writer.query('commit');
        await finished;
        await finisher.query('commit');
      } finally {
        await Promise.all([writer.end(), finisher.end()]);
      }
      await expectStored(id, candidates);
    });
  });

  describe('that end or reopen the session', () => {
    const ended_at = '2026-11-27T10:00:00Z';
    const changes: [what: string, change: object, status: string][] = [
      ['completed', { status: 'completed', ended_at }, 'completed'],
      ['failed for good', { status: 'failed', error_code: 'ai_refused', ended_at }, 'failed'],
      ['a later run', { run: 2_147_483_647 }, 'generating'],
    ];
    for (const [what, change, status] of changes) {
      it(`the completion of a session changed to ${what} returns it`, async () => {
        const id = await openSession(actors.owner);
        expectRows(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, change, RETURN_ROWS), 1);
        const before = await storedRows(world, id);
        await expectReturned(completed(id, paid()), status);
        await expectReturned(failed(id), status);
        assert.deepEqual(await storedRows(world, id), before);
      });
    }
  });

  it('the end of a run after the 1000th has no event', async () => {
    const id = await openSession(actors.owner, { run: 1001 });
    await expectReturned(failed(id, 'ai_timeout', { run: 1001 }), 'failed');
    const { session, events } = await storedRows(world, id);
    assert.deepEqual([session?.['status'], events], ['failed', []]);
  });

  it('a cost with more digits than the check allows is rounded', async () => {
    const costs: [sent: number, stored: string | null][] = [[1.2345678901234567e-7, '0.000000123457'], [5e-324, '0'], [1_000_000, '1000000']];
    for (const [cost, stored] of costs) {
      const id = await openSession(actors.owner);
      await expectReturned(completed(id, paid(), { cost, prompt_tokens: 2_147_483_647 }), 'completed');
      const { session } = await storedRows(world, id);
      assert.deepEqual([session?.['cost'], session?.['prompt_tokens']], [stored, 2_147_483_647]);
    }
  });
});
