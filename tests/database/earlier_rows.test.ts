// The migrations on a database with rows that users wrote past the service before the tables had bounds.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Database, startDatabase } from '../support/database.ts';
import { TEXT } from './actors.ts';

const USER = '00000000-0000-4000-8000-000000000001';
const GOOD = '00000000-0000-4000-8000-0000000000aa';

type Session = { created_at: string; ended_at?: string; cost?: string };

const sessions: Record<string, Session> = {
  [GOOD]: { created_at: '2026-11-26T10:00:00.123456Z', ended_at: '2026-11-26T10:00:09Z', cost: '0.000123' },
  '00000000-0000-4000-8000-000000000011': { created_at: 'infinity', ended_at: '-infinity', cost: `1${'0'.repeat(400)}` },
  '00000000-0000-4000-8000-000000000012': { created_at: '-infinity', ended_at: 'infinity', cost: `0.${'0'.repeat(400)}1` },
  '00000000-0000-4000-8000-000000000013': { created_at: '0044-03-15T00:00:00Z BC', ended_at: '2026-11-26T10:00:09Z', cost: '1000000.5' },
  '00000000-0000-4000-8000-000000000014': { created_at: '294276-12-31T23:59:59Z' },
};

describe('the bounds of 2026-11-27 on earlier rows', () => {
  let database: Database;
  before(async () => {
    database = await startDatabase('20261127');
    const { sql } = database;
    await sql('insert into auth.users (id) values ($1)', [USER]);
    for (const [id, { created_at, ended_at = null, cost = null }] of Object.entries(sessions)) {
      await sql(
        `insert into public.ai_generation_sessions (id, user_id, status, model, input_text, created_at, ended_at, cost)
         values ($1, $2, $3, 'stand-in/model', $4, $5, $6, $7)`,
        [id, USER, ended_at === null ? 'generating' : 'completed', TEXT, created_at, ended_at, cost],
      );
    }
    await sql(
      `insert into public.flashcard_candidates (id, session_id, user_id, position, front, back, prompt)
       select gen_random_uuid(), $1, $2, position, 'Front?', 'Back.', 'Tests it.' from unnest('{0,1999,2000,32767}'::int[]) as position`,
      [GOOD, USER],
    );
    await sql(
      `insert into public.event_logs (user_id, session_id, type, run)
       select $2, $1, 'ai_session.failed', run from unnest('{1,1000,1001,2147483647}'::int[]) as run`,
      [GOOD, USER],
    );
    await sql(
      `insert into public.event_logs (user_id, type, data, created_at)
       select $1, 'ai_session.rate_limited', jsonb_build_object('policy', policy, 'number', number), time::timestamptz
       from unnest('{burst,generations,mine,yours}'::text[]) as policy,
            unnest('{2026-11-26 10:00:00Z,2026-11-26 10:00:59Z,2026-11-26 10:01:00Z}'::text[]) as time,
            generate_series(1, 2) as number`,
      [USER],
    );
    await database.migrate();
  });
  after(() => database.stop());

  it('figures and times become the nearest allowed ones', async () => {
    const rows = await database.sql<{ id: string; created_at: Date; ended_at: Date | null; cost: string | null }>(
      `select id, created_at, ended_at, cost from public.ai_generation_sessions order by id`,
    );
    const now = Date.now();
    const timeName = (time: Date | null) => (time === null ? null : Math.abs(time.getTime() - now) < 3_600_000 ? 'now' : time.toISOString());
    assert.deepEqual(
      rows.map(({ id, created_at, ended_at, cost }) => [id.slice(-2), timeName(created_at), timeName(ended_at), cost]),
      [
        ['11', 'now', '2020-01-01T00:00:00.000Z', '1000000'],
        ['12', '2020-01-01T00:00:00.000Z', 'now', '0'],
        ['13', '2020-01-01T00:00:00.000Z', '2026-11-26T10:00:09.000Z', '1000000'],
        ['14', 'now', null, null],
        ['aa', '2026-11-26T10:00:00.123Z', '2026-11-26T10:00:09.000Z', '0.000123'],
      ],
    );
  });

  it('the first 2000 positions and 1000 runs of a session are kept', async () => {
    const positions = await database.sql<{ position: number }>('select position from public.flashcard_candidates order by 1');
    assert.deepEqual(positions.map(({ position }) => position), [0, 1999]);
    const runs = await database.sql<{ run: number }>('select run from public.event_logs where session_id is not null order by 1');
    assert.deepEqual(runs.map(({ run }) => run), [1, 1000]);
  });

  it('the first event of a limit in a minute is kept', async () => {
    const events = await database.sql<{ policy: string; number: string; minute: string }>(
      `select data ->> 'policy' as policy, data ->> 'number' as number, to_char(created_at at time zone 'utc', 'HH24:MI') as minute
       from public.event_logs where session_id is null order by created_at, id`,
    );
    assert.deepEqual(
      events.map(({ policy, number, minute }) => `${minute} ${policy} ${number}`).sort(),
      ['10:00 burst 1', '10:00 generations 1', '10:00 mine 1', '10:01 burst 1', '10:01 generations 1', '10:01 mine 1'],
    );
  });

  it('an ended session still cannot be changed', async () => {
    await assert.rejects(database.sql('update public.ai_generation_sessions set cost = 0 where id = $1', [GOOD]), { code: '42501' });
  });
});

describe('the columns of 2026-11-28 on earlier rows', () => {
  let database: Database;
  before(async () => {
    database = await startDatabase('20261128130000');
    const { sql } = database;
    await sql('insert into auth.users (id) values ($1)', [USER]);
    await sql(
      `insert into public.ai_generation_sessions (id, user_id, status, model, input_text, ended_at) values ($1, $2, 'completed', 'stand-in/model', $3, now())`,
      [GOOD, USER, TEXT],
    );
    await sql(
      `insert into public.flashcard_candidates (id, session_id, user_id, position, front, back, prompt)
       values (gen_random_uuid(), $1, $2, 0, 'Front?', 'Back.', 'Tests it.')`,
      [GOOD, USER],
    );
    await database.migrate();
  });
  after(() => database.stop());

  it('an earlier candidate has no source and no notes', async () => {
    const rows = await database.sql('select source_start, source_end, supported, notes from public.flashcard_candidates');
    assert.deepEqual(rows, [{ source_start: null, source_end: null, supported: null, notes: [] }]);
  });

  it('an earlier session has no coverage', async () => {
    const rows = await database.sql('select coverage_percent from public.ai_generation_sessions');
    assert.deepEqual(rows, [{ coverage_percent: null }]);
  });
});
