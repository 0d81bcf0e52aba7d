// The expected rows of a completed generation.

import assert from 'node:assert/strict';

type Row = Record<string, any>;
type Rows = Record<'sessions' | 'candidates' | 'events', Row[]>;

/** A stored candidate as a response has it. */
export function candidateOf({ id, front, back, prompt, source_start, source_end, supported, notes }: Row): Row {
  const source = source_start === null ? null : { start: source_start, end: source_end };
  return { id, front, back, prompt, source, supported, notes };
}

/** Expects that a user has one session, completed, with these candidates and one event. */
export function expectStoredOnce({ sessions, candidates, events }: Rows, session: { id: string; candidates: object[] }, partial = false): void {
  assert.deepEqual(
    sessions.map(({ id, status, error_code, partial }) => ({ id, status, error_code, partial })),
    [{ id: session.id, status: 'completed', error_code: null, partial }],
  );
  assert.deepEqual(candidates.map(candidateOf), session.candidates);
  assert.deepEqual(events.map(({ type, session_id }) => ({ type, session_id })), [{ type: 'ai_session.completed', session_id: session.id }]);
}
