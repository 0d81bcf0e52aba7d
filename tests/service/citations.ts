// Where a candidate comes from: source, support, notes and coverage, the same in every response mode and in later reads. The rule
// itself: tests/core and tests/quality.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseEvents } from '../support/event_stream.ts';
import { FINISH_PATH } from '../support/gateway.ts';
import { answer, type ModelBehaviour } from '../support/model_behaviour.ts';
import { candidateOf, create, createStream, eventually, expectProblem, read, type Row, rowsOf, sendRequest, signIn, started, type StartService, subscribe } from './service.ts';

const COUNT = 20;
/** Sentences with characters of two UTF-16 units, each a passage of its own. */
const sentence = (n: number) => `Planet 🪐 number ${n} of the catalogue circles its star in exactly ${n * 17 + 3} days.`;
const input_text = Array.from({ length: COUNT }, (_, i) => sentence(i + 1)).join(' ');
const body = { input_text, model: 'test/first' };

/** The range of the sentences from one number to another, in characters. */
function sourceOf(first: number, last = first): { start: number; end: number } {
  const before = Array.from({ length: first - 1 }, (_, i) => `${sentence(i + 1)} `).join('');
  const within = Array.from({ length: last - first + 1 }, (_, i) => sentence(first + i)).join(' ');
  return { start: [...before].length, end: [...before].length + [...within].length };
}

/** The passage of a source, as a caller finds it. */
const passage = ({ start, end }: { start: number; end: number }) => [...input_text].slice(start, end).join('');

/** A model that writes these candidates. */
const candidates = (list: object[]): ModelBehaviour => answer({ content: JSON.stringify({ candidates: list }) });

const card = (n: number, more: object) => ({ front: `How long is a year of planet ${n}?`, back: `${n * 17 + 3} days`, prompt: 'Tests a figure.', ...more });

const CITED = candidates([card(2, { source: [2] }), card(3, { source: [3, 4] }), card(20, { source: [20] }), card(9, {})]);
const SOURCES = [sourceOf(2), sourceOf(3, 4), sourceOf(20), null];
/** Sentences 2, 3, 4 and 20, rounded down. */
const COVERAGE = Math.floor((100 * [2, 3, 4, 20].reduce((sum, n) => sum + [...sentence(n)].length, 0)) / Array.from({ length: COUNT }, (_, i) => [...sentence(i + 1)].length).reduce((sum, length) => sum + length)) / 100;

export function tests(start: StartService): void {
  const service = started(start, { RATE_LIMIT_BURST: '1000/60' });

  it('the response has the passage that each candidate comes from', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(CITED);
    const created = await create(service(), user.token, body);
    assert.equal(created.status, 201, created.text);
    assert.deepEqual(created.body.candidates.map(({ source }: Row) => source), SOURCES);
    assert.equal(passage(created.body.candidates[0].source), sentence(2));
    assert.equal(created.body.coverage, COVERAGE);
    assert.equal(created.body.candidates[3].supported, null);
    const { sessions, candidates } = await rowsOf(service(), user);
    assert.deepEqual(candidates.map(candidateOf), created.body.candidates);
    assert.equal(sessions[0]?.['coverage_percent'], Math.round(COVERAGE * 100));
  });

  it('every later response has the same bytes', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(CITED);
    const keyed = { 'idempotency-key': 'k' };
    const created = await create(service(), user.token, body, keyed);
    const replayed = await create(service(), user.token, body, keyed);
    assert.equal(replayed.text, created.text);
    const found = await read(service(), user.token, created.body.id);
    const list = created.text.slice(created.text.indexOf('"candidates":'));
    assert.ok(found.text.endsWith(list), found.text);
    const events = parseEvents((await sendRequest(service(), 'GET', `/ai-sessions/${created.body.id}/events`, { token: user.token })).text);
    assert.deepEqual(events.slice(1, -1).map(({ data: { index: _, ...candidate } }) => candidate), created.body.candidates);
    assert.equal(events.at(-1)?.data.coverage, COVERAGE);
  });

  it('a stream has the same events during and after the generation', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(CITED);
    const live = await (await createStream(service(), user.token, body)).whole();
    const id = live[0]?.data.id;
    assert.deepEqual(live.slice(1, -1).map(({ data }) => data.source), SOURCES);
    assert.equal(live.at(-1)?.data.coverage, COVERAGE);
    assert.deepEqual(await (await subscribe(service(), user.token, id)).whole(), live);
    assert.deepEqual(await (await subscribe(service(), user.token, id, '1.2')).whole(), live.slice(3));
    const found = await read(service(), user.token, id);
    assert.deepEqual(found.body.candidates, live.slice(1, -1).map(({ data: { index: _, ...candidate } }) => candidate));
  });

  describe('a model that names no sentences, or other ones', () => {
    const values: [name: string, value: unknown][] = [
      ['none', undefined],
      ['an empty list', []],
      ['a number that does not exist', [21]],
      ['zero', [0]],
      ['a negative number of one that does not exist', [-99]],
      ['null', null],
      ['a boolean', true],
      ['words', 'the second one'],
      ['an object', { first: 2 }],
      ['objects', [{ first: 2 }]],
      ['sentences too far apart', [1, 20]],
    ];
    for (const [name, value] of values) {
      it(`a candidate with ${name} in place of a number is kept without a source`, async () => {
        const { token } = await signIn(service());
        service().world.openrouter.next(candidates([card(2, { source: value }), card(3, { source: [3] })]));
        const created = await create(service(), token, body);
        assert.equal(created.status, 201, created.text);
        const [without, cited] = created.body.candidates;
        assert.deepEqual([without.source, without.supported, cited.source], [null, null, sourceOf(3)]);
      });
    }

    it('the coverage of candidates without a source is 0', async () => {
      const user = await signIn(service());
      service().world.openrouter.next(candidates([card(2, {}), card(3, { source: [99] })]));
      const created = await create(service(), user.token, body);
      assert.deepEqual([created.body.coverage, created.body.candidates.length], [0, 2]);
      assert.equal((await rowsOf(service(), user)).sessions[0]?.['coverage_percent'], 0);
      const events = await (await subscribe(service(), user.token, created.body.id)).whole();
      assert.equal(events.at(-1)?.data.coverage, 0);
    });
  });

  it('a session that is not persisted yet has its sources, before and after', async () => {
    const { gateway, openrouter } = service().world;
    const user = await signIn(service());
    openrouter.next(CITED);
    const isOwn = ({ path, headers }: { path: string; headers: Record<string, unknown> }) => path === FINISH_PATH && headers['authorization'] === `Bearer ${user.token}`;
    const fault = gateway.fail(isOwn, { kind: 'answer', status: 503 });
    expectProblem(await create(service(), user.token, body, { 'idempotency-key': 'k' }), 500, 'database_error');
    const id = (await rowsOf(service(), user)).sessions[0]?.['id'];
    const held = await read(service(), user.token, id);
    assert.deepEqual(held.body.candidates.map(({ source }: Row) => source), SOURCES);
    fault.clear();
    const stored = await eventually('the session is stored', async () => {
      await read(service(), user.token, id);
      const { sessions, candidates } = await rowsOf(service(), user);
      return sessions[0]?.['status'] === 'completed' ? candidates : undefined;
    }, 30_000);
    assert.deepEqual(stored.map(candidateOf), held.body.candidates);
    const again = await create(service(), user.token, body, { 'idempotency-key': 'k' });
    assert.deepEqual([again.status, again.body.coverage, again.body.candidates], [201, COVERAGE, held.body.candidates]);
  });

  it('a session from before has no sources', async () => {
    const user = await signIn(service());
    service().world.openrouter.next(CITED);
    const { body: created } = await create(service(), user.token, body);
    const { sql } = service().world;
    // As an earlier version stored it.
    await sql('alter table public.ai_generation_sessions disable trigger ai_generation_sessions_check_change');
    await sql('update public.ai_generation_sessions set coverage_percent = null where id = $1', [created.id]);
    await sql('alter table public.ai_generation_sessions enable trigger ai_generation_sessions_check_change');
    await sql(`update public.flashcard_candidates set source_start = null, source_end = null, supported = null, notes = '{}' where session_id = $1`, [created.id]);
    const found = await read(service(), user.token, created.id);
    assert.deepEqual(found.body.candidates.map(({ source, supported, notes }: Row) => [source, supported, notes]), Array(4).fill([null, null, []]));
    const events = await (await subscribe(service(), user.token, created.id)).whole();
    assert.equal(events.at(-1)?.data.coverage, null);
  });

  it('a source that the owner wrote past the service is returned as it is', async () => {
    const user = await signIn(service());
    const rest = service().world.rest(user.token);
    const id = crypto.randomUUID();
    await rest('POST', '/ai_generation_sessions', { id, model: 'test/first', input_text });
    const candidate = { id: crypto.randomUUID(), session_id: id, position: 0, front: 'f', back: 'b', prompt: 'p' };
    assert.equal((await rest('POST', '/flashcard_candidates', { ...candidate, source_start: 9000, source_end: 10_000, notes: ['list_answer'] })).status, 201);
    await rest('PATCH', `/ai_generation_sessions?id=eq.${id}`, { status: 'completed', ended_at: '2026-11-28T10:00:00Z', coverage_percent: 100 });
    const found = await read(service(), user.token, id);
    assert.deepEqual(found.body.candidates[0].source, { start: 9000, end: 10_000 });
    assert.deepEqual([found.body.candidates[0].supported, found.body.candidates[0].notes], [null, ['list_answer']]);
  });
}
