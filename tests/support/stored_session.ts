// The expected rows of a completed generation.

import assert from 'node:assert/strict';

type Rows = Record<'sessions' | 'candidates' | 'events', Record<string, any>[]>;

/** Expects that a user has one session, completed, with these candidates and one event. */
export function expectStoredOnce({ sessions, candidates, events }: Rows, session: { id: string; candidates: object[] }, partial = false): void {
  assert.deepEqual(
    sessions.map(({ id, status, error_code, partial }) => ({ id, status, error_code, partial })),
    [{ id: session.id, status: 'completed', error_code: null, partial }],
  );
  assert.deepEqual(candidates.map(({ id, front, back, prompt }) => ({ id, front, back, prompt })), session.candidates);
  assert.deepEqual(events.map(({ type, session_id }) => ({ type, session_id })), [{ type: 'ai_session.completed', session_id: session.id }]);
}
