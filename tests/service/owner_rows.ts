// A user writes their own rows past the service, with their own token: no billed candidate is lost, and no read of the
// service fails or deviates from its documents.

import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { FINISH_PATH } from '../support/gateway.ts';
import type { RestAnswer } from '../support/world.ts';
import { createGate } from '../support/gate.ts';
import { answer } from '../support/model_behaviour.ts';
import { createStream, expectList, lesson, read, type Row, rowsOf, sendRequest, type Service, type SignedIn, signIn, started, type StartService } from './service.ts';

export function tests(start: StartService): void {
  describe('rows of a generating session', () => duringGeneration(start));
  describe('rows that break today’s checks', () => earlierRows(start));
}

function duringGeneration(start: StartService): void {
  const service = started(start, { RATE_LIMIT_BURST: '1000/60' });

  type Attack = (rest: (method: string, path: string, body: unknown) => Promise<RestAnswer>, id: string, shown: Row) => Promise<RestAnswer>;
  const forged = (session_id: string, position: number, more: object = {}) => ({ id: crypto.randomUUID(), session_id, position, front: 'Forged?', back: 'Yes.', prompt: 'p', ...more });

  const attacks: [name: string, attack: Attack][] = [
    ['an event', (rest, session_id) => rest('POST', '/event_logs', { type: 'ai_session.completed', session_id })],
    ['a candidate at position 0', (rest, id) => rest('POST', '/flashcard_candidates', forged(id, 0))],
    ['2000 candidates', (rest, id) => rest('POST', '/flashcard_candidates', Array.from({ length: 2000 }, (_, position) => forged(id, position)))],
    ['a candidate with a streamed id', (rest, id, { id: taken }) => rest('POST', '/flashcard_candidates', forged(id, 1999, { id: taken }))],
    [
      'a candidate with a streamed id in another session',
      async (rest, _, { id: taken }) => {
        const other = { id: crypto.randomUUID(), model: 'test/first', input_text: lesson() };
        assert.equal((await rest('POST', '/ai_generation_sessions', other)).status, 201);
        return rest('POST', '/flashcard_candidates', forged(other.id, 0, { id: taken }));
      },
    ],
  ];
  for (const [name, attack] of attacks) {
    it(`the streamed candidates are stored despite ${name}`, async () => {
      const { world } = service();
      const user = await signIn(service());
      const gate = createGate();
      world.openrouter.next(answer({ hold: { gate, after_candidates: 2 } }));
      const stream = await createStream(service(), user.token);
      const [{ data: session } = { data: undefined }, { data: shown } = { data: undefined }] = await stream.some(3);
      await opened(service(), session.id);
      const writes = world.gateway.requests.count('POST', FINISH_PATH);
      const inserted = await attack(world.rest(user.token), session.id, shown);
      assert.equal(inserted.status, 201, JSON.stringify(inserted.body));
      gate.open();
      const events = await stream.whole();
      expectList(events, 20, 'done');
      const sent = events.slice(1, -1).map(({ data: { index, ...candidate } }) => candidate);

      const found = await read(service(), user.token, session.id);
      assert.deepEqual([found.status, found.body.status, found.body.candidates], [200, 'completed', sent]);
      const { candidates } = await rowsOf(service(), user);
      assert.deepEqual(candidates.map(({ id, session_id, position }) => [id, session_id, position]), sent.map(({ id }, position) => [id, session.id, position]));
      assert.equal(world.gateway.requests.count('POST', FINISH_PATH) - writes, 1);
    });
  }
}

/** Waits for the row of a session: a user cannot add to the session before. */
async function opened({ world }: Service, id: string): Promise<void> {
  for (;;) {
    const rows = await world.sql('select 1 from ai_generation_sessions where id = $1', [id]);
    if (rows.length > 0) return;
  }
}

function earlierRows(start: StartService): void {
  const service = started(start, { RATE_LIMIT_BURST: '1000/60', MAX_CANDIDATES: '3' });
  // The tables before the bounds of 2026-11-27, which exclude such rows.
  before(() =>
    service().world.sql(`
      alter table ai_generation_sessions drop constraint ai_generation_sessions_cost_check;
      alter table ai_generation_sessions drop constraint ai_generation_sessions_created_at_check;
      alter table ai_generation_sessions drop constraint ai_generation_sessions_ended_at_years_check;
    `),
  );

  async function stored(user: SignedIn, row: Row): Promise<string> {
    const id = crypto.randomUUID();
    const columns = { id, user_id: user.id, model: 'test/first', input_text: lesson(), status: 'completed', ...row };
    const names = Object.keys(columns);
    await service().world.sql(
      `insert into ai_generation_sessions (${names.join(', ')}) values (${names.map((_, at) => `$${at + 1}`).join(', ')})`,
      Object.values(columns),
    );
    return id;
  }

  const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
  const [FIRST, LAST] = ['0001-01-01T00:00:00.000Z', '9999-12-31T23:59:59.999Z'];
  const times: [row: Row, created_at: string, ended_at: string][] = [
    [{ created_at: 'infinity', ended_at: '-infinity' }, LAST, FIRST],
    [{ created_at: '294276-12-31T23:59:59Z', ended_at: 'infinity' }, LAST, LAST],
    [{ created_at: '10000-01-01T00:00:00Z', ended_at: '0044-03-15T00:00:00Z BC' }, LAST, FIRST],
    [{ created_at: '2026-11-27T10:00:00.123456Z', ended_at: '9999-12-31T23:59:59.999999Z' }, '2026-11-27T10:00:00.123Z', LAST],
    [{ created_at: '-infinity', ended_at: '0001-01-01T00:00:00Z' }, FIRST, FIRST],
  ];

  it('rows with odd times have RFC 3339 in every response', async () => {
    const user = await signIn(service());
    for (const [row, created_at, ended_at] of times) {
      const { body, text } = await read(service(), user.token, await stored(user, row));
      assert.deepEqual([body.created_at, body.ended_at], [created_at, ended_at], text);
    }
    const { body } = await sendRequest(service(), 'GET', '/ai-sessions', { token: user.token });
    assert.equal(body.sessions.length, times.length);
    for (const { created_at, ended_at } of body.sessions) for (const time of [created_at, ended_at]) assert.match(time, RFC_3339);
  });

  it('rows with odd times do not hide the others from a list', async () => {
    const user = await signIn(service());
    for (const [row] of times.slice(0, 4)) await stored(user, row);
    const newest = await stored(user, { created_at: '2026-11-27T11:00:00Z', ended_at: '2026-11-27T11:00:09Z' });
    const first = await sendRequest(service(), 'GET', '/ai-sessions?limit=3', { token: user.token });
    const next = await sendRequest(service(), 'GET', `/ai-sessions?limit=3&before=${first.body.next}`, { token: user.token });
    assert.equal(next.status, 200, next.text);
    assert.equal(next.body.sessions[0].id, newest);
    assert.equal(next.body.next, null);
  });

  for (const cost of [`1${'0'.repeat(400)}`, `0.${'0'.repeat(400)}1`, '1e131071', 'NaN', 'Infinity']) {
    it(`rows with a cost of ${cost.slice(0, 12)} can be read and listed`, async () => {
      const user = await signIn(service());
      const id = await stored(user, { created_at: '2026-11-27T10:00:00Z', ended_at: '2026-11-27T10:00:09Z', prompt_tokens: 7, cost });
      const found = await read(service(), user.token, id);
      assert.deepEqual([found.status, found.body.usage.prompt_tokens], [200, 7], found.text);
      assert.ok(Number.isFinite(found.body.usage.cost));
      const list = await sendRequest(service(), 'GET', '/ai-sessions', { token: user.token });
      assert.deepEqual([list.status, list.body.sessions.map(({ id }: Row) => id)], [200, [id]]);
    });
  }

  it('up to MAX_CANDIDATES inserted candidates are read', async () => {
    const user = await signIn(service());
    const id = await stored(user, { created_at: '2026-11-27T10:00:00Z', ended_at: '2026-11-27T10:00:09Z' });
    await service().world.sql(
      `insert into flashcard_candidates (id, session_id, user_id, position, front, back, prompt)
       select gen_random_uuid(), $1, $2, n, repeat('𝔉', 199) || n % 10, repeat('𝔅', 500), repeat('𝔓', 500) from generate_series(0, 1999) as n`,
      [id, user.id],
    );
    const found = await read(service(), user.token, id);
    assert.equal(found.status, 200, found.text.slice(0, 300));
    assert.deepEqual(found.body.candidates.map(({ front }: Row) => front.slice(-1)), ['0', '1', '2']);
  });

  for (const created_at of ['2099-01-01T00:00:00Z', 'infinity']) {
    it(`a session opened at ${created_at} is ended as an orphan`, async () => {
      const user = await signIn(service());
      const id = await stored(user, { status: 'generating', created_at });
      const { status, body, text } = await read(service(), user.token, id);
      assert.deepEqual([status, body.status, body.error], [200, 'failed', 'database_error'], text);
    });
  }
}
