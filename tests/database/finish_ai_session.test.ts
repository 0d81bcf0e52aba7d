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

  it('a completion stores candidates in order, outcome and one event', async () => {
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

  it('a completion stores source, support and notes', async () => {
    const id = await openSession(actors.owner);
    const citations = [
      { source: { start: 3, end: 120 }, supported: true, notes: [] },
      { source: { start: 0, end: 10_000 }, supported: false, notes: ['yes_or_no', 'answer_in_question'] },
      { source: null, supported: null, notes: ['near_duplicate'] },
      // A service that has not been updated yet sends none of the three.
      {},
    ];
    expectReturned(await finish(completed(id, citations.map(newCandidate), { coverage_percent: 67 })), 'completed');
    const { session, candidates } = await stored(id);
    assert.equal(session?.['coverage_percent'], 67);
    assert.deepEqual(
      candidates.map(({ source_start, source_end, supported, notes }) => [source_start, source_end, supported, notes]),
      [
        [3, 120, true, []],
        [0, 10_000, false, ['yes_or_no', 'answer_in_question']],
        [null, null, null, ['near_duplicate']],
        [null, null, null, []],
      ],
    );
  });

  it('a failure stores its code and one event', async () => {
    const id = await openSession(actors.owner);
    const unknownUsage = { prompt_tokens: null, completion_tokens: null, cost: null };
    expectReturned(await finish(failed(id, 'ai_timeout', unknownUsage)), 'failed');

    const { session, candidates, events } = await stored(id);
    assert.equal(session?.['status'], 'failed');
    assert.equal(session?.['error_code'], 'ai_timeout');
    assert.equal(session?.['cost'], null);
    assert.equal(session?.['coverage_percent'], null);
    assert.deepEqual(candidates, []);
    assert.deepEqual(events.map((event) => [event['type'], event['data']]), [['ai_session.failed', { attempts: 3 }]]);
  });

  it('a second call after a lost response keeps the first end', async () => {
    const id = await openSession(actors.owner);
    const args = completed(id);
    expectReturned(await finish(args), 'completed');
    const before = await stored(id);

    expectReturned(await finish(args), 'completed');
    expectReturned(await finish(failed(id)), 'completed');
    expectReturned(await finish(completed(id, [newCandidate()], { input_text: TEXT })), 'completed');
    assert.deepEqual(await stored(id), before);
  });

  it('concurrent calls end a session once', async () => {
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

  it('a call without a row opens the session', async () => {
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

  it('a call with an opening keeps an existing row', async () => {
    const id = await openSession(actors.owner);
    const other = { input_text: `${TEXT} changed`, created_at: '2020-01-01T00:00:00Z', model: 'other/model' };
    expectReturned(await finish(failed(id, 'ai_unavailable', other)), 'failed');
    const { session } = await stored(id);
    assert.equal(session?.['input_text'], TEXT);
    assert.equal(session?.['model'], 'stand-in/model');
  });

  it('concurrent calls without a row make one session', async () => {
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

    it('a later run ends the session again, with its own event', async () => {
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

    it('a call begins a run whose beginning was not confirmed', async () => {
      const id = await openSession(actors.owner);
      expectReturned(await finish(failed(id)), 'failed');
      expectReturned(await finish(failed(id, 'ai_timeout', { run: 2 })), 'failed');
      const { session, events } = await stored(id);
      assert.equal(session?.['error_code'], 'ai_timeout');
      assert.deepEqual(ends(events), [[1, 'ai_session.failed'], [2, 'ai_session.failed']]);
    });

    it('a call of a later run without a row opens the session', async () => {
      const id = crypto.randomUUID();
      expectReturned(await finish(completed(id, [newCandidate()], { run: 3, input_text: TEXT })), 'completed');
      const { session, events } = await stored(id);
      assert.equal(session?.['run'], 3);
      assert.deepEqual(ends(events), [[3, 'ai_session.completed']]);
    });

    it('a later run is stored though the earlier run has no end', async () => {
      const id = await openSession(actors.owner);
      expectReturned(await finish(completed(id, [newCandidate()], { run: 2 })), 'completed');
      expectReturned(await finish(failed(id)), 'completed');
      const { candidates, events } = await stored(id);
      assert.equal(candidates.length, 1);
      assert.deepEqual(ends(events), [[2, 'ai_session.completed']]);
    });

    it('a second call of a later run keeps the first end', async () => {
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

    it('concurrent calls of two runs end each run at most once', async () => {
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

    it('a late end of an earlier run changes nothing', async () => {
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

    it('a final end is not replaced', async () => {
      for (const [how, status] of [[completed(''), 'completed'], [failed('', 'ai_refused'), 'failed']] as const) {
        const id = await openSession(actors.owner);
        expectReturned(await finish({ ...how, session: { ...how.session, id } }), status);
        const before = await stored(id);
        expectReturned(await finish(completed(id, [newCandidate()], { run: 2, input_text: TEXT })), status);
        assert.deepEqual(await stored(id), before);
      }
    });

    it('a stranger’s later run is a 404 and changes nothing', async () => {
      const id = await openSession(actors.owner);
      expectReturned(await finish(failed(id)), 'failed');
      const before = await stored(id);
      for (const input_text of [null, TEXT]) {
        expectStatus(await actors.stranger.rest('POST', FINISH, failed(id, 'ai_timeout', { run: 2, input_text })), 404);
      }
      assert.deepEqual(await stored(id), before);
    });

    it('an invalid candidate leaves the earlier run unchanged', async () => {
      const id = await openSession(actors.owner);
      expectReturned(await finish(failed(id)), 'failed');
      const before = await stored(id);
      expectStatus(await finish(completed(id, [newCandidate({ back: '' })], { run: 2 })), 400);
      assert.deepEqual(await stored(id), before);
    });
  });

  it('a call without an opening for a missing session is a 404', async () => {
    const answer = await finish(completed(crypto.randomUUID()));
    expectStatus(answer, 404);
  });

  it("a stranger's call is a 404 and changes nothing", async () => {
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

  it('a stranger’s call for an ended session is a 404', async () => {
    const id = await openSession(actors.owner);
    expectReturned(await finish(completed(id)), 'completed');
    expectStatus(await actors.stranger.rest('POST', FINISH, completed(id)), 404);
  });

  it('only authenticated users can call finish_ai_session', async () => {
    const id = await openSession(actors.owner);
    expectForbidden(await actors.anonymous('POST', FINISH, completed(id)));
    expectForbidden(await world.rest(world.serviceKey)('POST', FINISH, completed(id)));
  });

  describe('atomicity', () => {
    const bad: [string, object][] = [
      ['a front of 201 characters', newCandidate({ front: 'x'.repeat(201) })],
      ['an empty back', newCandidate({ back: '' })],
      ['a missing prompt', newCandidate({ prompt: undefined })],
      ['a control character', newCandidate({ front: 'a\u0007b' })],
      ['U+0000', newCandidate({ front: 'a\u0000b' })],
      ['an id that is no UUID', newCandidate({ id: 'x' })],
      ['a source beyond the longest text', newCandidate({ source: { start: 0, end: 10_001 } })],
      ['half a source', newCandidate({ source: { start: 0 } })],
      ['another note', newCandidate({ notes: ['boring'] })],
    ];
    for (const [what, candidate] of bad) {
      it(`${what} in the second candidate writes nothing`, async () => {
        const id = crypto.randomUUID();
        const answer = await finish(completed(id, [newCandidate(), candidate], { input_text: TEXT }));
        expectStatus(answer, 400);
        assert.deepEqual(await stored(id), { session: undefined, candidates: [], events: [] });
      });
    }

    it('an event that is too large writes nothing', async () => {
      const id = await openSession(actors.owner);
      const before = await stored(id);
      const answer = await finish({ ...completed(id), event: { text: 'x'.repeat(9000) } });
      expectStatus(answer, 400);
      assert.deepEqual(await stored(id), before);
    });

    it('a candidate id that is taken writes nothing', async () => {
      const taken = newCandidate();
      expectReturned(await finish(completed(await openSession(actors.owner), [taken])), 'completed');
      const id = await openSession(actors.owner);
      expectStatus(await finish(completed(id, [newCandidate(), taken])), 409);
      const { session, candidates } = await stored(id);
      assert.equal(session?.['status'], 'generating');
      assert.deepEqual(candidates, []);
    });
  });

  describe('contradictory outcomes', () => {
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
      it(`the outcome "${what}" is rejected`, async () => {
        const id = await openSession(actors.owner);
        const answer = await finish(args(id));
        expectStatus(answer, 400);
        assert.equal((answer.body as { code: string }).code, '22023');
        assert.equal((await stored(id)).session?.['status'], 'generating');
      });
    }
  });

  it('a text and candidates of the maximum length are stored', async () => {
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
