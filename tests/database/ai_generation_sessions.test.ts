import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startWorld, type World } from '../support/world.ts';
import {
  type Actors,
  completed,
  createActors,
  endedSession,
  expectForbidden,
  expectRefusedBy,
  expectRows,
  expectStatus,
  failed,
  newSession,
  openSession,
  RETURN_ROWS,
  SESSIONS,
  storedRows,
} from './actors.ts';

/** What a row is changed to when the run after the first begins. */
const REOPENED = {
  status: 'generating',
  run: 2,
  error_code: null,
  ended_at: null,
  prompt_tokens: null,
  completion_tokens: null,
  cost: null,
};

describe('ai_generation_sessions', () => {
  let world: World;
  let actors: Actors;
  before(async () => {
    world = await startWorld({ model: false });
    actors = await createActors(world);
  });
  after(() => world.close());

  describe('the owner', () => {
    it('opens a session, generating and their own without saying so', async () => {
      const id = await openSession(actors.owner);
      const [row] = expectRows(await actors.owner.rest('GET', `${SESSIONS}?id=eq.${id}`), 1);
      assert.equal(row?.['user_id'], actors.owner.id);
      assert.equal(row?.['status'], 'generating');
      assert.equal(row?.['run'], 1);
      assert.equal(row?.['partial'], false);
      assert.equal(row?.['ended_at'], null);
    });

    it('cannot open one twice', async () => {
      const id = await openSession(actors.owner);
      expectStatus(await actors.owner.rest('POST', SESSIONS, newSession({ id })), 409);
    });

    it('cannot open one for another user', async () => {
      const forged = newSession({ user_id: actors.stranger.id });
      expectForbidden(await actors.owner.rest('POST', SESSIONS, forged));
    });

    it('cannot open one that has already ended', async () => {
      const ended = newSession({ status: 'completed' });
      expectForbidden(await actors.owner.rest('POST', SESSIONS, ended));
      const withEnd = newSession({ ended_at: '2026-01-01T00:00:00Z' });
      expectForbidden(await actors.owner.rest('POST', SESSIONS, withEnd));
    });

    it('ends one that is generating', async () => {
      const id = await openSession(actors.owner);
      const end = { status: 'failed', error_code: 'ai_timeout', ended_at: '2030-01-01T00:00:00Z' };
      const answer = await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, end, RETURN_ROWS);
      expectRows(answer, 1);
    });

    it('cannot rewrite one that has ended', async () => {
      const id = await endedSession(actors.owner);
      const before = await world.sql('select * from public.ai_generation_sessions where id = $1', [id]);
      for (const change of [{ partial: true }, { status: 'generating', ended_at: null }, { cost: 0 }]) {
        const answer = await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, change, RETURN_ROWS);
        expectRows(answer, 0);
      }
      assert.deepEqual(await world.sql('select * from public.ai_generation_sessions where id = $1', [id]), before);
    });

    it('reopens one that failed and can be tried again, for a later run', async () => {
      const id = await endedSession(actors.owner, failed);
      expectRows(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, REOPENED, RETURN_ROWS), 1);
    });

    it('cannot reopen one that failed for good or is completed', async () => {
      for (const how of [(id: string) => failed(id, 'ai_refused'), (id: string) => completed(id)]) {
        const id = await endedSession(actors.owner, how);
        expectRows(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, REOPENED, RETURN_ROWS), 0);
      }
    });

    describe('cannot make anything else of one that can be tried again', () => {
      const changes: [string, object][] = [
        ['another failure', { error_code: 'ai_refused' }],
        ['a completed one', { status: 'completed', error_code: null }],
        ['one that cost nothing', { cost: 0 }],
        ['one of a later run', { run: 2 }],
        ['a failure of a later run', { ...REOPENED, status: 'failed', error_code: 'ai_timeout', ended_at: '2030-01-01T00:00:00Z' }],
        ['one that generates in the same run', { ...REOPENED, run: 1 }],
        ['one that generates with the tokens of before', { ...REOPENED, prompt_tokens: 512 }],
        ['one that generates with the cost of before', { ...REOPENED, cost: 0.1 }],
      ];
      for (const [what, change] of changes) {
        it(what, async () => {
          const id = await endedSession(actors.owner, failed);
          const before = await storedRows(world, id);
          expectForbidden(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, change));
          assert.deepEqual(await storedRows(world, id), before);
        });
      }
    });

    it('cannot take a run back, nor end one that did not begin', async () => {
      const id = await openSession(actors.owner, { run: 2 });
      expectForbidden(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, { run: 1 }));
      const end = { status: 'failed', error_code: 'ai_timeout', ended_at: '2030-01-01T00:00:00Z', run: 3 };
      expectForbidden(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, end));
    });

    it('cannot change what was asked, nor whose it is', async () => {
      const id = await openSession(actors.owner);
      const changes = { id: crypto.randomUUID(), user_id: actors.stranger.id, model: 'x', input_text: 'y', created_at: 'now' };
      for (const [column, value] of Object.entries(changes)) {
        expectForbidden(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, { [column]: value }));
      }
    });

    it('cannot delete one', async () => {
      const id = await openSession(actors.owner);
      expectForbidden(await actors.owner.rest('DELETE', `${SESSIONS}?id=eq.${id}`));
    });
  });

  describe('a stranger', () => {
    it('does not see it', async () => {
      const id = await openSession(actors.owner);
      expectRows(await actors.stranger.rest('GET', `${SESSIONS}?id=eq.${id}`), 0);
    });

    it('cannot end it', async () => {
      const id = await openSession(actors.owner);
      const end = { status: 'failed', error_code: 'x', ended_at: '2030-01-01T00:00:00Z' };
      expectRows(await actors.stranger.rest('PATCH', `${SESSIONS}?id=eq.${id}`, end, RETURN_ROWS), 0);
      const rows = await world.sql('select status from public.ai_generation_sessions where id = $1', [id]);
      assert.deepEqual(rows, [{ status: 'generating' }]);
    });

    it('cannot reopen it', async () => {
      const id = await endedSession(actors.owner, failed);
      const before = await storedRows(world, id);
      expectRows(await actors.stranger.rest('PATCH', `${SESSIONS}?id=eq.${id}`, REOPENED, RETURN_ROWS), 0);
      assert.deepEqual(await storedRows(world, id), before);
    });

    it('cannot take it over by an upsert', async () => {
      const id = await openSession(actors.owner);
      const answer = await actors.stranger.rest('POST', `${SESSIONS}?on_conflict=id`, newSession({ id }), {
        prefer: 'resolution=merge-duplicates',
      });
      expectForbidden(answer);
    });

    it('cannot delete it', async () => {
      const id = await openSession(actors.owner);
      expectForbidden(await actors.stranger.rest('DELETE', `${SESSIONS}?id=eq.${id}`));
    });
  });

  it('gives somebody without a token nothing', async () => {
    const id = await openSession(actors.owner);
    expectForbidden(await actors.anonymous('GET', SESSIONS));
    expectForbidden(await actors.anonymous('POST', SESSIONS, newSession({ user_id: actors.owner.id })));
    expectForbidden(await actors.anonymous('PATCH', `${SESSIONS}?id=eq.${id}`, { partial: true }));
    expectForbidden(await actors.anonymous('PATCH', `${SESSIONS}?id=eq.${id}`, REOPENED));
    expectForbidden(await actors.anonymous('DELETE', `${SESSIONS}?id=eq.${id}`));
  });

  it('gives the service key nothing either', async () => {
    expectForbidden(await world.rest(world.serviceKey)('GET', SESSIONS));
  });

  describe('counts characters, not bytes and not UTF-16 units', () => {
    const emoji = '\u{1F600}';
    for (const [length, fits] of [[999, false], [1000, true], [10_000, true], [10_001, false]] as const) {
      it(`${length} astral characters ${fits ? 'fit' : 'do not fit'}`, async () => {
        const answer = await actors.owner.rest('POST', SESSIONS, newSession({ input_text: emoji.repeat(length) }));
        if (fits) expectStatus(answer, 201);
        else expectRefusedBy(answer, 'ai_generation_sessions_input_text_length_check');
      });
    }
  });

  describe('refuses a text that the service would have sanitized', () => {
    const body = 'x'.repeat(1000);
    // Every character of Unicode White_Space that is not a control character, and the two that are allowed inside.
    for (const space of '\t\n \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000') {
      it(`${codePoint(space)} at an end, not inside`, async () => {
        const trimmed = 'ai_generation_sessions_input_text_trimmed_check';
        expectRefusedBy(await actors.owner.rest('POST', SESSIONS, newSession({ input_text: space + body })), trimmed);
        expectRefusedBy(await actors.owner.rest('POST', SESSIONS, newSession({ input_text: body + space })), trimmed);
        expectStatus(await actors.owner.rest('POST', SESSIONS, newSession({ input_text: body + space + body })), 201);
      });
    }
    for (const hidden of ['\u0001', '\b', '\v', '\f', '\r', '\u001f', '\u007f', '\u0080', '\u0085', '\u009f', '\ufeff', '\u{E0000}', '\u{E007F}']) {
      it(`${codePoint(hidden)} anywhere`, async () => {
        const answer = await actors.owner.rest('POST', SESSIONS, newSession({ input_text: body + hidden + body }));
        expectRefusedBy(answer, 'ai_generation_sessions_input_text_clean_check');
      });
    }
    for (const kept of ['\u00a1', '\u200b', '\u200d', '\ufefe', '\ufffd', '\u{E0080}', '\u{10FFFF}']) {
      it(`but takes ${codePoint(kept)}`, async () => {
        expectStatus(await actors.owner.rest('POST', SESSIONS, newSession({ input_text: body + kept + body })), 201);
      });
    }
    it('U+0000 is no text for Postgres at all', async () => {
      const answer = await actors.owner.rest('POST', SESSIONS, newSession({ input_text: `${body}\u0000` }));
      expectStatus(answer, 400);
      assert.equal((answer.body as { code: string }).code, '22P05');
    });
  });

  describe('keeps a row that makes sense', () => {
    const ENDED = '2030-01-01T00:00:00Z';
    const senseless: [string, object, string][] = [
      ['an unknown status', { status: 'paused', ended_at: ENDED }, 'status_check'],
      ['an end while generating', { ended_at: ENDED }, 'ended_at_check'],
      ['completed without an end', { status: 'completed' }, 'ended_at_check'],
      ['failed without a code', { status: 'failed', ended_at: ENDED }, 'error_code_check'],
      ['completed with a code', { status: 'completed', error_code: 'x', ended_at: ENDED }, 'error_code_check'],
      ['a sentence as a code', { status: 'failed', error_code: 'Oh no.', ended_at: ENDED }, 'error_code_form_check'],
      ['failed and partial', { status: 'failed', error_code: 'x', partial: true, ended_at: ENDED }, 'partial_check'],
      ['negative prompt tokens', { prompt_tokens: -1 }, 'prompt_tokens_check'],
      ['negative completion tokens', { completion_tokens: -1 }, 'completion_tokens_check'],
      ['a negative cost', { cost: -0.01 }, 'cost_check'],
      ['a cost that is no number', { cost: 'NaN' }, 'cost_check'],
      ['an infinite cost', { cost: 'Infinity' }, 'cost_check'],
      ['a cost over a million', { cost: '1000000.1' }, 'cost_check'],
      ['a cost of 400 digits', { cost: `1${'0'.repeat(400)}` }, 'cost_check'],
      ['a cost with 13 decimals', { cost: '0.0000000000001' }, 'cost_check'],
      ['an end that never comes', { status: 'failed', error_code: 'x', ended_at: 'infinity' }, 'ended_at_years_check'],
      ['an end before all time', { status: 'failed', error_code: 'x', ended_at: '-infinity' }, 'ended_at_years_check'],
      ['an end before Christ', { status: 'failed', error_code: 'x', ended_at: '0044-03-15T00:00:00Z BC' }, 'ended_at_years_check'],
      ['an end in the year 2100', { status: 'failed', error_code: 'x', ended_at: '2100-01-01T00:00:00Z' }, 'ended_at_years_check'],
    ];
    for (const [what, change, constraint] of senseless) {
      it(`not ${what}`, async () => {
        const id = await openSession(actors.owner);
        const answer = await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, change);
        expectRefusedBy(answer, `ai_generation_sessions_${constraint}`);
      });
    }
    const times: [created_at: string, fits: boolean][] = [
      ['infinity', false],
      ['-infinity', false],
      ['0044-03-15T00:00:00Z BC', false],
      ['2019-12-31T23:59:59.999999Z', false],
      ['2020-01-01T00:00:00Z', true],
      ['2099-12-31T23:59:59.999999Z', true],
      ['2100-01-01T00:00:00Z', false],
      ['294276-12-31T23:59:59.999999Z', false],
    ];
    for (const [created_at, fits] of times) {
      it(`${fits ? '' : 'not '}one opened at ${created_at}`, async () => {
        const answer = await actors.owner.rest('POST', SESSIONS, newSession({ created_at }));
        if (fits) expectStatus(answer, 201);
        else expectRefusedBy(answer, 'ai_generation_sessions_created_at_check');
      });
    }
    it('not a run before the first', async () => {
      const answer = await actors.owner.rest('POST', SESSIONS, newSession({ run: 0 }));
      expectRefusedBy(answer, 'ai_generation_sessions_run_check');
    });
    for (const [length, fits] of [[0, false], [1, true], [200, true], [201, false]] as const) {
      it(`${fits ? '' : 'not '}a model id of ${length} characters`, async () => {
        const answer = await actors.owner.rest('POST', SESSIONS, newSession({ model: 'm'.repeat(length) }));
        if (fits) expectStatus(answer, 201);
        else expectRefusedBy(answer, 'ai_generation_sessions_model_check');
      });
    }
  });

  it('that has ended stays as it is for the database\'s own roles too', async () => {
    const reopening =
      "status = 'generating', run = 2, error_code = null, ended_at = null, prompt_tokens = null, completion_tokens = null, cost = null";
    for (const how of [(id: string) => failed(id, 'ai_refused'), (id: string) => completed(id)]) {
      const id = await endedSession(actors.owner, how);
      for (const change of ['cost = 0', reopening]) {
        const changed = world.sql(`update public.ai_generation_sessions set ${change} where id = $1`, [id]);
        await assert.rejects(changed, { code: '42501' });
      }
    }
  });

  it('goes with its user, and takes candidates and events along', async () => {
    const { owner } = await createActors(world);
    const id = await endedSession(owner);
    await world.sql('delete from auth.users where id = $1', [owner.id]);
    const left = await world.sql(
      `select (select count(*)::int from public.ai_generation_sessions where id = $1) as sessions,
              (select count(*)::int from public.flashcard_candidates where session_id = $1) as candidates,
              (select count(*)::int from public.event_logs where session_id = $1) as events`,
      [id],
    );
    assert.deepEqual(left, [{ sessions: 0, candidates: 0, events: 0 }]);
  });
});

function codePoint(char: string): string {
  return `U+${char.codePointAt(0)?.toString(16).toUpperCase().padStart(4, '0')}`;
}
