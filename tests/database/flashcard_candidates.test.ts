import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startWorld, type World } from '../support/world.ts';
import {
  type Actors,
  CANDIDATES,
  completed,
  createActors,
  endedSession,
  expectForbidden,
  expectRefusedBy,
  expectRows,
  expectStatus,
  failed,
  newCandidate,
  openSession,
  SESSIONS,
} from './actors.ts';

describe('flashcard_candidates', () => {
  let world: World;
  let actors: Actors;
  before(async () => {
    world = await startWorld({ model: false });
    actors = await createActors(world);
  });
  after(() => world.close());

  const candidateOf = (session_id: string, more: object = {}) => newCandidate({ session_id, position: 0, ...more });

  describe('the owner', () => {
    it('the owner reads candidates embedded in their session', async () => {
      const id = await endedSession(actors.owner);
      const query = `${SESSIONS}?id=eq.${id}&select=id,flashcard_candidates(front,position)&flashcard_candidates.order=position`;
      const [row] = expectRows(await actors.owner.rest('GET', query), 1);
      assert.deepEqual(row?.['flashcard_candidates'], [
        { front: 'Front?', position: 0 },
        { front: 'Front?', position: 1 },
      ]);
    });

    it('the owner adds a candidate while the session is generating', async () => {
      const session_id = await openSession(actors.owner);
      expectStatus(await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id)), 201);
    });

    for (const how of [completed, failed]) {
      it(`the owner cannot add a candidate to a ${how.name} session`, async () => {
        const session_id = await endedSession(actors.owner, (id) => how(id));
        expectForbidden(await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id, { position: 7 })));
      });
    }

    it('the owner cannot add a candidate to a missing session', async () => {
      expectForbidden(await actors.owner.rest('POST', CANDIDATES, candidateOf(crypto.randomUUID())));
    });

    it("the owner cannot add a candidate for another user", async () => {
      const mine = await openSession(actors.owner);
      const theirs = await openSession(actors.stranger);
      for (const session_id of [mine, theirs]) {
        const forged = candidateOf(session_id, { user_id: actors.stranger.id });
        expectForbidden(await actors.owner.rest('POST', CANDIDATES, forged));
      }
    });

    it('two candidates cannot have one position', async () => {
      const session_id = await openSession(actors.owner);
      expectStatus(await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id)), 201);
      expectStatus(await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id)), 409);
    });

    it('the owner cannot change, delete or date a candidate', async () => {
      const session_id = await openSession(actors.owner);
      const candidate = candidateOf(session_id);
      expectStatus(await actors.owner.rest('POST', CANDIDATES, candidate), 201);
      expectForbidden(await actors.owner.rest('PATCH', `${CANDIDATES}?id=eq.${candidate.id}`, { front: 'Other?' }));
      expectForbidden(await actors.owner.rest('DELETE', `${CANDIDATES}?id=eq.${candidate.id}`));
      const dated = candidateOf(session_id, { position: 1, created_at: '2020-01-01T00:00:00Z' });
      expectForbidden(await actors.owner.rest('POST', CANDIDATES, dated));
    });
  });

  describe('a stranger', () => {
    it('a stranger cannot read candidates, alone or embedded', async () => {
      const id = await endedSession(actors.owner);
      expectRows(await actors.stranger.rest('GET', `${CANDIDATES}?session_id=eq.${id}`), 0);
      expectRows(await actors.stranger.rest('GET', `${SESSIONS}?id=eq.${id}&select=id,flashcard_candidates(*)`), 0);
    });

    it("a stranger cannot add a candidate to the owner's session", async () => {
      const session_id = await openSession(actors.owner);
      expectForbidden(await actors.stranger.rest('POST', CANDIDATES, candidateOf(session_id)));
      const asOwner = candidateOf(session_id, { user_id: actors.owner.id });
      expectForbidden(await actors.stranger.rest('POST', CANDIDATES, asOwner));
    });

    it('a stranger cannot change or delete a candidate', async () => {
      const id = await endedSession(actors.owner);
      expectForbidden(await actors.stranger.rest('PATCH', `${CANDIDATES}?session_id=eq.${id}`, { front: 'Other?' }));
      expectForbidden(await actors.stranger.rest('DELETE', `${CANDIDATES}?session_id=eq.${id}`));
    });
  });

  it('a client without a token has no access to candidates', async () => {
    const session_id = await openSession(actors.owner);
    expectForbidden(await actors.anonymous('GET', CANDIDATES));
    expectForbidden(await actors.anonymous('POST', CANDIDATES, candidateOf(session_id, { user_id: actors.owner.id })));
    expectForbidden(await actors.anonymous('PATCH', `${CANDIDATES}?session_id=eq.${session_id}`, { front: 'x' }));
    expectForbidden(await actors.anonymous('DELETE', `${CANDIDATES}?session_id=eq.${session_id}`));
  });

  it('the service key has no access to candidates', async () => {
    expectForbidden(await world.rest(world.serviceKey)('GET', CANDIDATES));
  });

  for (const [field, max] of [['front', 200], ['back', 500], ['prompt', 500]] as const) {
    describe(`${field}`, () => {
      for (const [length, fits] of [[0, false], [1, true], [max, true], [max + 1, false]] as const) {
        it(`a ${field} of ${length} astral characters is ${fits ? 'accepted' : 'rejected'}`, async () => {
          const session_id = await openSession(actors.owner);
          const candidate = candidateOf(session_id, { [field]: '\u{1F600}'.repeat(length) });
          const answer = await actors.owner.rest('POST', CANDIDATES, candidate);
          if (fits) expectStatus(answer, 201);
          else expectRefusedBy(answer, `flashcard_candidates_${field}_length_check`);
        });
      }
      const unclean = [
        ['a space at the end', 'a ', 'trimmed'],
        ['a no-break space in front', '\u00a0a', 'trimmed'],
        ['a bell', 'a\u0007b', 'clean'],
        ['a byte order mark', 'a\ufeffb', 'clean'],
        ['a tag character', 'a\u{E0041}b', 'clean'],
      ] as const;
      for (const [what, text, check] of unclean) {
        it(`a ${field} with ${what} is rejected`, async () => {
          const session_id = await openSession(actors.owner);
          const answer = await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id, { [field]: text }));
          expectRefusedBy(answer, `flashcard_candidates_${field}_${check}_check`);
        });
      }
      it('tabs, line ends and combined emoji are kept', async () => {
        const session_id = await openSession(actors.owner);
        const text = 'a\tb\nc \u{1F468}\u200d\u{1F469}\u200d\u{1F467}';
        expectStatus(await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id, { [field]: text })), 201);
        const [row] = expectRows(await actors.owner.rest('GET', `${CANDIDATES}?session_id=eq.${session_id}`), 1);
        assert.equal(row?.[field], text);
      });
    });
  }

  for (const [position, fits] of [[-1, false], [0, true], [1999, true], [2000, false], [32_767, false]] as const) {
    it(`position ${position} is ${fits ? 'accepted' : 'rejected'}`, async () => {
      const session_id = await openSession(actors.owner);
      const answer = await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id, { position }));
      if (fits) expectStatus(answer, 201);
      else expectRefusedBy(answer, 'flashcard_candidates_position_check');
    });
  }

  const NOTES = ['answer_in_question', 'yes_or_no', 'refers_to_text', 'near_duplicate', 'other_language', 'list_answer'];

  const citations: [what: string, fields: object, check?: 'source' | 'supported' | 'notes'][] = [
    ['no passage', {}],
    ['the first character', { source_start: 0, source_end: 1, supported: true }],
    ['the longest text', { source_start: 0, source_end: 10_000, supported: false }],
    ['an unchecked passage', { source_start: 3, source_end: 4, supported: null }],
    ['an end beyond the longest text', { source_start: 0, source_end: 10_001 }, 'source'],
    ['an empty passage', { source_start: 5, source_end: 5 }, 'source'],
    ['an end before the start', { source_start: 6, source_end: 5 }, 'source'],
    ['a negative start', { source_start: -1, source_end: 5 }, 'source'],
    ['a start alone', { source_start: 0 }, 'source'],
    ['an end alone', { source_end: 1 }, 'source'],
    ['support without a passage', { supported: true }, 'supported'],
    ['missing support without a passage', { supported: false }, 'supported'],
    ['every note', { notes: NOTES }],
    ['every note in another order', { notes: NOTES.toReversed() }],
    ['a note twice', { notes: ['yes_or_no', 'yes_or_no'] }, 'notes'],
    ['another note', { notes: ['yes_or_no', 'boring'] }, 'notes'],
    ['an empty note', { notes: [''] }, 'notes'],
    ['a note that is null', { notes: ['yes_or_no', null] }, 'notes'],
    ['a list of lists of notes', { notes: [['yes_or_no'], ['list_answer']] }, 'notes'],
  ];
  for (const [what, fields, check] of citations) {
    it(`a candidate with ${what} is ${check === undefined ? 'accepted' : 'rejected'}`, async () => {
      const session_id = await openSession(actors.owner);
      const answer = await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id, fields));
      if (check !== undefined) return expectRefusedBy(answer, `flashcard_candidates_${check}_check`);
      expectStatus(answer, 201);
      const query = `${CANDIDATES}?session_id=eq.${session_id}&select=source_start,source_end,supported,notes`;
      const [row] = expectRows(await actors.owner.rest('GET', query), 1);
      assert.deepEqual(row, { source_start: null, source_end: null, supported: null, notes: [], ...fields });
    });
  }

  it('notes are never null', async () => {
    const session_id = await openSession(actors.owner);
    const answer = await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id, { notes: null }));
    assert.equal((answer.body as { code?: string }).code, '23502', JSON.stringify(answer.body));
  });

  it('the owner cannot change a source or a note', async () => {
    const session_id = await openSession(actors.owner);
    expectStatus(await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id)), 201);
    for (const change of [{ source_start: 0, source_end: 1 }, { supported: null }, { notes: ['yes_or_no'] }]) {
      for (const rest of [actors.owner.rest, actors.stranger.rest, actors.anonymous]) {
        expectForbidden(await rest('PATCH', `${CANDIDATES}?session_id=eq.${session_id}`, change));
      }
    }
  });

  it('a session has at most 2000 candidates', async () => {
    const session_id = await openSession(actors.owner);
    const all = Array.from({ length: 2000 }, (_, position) => candidateOf(session_id, { position }));
    expectStatus(await actors.owner.rest('POST', CANDIDATES, all), 201);
    for (const position of [0, 1999]) expectStatus(await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id, { position })), 409);
    expectRefusedBy(await actors.owner.rest('POST', CANDIDATES, candidateOf(session_id, { position: 2000 })), 'flashcard_candidates_position_check');
  });
});
