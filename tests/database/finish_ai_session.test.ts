import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type RestAnswer, startWorld, type World } from '../support/world.ts';
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
  SESSIONS,
  storedRows,
  TEXT,
} from './actors.ts';

describe('finish_ai_session', () => {
  let world: World;
  let actors: Actors;
  before(async () => {
    world = await startWorld({ model: false });
    actors = await createActors(world);
  });
  after(() => world.close());

  const finish = (args: object) => actors.owner.rest('POST', FINISH, args);

  function expectReturned(answer: RestAnswer, status: 'completed' | 'failed' | 'generating'): void {
    expectStatus(answer, 200);
    assert.equal(answer.body, status);
  }

  const stored = (id: string) => storedRows(world, id);

  it('completes a session: candidates in order, outcome, one event', async () => {
    const id = await openSession(actors.owner);
    const candidates = [newCandidate({ front: 'Third?' }), newCandidate({ front: 'First?' }), newCandidate({ front: 'Second?' })];
    expectReturned(await finish(completed(id, candidates, { partial: true })), 'completed');

    const { session, candidates: kept, events } = await stored(id);
    assert.equal(session?.['status'], 'completed');
    assert.equal(session?.['partial'], true);
    assert.equal(session?.['error_code'], null);
    assert.equal(session?.['prompt_tokens'], 512);
    assert.equal(session?.['completion_tokens'], 300);
    assert.equal(session?.['cost'], '0.000123');
    assert.ok(session?.['ended_at'] instanceof Date);
    assert.deepEqual(
      kept.map((candidate) => [candidate['position'], candidate['id'], candidate['front'], candidate['user_id']]),
      candidates.map((candidate, i) => [i, candidate.id, candidate['front'], actors.owner.id]),
    );
    assert.deepEqual(
      events.map((event) => [event['type'], event['user_id'], event['data']]),
      [['ai_session.completed', actors.owner.id, { attempts: 1 }]],
    );
  });

  it('fails a session: code, no candidates, one event', async () => {
    const id = await openSession(actors.owner);
    const unknownUsage = { prompt_tokens: null, completion_tokens: null, cost: null };
    expectReturned(await finish(failed(id, 'ai_timeout', unknownUsage)), 'failed');

    const { session, candidates, events } = await stored(id);
    assert.equal(session?.['status'], 'failed');
    assert.equal(session?.['error_code'], 'ai_timeout');
    assert.equal(session?.['cost'], null);
    assert.deepEqual(candidates, []);
    assert.deepEqual(events.map((event) => [event['type'], event['data']]), [['ai_session.failed', { attempts: 3 }]]);
  });

  it('may be called again after a lost answer: the first end stands', async () => {
    const id = await openSession(actors.owner);
    const args = completed(id);
    expectReturned(await finish(args), 'completed');
    const before = await stored(id);

    expectReturned(await finish(args), 'completed');
    expectReturned(await finish(failed(id)), 'completed');
    expectReturned(await finish(completed(id, [newCandidate()], { input_text: TEXT })), 'completed');
    assert.deepEqual(await stored(id), before);
  });

  it('called many times at once ends a session once, whoever comes first', async () => {
    const id = await openSession(actors.owner);
    const calls = Array.from({ length: 12 }, (_, i) => finish(i % 2 === 0 ? completed(id) : failed(id)));
    const answers = await Promise.all(calls);
    const { session, candidates, events } = await stored(id);
    for (const answer of answers) {
      expectStatus(answer, 200);
      assert.equal(answer.body, session?.['status']);
    }
    assert.equal(events.length, 1);
    assert.equal(candidates.length, session?.['status'] === 'completed' ? 2 : 0);
  });

  it('opens the session itself when its opening was never confirmed', async () => {
    const id = crypto.randomUUID();
    const opening = { input_text: TEXT, created_at: '2026-11-22T10:00:00.123Z' };
    expectReturned(await finish(completed(id, [newCandidate()], opening)), 'completed');

    const { session, candidates, events } = await stored(id);
    assert.equal(session?.['user_id'], actors.owner.id);
    assert.equal(session?.['input_text'], TEXT);
    assert.equal(session?.['model'], 'stand-in/model');
    assert.equal((session?.['created_at'] as Date).toISOString(), '2026-11-22T10:00:00.123Z');
    assert.equal(candidates.length, 1);
    assert.equal(events.length, 1);
  });

  it('keeps an opening that had arrived after all', async () => {
    const id = await openSession(actors.owner);
    const other = { input_text: `${TEXT} changed`, created_at: '2020-01-01T00:00:00Z', model: 'other/model' };
    expectReturned(await finish(failed(id, 'ai_unavailable', other)), 'failed');
    const { session } = await stored(id);
    assert.equal(session?.['input_text'], TEXT);
    assert.equal(session?.['model'], 'stand-in/model');
  });

  it('called many times at once without an opening still makes one session', async () => {
    const id = crypto.randomUUID();
    const args = completed(id, [newCandidate()], { input_text: TEXT });
    const answers = await Promise.all(Array.from({ length: 8 }, () => finish(args)));
    for (const answer of answers) expectReturned(answer, 'completed');
    const { candidates, events } = await stored(id);
    assert.equal(candidates.length, 1);
    assert.equal(events.length, 1);
  });

  describe('of a later run', () => {
    const ends = (events: Record<string, unknown>[]) => events.map(({ run, type }) => [run, type]);

    it('ends it once more, with an event of its own', async () => {
      const id = await openSession(actors.owner);
      expectReturned(await finish(failed(id)), 'failed');
      expectStatus(await actors.owner.rest('POST', REOPEN, nextRun(id)), 200);
      expectReturned(await finish(completed(id, [newCandidate()], { run: 2 })), 'completed');

      const { session, candidates, events } = await stored(id);
      assert.equal(session?.['status'], 'completed');
      assert.equal(session?.['run'], 2);
      assert.equal(session?.['error_code'], null);
      assert.equal(session?.['prompt_tokens'], 512);
      assert.equal(candidates.length, 1);
      assert.deepEqual(ends(events), [[1, 'ai_session.failed'], [2, 'ai_session.completed']]);
    });

    it('begins the run itself when its beginning was never confirmed', async () => {
      const id = await openSession(actors.owner);
      expectReturned(await finish(failed(id)), 'failed');
      expectReturned(await finish(failed(id, 'ai_timeout', { run: 2 })), 'failed');
      const { session, events } = await stored(id);
      assert.equal(session?.['error_code'], 'ai_timeout');
      assert.deepEqual(ends(events), [[1, 'ai_session.failed'], [2, 'ai_session.failed']]);
    });

    it('opens the session itself when no run of it ever arrived', async () => {
      const id = crypto.randomUUID();
      expectReturned(await finish(completed(id, [newCandidate()], { run: 3, input_text: TEXT })), 'completed');
      const { session, events } = await stored(id);
      assert.equal(session?.['run'], 3);
      assert.deepEqual(ends(events), [[3, 'ai_session.completed']]);
    });

    it('stores what was paid for when the end of the run before never arrived', async () => {
      const id = await openSession(actors.owner);
      expectReturned(await finish(completed(id, [newCandidate()], { run: 2 })), 'completed');
      expectReturned(await finish(failed(id)), 'completed');
      const { candidates, events } = await stored(id);
      assert.equal(candidates.length, 1);
      assert.deepEqual(ends(events), [[2, 'ai_session.completed']]);
    });

    it('may be called again after a lost answer: the first end stands', async () => {
      for (const [how, status] of [[completed, 'completed'], [failed, 'failed']] as const) {
        const id = await openSession(actors.owner);
        expectReturned(await finish(failed(id)), 'failed');
        const args = how(id, undefined, { run: 2, input_text: TEXT });
        expectReturned(await finish(args), status);
        const before = await stored(id);
        expectReturned(await finish(args), status);
        assert.deepEqual(await stored(id), before);
      }
    });

    it('called many times at once beside the run before ends each run at most once', async () => {
      const id = await openSession(actors.owner);
      const args = completed(id, [newCandidate()], { run: 2, input_text: TEXT });
      const answers = await Promise.all(Array.from({ length: 12 }, (_, i) => finish(i % 2 === 0 ? args : failed(id))));
      for (const answer of answers) expectStatus(answer, 200);
      const { session, candidates, events } = await stored(id);
      assert.equal(session?.['status'], 'completed');
      assert.equal(session?.['run'], 2);
      assert.equal(candidates.length, 1);
      assert.equal(ends(events).filter(([run]) => run === 2).length, 1);
      assert.ok(ends(events).filter(([run]) => run === 1).length <= 1);
    });

    it('changes nothing by a late end of an earlier run, generating or over', async () => {
      const id = await openSession(actors.owner);
      expectReturned(await finish(failed(id)), 'failed');
      expectStatus(await actors.owner.rest('POST', REOPEN, nextRun(id)), 200);
      const reopened = await stored(id);
      for (const late of [failed(id, 'ai_timeout'), completed(id), completed(id, [newCandidate()], { input_text: TEXT })]) {
        expectReturned(await finish(late), 'generating');
      }
      assert.deepEqual(await stored(id), reopened);

      expectReturned(await finish(failed(id, 'ai_unavailable', { run: 2 })), 'failed');
      const over = await stored(id);
      expectReturned(await finish(completed(id)), 'failed');
      assert.deepEqual(await stored(id), over);
    });

    it('does not bring back what ended for good', async () => {
      for (const [how, status] of [[completed(''), 'completed'], [failed('', 'ai_refused'), 'failed']] as const) {
        const id = await openSession(actors.owner);
        expectReturned(await finish({ ...how, session: { ...how.session, id } }), status);
        const before = await stored(id);
        expectReturned(await finish(completed(id, [newCandidate()], { run: 2, input_text: TEXT })), status);
        assert.deepEqual(await stored(id), before);
      }
    });

    it('answers 404 to a stranger and changes nothing', async () => {
      const id = await openSession(actors.owner);
      expectReturned(await finish(failed(id)), 'failed');
      const before = await stored(id);
      for (const input_text of [null, TEXT]) {
        expectStatus(await actors.stranger.rest('POST', FINISH, failed(id, 'ai_timeout', { run: 2, input_text })), 404);
      }
      assert.deepEqual(await stored(id), before);
    });

    it('with a card that does not fit, leaves the run before as it was', async () => {
      const id = await openSession(actors.owner);
      expectReturned(await finish(failed(id)), 'failed');
      const before = await stored(id);
      expectStatus(await finish(completed(id, [newCandidate({ back: '' })], { run: 2 })), 400);
      assert.deepEqual(await stored(id), before);
    });
  });

  it('answers 404 for a session that does not exist', async () => {
    const answer = await finish(completed(crypto.randomUUID()));
    expectStatus(answer, 404);
  });

  it("answers 404 for a stranger's call, with and without an opening, and changes nothing", async () => {
    for (const how of [completed, failed]) {
      const id = await openSession(actors.owner);
      const before = await stored(id);
      expectStatus(await actors.stranger.rest('POST', FINISH, how(id)), 404);
      const withOpening = how(id);
      withOpening.session = Object.assign(withOpening.session, { input_text: TEXT });
      expectStatus(await actors.stranger.rest('POST', FINISH, withOpening), 404);
      assert.deepEqual(await stored(id), before);
    }
  });

  it('tells a stranger nothing about an ended session either', async () => {
    const id = await openSession(actors.owner);
    expectReturned(await finish(completed(id)), 'completed');
    expectStatus(await actors.stranger.rest('POST', FINISH, completed(id)), 404);
  });

  it('is closed to somebody without a token and to the service key', async () => {
    const id = await openSession(actors.owner);
    expectForbidden(await actors.anonymous('POST', FINISH, completed(id)));
    expectForbidden(await world.rest(world.serviceKey)('POST', FINISH, completed(id)));
  });

  describe('is all or nothing', () => {
    const bad: [string, object][] = [
      ['a front of 201 characters', newCandidate({ front: 'x'.repeat(201) })],
      ['an empty back', newCandidate({ back: '' })],
      ['a missing prompt', newCandidate({ prompt: undefined })],
      ['a control character', newCandidate({ front: 'a\u0007b' })],
      ['U+0000', newCandidate({ front: 'a\u0000b' })],
      ['an id that is no UUID', newCandidate({ id: 'x' })],
    ];
    for (const [what, candidate] of bad) {
      it(`with ${what} in the second card nothing is written`, async () => {
        const id = crypto.randomUUID();
        const answer = await finish(completed(id, [newCandidate(), candidate], { input_text: TEXT }));
        expectStatus(answer, 400);
        assert.deepEqual(await stored(id), { session: undefined, candidates: [], events: [] });
      });
    }

    it('with an event that is too large nothing is written', async () => {
      const id = await openSession(actors.owner);
      const before = await stored(id);
      const answer = await finish({ ...completed(id), event: { text: 'x'.repeat(9000) } });
      expectStatus(answer, 400);
      assert.deepEqual(await stored(id), before);
    });

    it('with a candidate id that is taken nothing is written', async () => {
      const taken = newCandidate();
      expectReturned(await finish(completed(await openSession(actors.owner), [taken])), 'completed');
      const id = await openSession(actors.owner);
      expectStatus(await finish(completed(id, [newCandidate(), taken])), 409);
      const { session, candidates } = await stored(id);
      assert.equal(session?.['status'], 'generating');
      assert.deepEqual(candidates, []);
    });
  });

  describe('refuses an outcome that contradicts itself', () => {
    const contradictions: [string, (id: string) => object][] = [
      ['completed without candidates', (id) => completed(id, [])],
      ['failed with candidates', (id) => ({ ...failed(id), candidates: [newCandidate()] })],
      ['another status', (id) => completed(id, [newCandidate()], { status: 'generating' })],
      ['no status', (id) => completed(id, [newCandidate()], { status: null })],
      ['no id', (id) => completed(id, [newCandidate()], { id: null })],
      ['candidates that are no list', (id) => ({ ...completed(id), candidates: { 0: newCandidate() } })],
      ['no candidates member', (id) => ({ ...completed(id), candidates: null })],
    ];
    for (const [what, args] of contradictions) {
      it(what, async () => {
        const id = await openSession(actors.owner);
        const answer = await finish(args(id));
        expectStatus(answer, 400);
        assert.equal((answer.body as { code: string }).code, '22023');
        assert.equal((await stored(id)).session?.['status'], 'generating');
      });
    }
  });

  it('takes a text and cards at their limits, in astral characters', async () => {
    const emoji = '\u{1F600}';
    const candidate = () => newCandidate({ front: emoji.repeat(200), back: emoji.repeat(500), prompt: emoji.repeat(500) });
    const id = crypto.randomUUID();
    const candidates = Array.from({ length: 20 }, candidate);
    expectReturned(await finish(completed(id, candidates, { input_text: emoji.repeat(10_000) })), 'completed');
    expectRows(await actors.owner.rest('GET', `${CANDIDATES}?session_id=eq.${id}`), 20);
    expectRows(await actors.owner.rest('GET', `${EVENTS}?session_id=eq.${id}`), 1);
    expectRows(await actors.owner.rest('GET', `${SESSIONS}?id=eq.${id}`), 1);
  });
});
