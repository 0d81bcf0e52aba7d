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

/** The changes of a row when the second run begins. */
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
    it('the owner opens a generating session without naming the user', async () => {
      const id = await openSession(actors.owner);
      const [row] = expectRows(await actors.owner.rest('GET', `${SESSIONS}?id=eq.${id}`), 1);
      assert.equal(row?.['user_id'], actors.owner.id);
      assert.equal(row?.['status'], 'generating');
      assert.equal(row?.['run'], 1);
      assert.equal(row?.['partial'], false);
      assert.equal(row?.['ended_at'], null);
    });

    it('the owner cannot open a session twice', async () => {
      const id = await openSession(actors.owner);
      expectStatus(await actors.owner.rest('POST', SESSIONS, newSession({ id })), 409);
    });

    it('the owner cannot open a session for another user', async () => {
      const forged = newSession({ user_id: actors.stranger.id });
      expectForbidden(await actors.owner.rest('POST', SESSIONS, forged));
    });

    it('the owner cannot open an ended session', async () => {
      const ended = newSession({ status: 'completed' });
      expectForbidden(await actors.owner.rest('POST', SESSIONS, ended));
      const withEnd = newSession({ ended_at: '2026-01-01T00:00:00Z' });
      expectForbidden(await actors.owner.rest('POST', SESSIONS, withEnd));
    });

    it('the owner ends a generating session', async () => {
      const id = await openSession(actors.owner);
      const end = { status: 'failed', error_code: 'ai_timeout', ended_at: '2030-01-01T00:00:00Z' };
      const answer = await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, end, RETURN_ROWS);
      expectRows(answer, 1);
    });

    it('the owner ends a session with a coverage', async () => {
      for (const coverage_percent of [null, 0, 100]) {
        const id = await openSession(actors.owner);
        const end = { status: 'completed', ended_at: '2030-01-01T00:00:00Z', coverage_percent };
        const [row] = expectRows(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, end, RETURN_ROWS), 1);
        assert.equal(row?.['coverage_percent'], coverage_percent);
        expectRows(await actors.stranger.rest('PATCH', `${SESSIONS}?id=eq.${id}`, { coverage_percent: 50 }, RETURN_ROWS), 0);
      }
    });

    it('the owner cannot change an ended session', async () => {
      const id = await endedSession(actors.owner);
      const before = await world.sql('select * from public.ai_generation_sessions where id = $1', [id]);
      for (const change of [{ partial: true }, { status: 'generating', ended_at: null }, { cost: 0 }]) {
        const answer = await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, change, RETURN_ROWS);
        expectRows(answer, 0);
      }
      assert.deepEqual(await world.sql('select * from public.ai_generation_sessions where id = $1', [id]), before);
    });

    it('the owner reopens a retryable failure for a later run', async () => {
      const id = await endedSession(actors.owner, failed);
      expectRows(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, REOPENED, RETURN_ROWS), 1);
    });

    it('the owner cannot reopen a final failure or a completed session', async () => {
      for (const how of [(id: string) => failed(id, 'ai_refused'), (id: string) => completed(id)]) {
        const id = await endedSession(actors.owner, how);
        expectRows(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, REOPENED, RETURN_ROWS), 0);
      }
    });

    describe('other changes of a retryable failure', () => {
      const changes: [string, object][] = [
        ['another failure', { error_code: 'ai_refused' }],
        ['a completion', { status: 'completed', error_code: null }],
        ['a cost of zero', { cost: 0 }],
        ['a later run', { run: 2 }],
        ['a failure of a later run', { ...REOPENED, status: 'failed', error_code: 'ai_timeout', ended_at: '2030-01-01T00:00:00Z' }],
        ['generating in the same run', { ...REOPENED, run: 1 }],
        ['generating with the old tokens', { ...REOPENED, prompt_tokens: 512 }],
        ['generating with the old cost', { ...REOPENED, cost: 0.1 }],
      ];
      for (const [what, change] of changes) {
        it(`a retryable failure cannot be changed to ${what}`, async () => {
          const id = await endedSession(actors.owner, failed);
          const before = await storedRows(world, id);
          expectForbidden(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, change));
          assert.deepEqual(await storedRows(world, id), before);
        });
      }
    });

    it('the owner cannot decrease a run, nor end one that did not begin', async () => {
      const id = await openSession(actors.owner, { run: 2 });
      expectForbidden(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, { run: 1 }));
      const end = { status: 'failed', error_code: 'ai_timeout', ended_at: '2030-01-01T00:00:00Z', run: 3 };
      expectForbidden(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, end));
    });

    it('the owner cannot change the input or the user', async () => {
      const id = await openSession(actors.owner);
      const changes = { id: crypto.randomUUID(), user_id: actors.stranger.id, model: 'x', input_text: 'y', created_at: 'now' };
      for (const [column, value] of Object.entries(changes)) {
        expectForbidden(await actors.owner.rest('PATCH', `${SESSIONS}?id=eq.${id}`, { [column]: value }));
      }
    });

    it('the owner cannot delete a session', async () => {
      const id = await openSession(actors.owner);
      expectForbidden(await actors.owner.rest('DELETE', `${SESSIONS}?id=eq.${id}`));
    });
  });

  describe('a stranger', () => {
    it('a stranger cannot read the session', async () => {
      const id = await openSession(actors.owner);
      expectRows(await actors.stranger.rest('GET', `${SESSIONS}?id=eq.${id}`), 0);
    });

    it('a stranger cannot end the session', async () => {
      const id = await openSession(actors.owner);
      const end = { status: 'failed', error_code: 'x', ended_at: '2030-01-01T00:00:00Z' };
      expectRows(await actors.stranger.rest('PATCH', `${SESSIONS}?id=eq.${id}`, end, RETURN_ROWS), 0);
      const rows = await world.sql('select status from public.ai_generation_sessions where id = $1', [id]);
      assert.deepEqual(rows, [{ status: 'generating' }]);
    });

    it('a stranger cannot reopen the session', async () => {
      const id = await endedSession(actors.owner, failed);
      const before = await storedRows(world, id);
      expectRows(await actors.stranger.rest('PATCH', `${SESSIONS}?id=eq.${id}`, REOPENED, RETURN_ROWS), 0);
      assert.deepEqual(await storedRows(world, id), before);
    });

    it('a stranger cannot take the session over by an upsert', async () => {
      const id = await openSession(actors.owner);
      const answer = await actors.stranger.rest('POST', `${SESSIONS}?on_conflict=id`, newSession({ id }), {
        prefer: 'resolution=merge-duplicates',
      });
      expectForbidden(answer);
    });

    it('a stranger cannot delete the session', async () => {
      const id = await openSession(actors.owner);
      expectForbidden(await actors.stranger.rest('DELETE', `${SESSIONS}?id=eq.${id}`));
    });
  });

  it('a client without a token has no access to sessions', async () => {
    const id = await openSession(actors.owner);
    expectForbidden(await actors.anonymous('GET', SESSIONS));
    expectForbidden(await actors.anonymous('POST', SESSIONS, newSession({ user_id: actors.owner.id })));
    expectForbidden(await actors.anonymous('PATCH', `${SESSIONS}?id=eq.${id}`, { partial: true }));
    expectForbidden(await actors.anonymous('PATCH', `${SESSIONS}?id=eq.${id}`, REOPENED));
    expectForbidden(await actors.anonymous('DELETE', `${SESSIONS}?id=eq.${id}`));
  });

  it('the service key has no access to sessions', async () => {
    expectForbidden(await world.rest(world.serviceKey)('GET', SESSIONS));
  });

  describe('the length in characters', () => {
    const emoji = '\u{1F600}';
    for (const [length, fits] of [[999, false], [1000, true], [10_000, true], [10_001, false]] as const) {
      it(`a text of ${length} astral characters is ${fits ? 'accepted' : 'rejected'}`, async () => {
        const answer = await actors.owner.rest('POST', SESSIONS, newSession({ input_text: emoji.repeat(length) }));
        if (fits) expectStatus(answer, 201);
        else expectRefusedBy(answer, 'ai_generation_sessions_input_text_length_check');
      });
    }
  });

  describe('a text that is not sanitized', () => {
    const body = 'x'.repeat(1000);
    // Every character of Unicode White_Space that is not a control character, and the two that are allowed inside.
    for (const space of '\t\n \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000') {
      it(`a text is rejected with ${codePoint(space)} at an end, not inside`, async () => {
        const trimmed = 'ai_generation_sessions_input_text_trimmed_check';
        expectRefusedBy(await actors.owner.rest('POST', SESSIONS, newSession({ input_text: space + body })), trimmed);
        expectRefusedBy(await actors.owner.rest('POST', SESSIONS, newSession({ input_text: body + space })), trimmed);
        expectStatus(await actors.owner.rest('POST', SESSIONS, newSession({ input_text: body + space + body })), 201);
      });
    }
    for (const hidden of ['\u0001', '\b', '\v', '\f', '\r', '\u001f', '\u007f', '\u0080', '\u0085', '\u009f', '\ufeff', '\u{E0000}', '\u{E007F}']) {
      it(`a text with ${codePoint(hidden)} is rejected`, async () => {
        const answer = await actors.owner.rest('POST', SESSIONS, newSession({ input_text: body + hidden + body }));
        expectRefusedBy(answer, 'ai_generation_sessions_input_text_clean_check');
      });
    }
    for (const kept of ['\u00a1', '\u200b', '\u200d', '\ufefe', '\ufffd', '\u{E0080}', '\u{10FFFF}']) {
      it(`a text with ${codePoint(kept)} is accepted`, async () => {
        expectStatus(await actors.owner.rest('POST', SESSIONS, newSession({ input_text: body + kept + body })), 201);
      });
    }
    it('Postgres rejects U+0000', async () => {
      const answer = await actors.owner.rest('POST', SESSIONS, newSession({ input_text: `${body}\u0000` }));
      expectStatus(answer, 400);
      assert.equal((answer.body as { code: string }).code, '22P05');
    });
  });

  describe('checks of a row', () => {
    const ENDED = '2030-01-01T00:00:00Z';
    const invalid: [string, object, string][] = [
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
      ['a coverage over 100 %', { status: 'completed', ended_at: ENDED, coverage_percent: 101 }, 'coverage_percent_check'],
      ['a negative coverage', { status: 'completed', ended_at: ENDED, coverage_percent: -1 }, 'coverage_percent_check'],
      ['a coverage while generating', { coverage_percent: 0 }, 'coverage_percent_check'],
      ['a coverage of a failure', { status: 'failed', error_code: 'x', ended_at: ENDED, coverage_percent: 0 }, 'coverage_percent_check'],
      ['an infinite end', { status: 'failed', error_code: 'x', ended_at: 'infinity' }, 'ended_at_years_check'],
      ['an end of -infinity', { status: 'failed', error_code: 'x', ended_at: '-infinity' }, 'ended_at_years_check'],
      ['an end before Christ', { status: 'failed', error_code: 'x', ended_at: '0044-03-15T00:00:00Z BC' }, 'ended_at_years_check'],
      ['an end in the year 2100', { status: 'failed', error_code: 'x', ended_at: '2100-01-01T00:00:00Z' }, 'ended_at_years_check'],
    ];
    for (const [what, change, constraint] of invalid) {
      it(`a session with ${what} is rejected`, async () => {
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
      it(`a session opened at ${created_at} is ${fits ? 'accepted' : 'rejected'}`, async () => {
        const answer = await actors.owner.rest('POST', SESSIONS, newSession({ created_at }));
        if (fits) expectStatus(answer, 201);
        else expectRefusedBy(answer, 'ai_generation_sessions_created_at_check');
      });
    }
    it('a session with run 0 is rejected', async () => {
      const answer = await actors.owner.rest('POST', SESSIONS, newSession({ run: 0 }));
      expectRefusedBy(answer, 'ai_generation_sessions_run_check');
    });
    for (const [length, fits] of [[0, false], [1, true], [200, true], [201, false]] as const) {
      it(`a model id of ${length} characters is ${fits ? 'accepted' : 'rejected'}`, async () => {
        const answer = await actors.owner.rest('POST', SESSIONS, newSession({ model: 'm'.repeat(length) }));
        if (fits) expectStatus(answer, 201);
        else expectRefusedBy(answer, 'ai_generation_sessions_model_check');
      });
    }
  });

  it('an ended session cannot be changed by the database roles either', async () => {
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

  it('a deleted user’s sessions, candidates and events are deleted', async () => {
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
