// The actors of the database tests, and their rows.

import assert from 'node:assert/strict';
import type { Rest, RestAnswer, World } from '../support/world.ts';

export type Actor = { id: string; rest: Rest };

export type Actors = { owner: Actor; stranger: Actor; anonymous: Rest };

/** A signed-in owner, another signed-in user, and a client with the public key alone. */
export async function createActors(world: World): Promise<Actors> {
  return { owner: await signedIn(world), stranger: await signedIn(world), anonymous: world.rest() };
}

async function signedIn(world: World): Promise<Actor> {
  const user = await world.auth.createUser();
  return { id: user.id, rest: world.rest(world.auth.token(user)) };
}

export const TEXT = 'The mitochondrion is the powerhouse of the cell. '.repeat(30).trim();

export const SESSIONS = '/ai_generation_sessions';
export const CANDIDATES = '/flashcard_candidates';
export const EVENTS = '/event_logs';
export const REOPEN = '/rpc/reopen_ai_session';
export const FINISH = '/rpc/finish_ai_session';

/** Makes PostgREST return the written rows: under row level security a write of no row reports success. */
export const RETURN_ROWS = { prefer: 'return=representation' };

export function newSession(more: object = {}): { id: string } & Record<string, unknown> {
  return { id: crypto.randomUUID(), model: 'stand-in/model', input_text: TEXT, ...more };
}

export function newCandidate(more: object = {}): { id: string } & Record<string, unknown> {
  return { id: crypto.randomUUID(), front: 'Front?', back: 'Back.', prompt: 'Tests it.', ...more };
}

/** Opens a session and returns its id. */
export async function openSession(actor: Actor, more: object = {}): Promise<string> {
  const session = newSession(more);
  expectStatus(await actor.rest('POST', SESSIONS, session), 201);
  return session.id;
}

/** The arguments of reopen_ai_session, for the run after the first. */
export function nextRun(id: string, more: object = {}) {
  return { session: { id, run: 2, model: 'stand-in/model', input_text: null, created_at: null, ...more } };
}

/** The arguments of finish_ai_session for an open session. */
export function completed(id: string, candidates: object[] = [newCandidate(), newCandidate()], more: object = {}) {
  return { session: { ...OUTCOME, id, status: 'completed', ...more }, candidates, event: { attempts: 1 } };
}

export function failed(id: string, error_code = 'ai_unavailable', more: object = {}) {
  return { session: { ...OUTCOME, id, status: 'failed', error_code, ...more }, candidates: [], event: { attempts: 3 } };
}

const OUTCOME = {
  model: 'stand-in/model',
  input_text: null,
  created_at: null,
  partial: false,
  error_code: null,
  prompt_tokens: 512,
  completion_tokens: 300,
  cost: 0.000123,
};

export async function endedSession(actor: Actor, how: (id: string) => object = (id) => completed(id)): Promise<string> {
  const id = await openSession(actor);
  expectStatus(await actor.rest('POST', FINISH, how(id)), 200);
  return id;
}

/** All rows of a session, read past row level security. */
export async function storedRows(world: World, id: string) {
  const [session] = await world.sql('select * from public.ai_generation_sessions where id = $1', [id]);
  const candidates = await world.sql('select * from public.flashcard_candidates where session_id = $1 order by position', [id]);
  const events = await world.sql('select * from public.event_logs where session_id = $1 order by id', [id]);
  return { session, candidates, events };
}

export function expectStatus(answer: RestAnswer, status: number): void {
  assert.equal(answer.status, status, `${answer.status}: ${JSON.stringify(answer.body)}`);
}

/** Expects a missing privilege or a policy violation: 403, or 401 without a token. */
export function expectForbidden(answer: RestAnswer): void {
  assert.equal((answer.body as { code?: string } | null)?.code, '42501', JSON.stringify(answer.body));
  assert.ok(answer.status === 401 || answer.status === 403, `status ${answer.status}`);
}

/** Expects that the check constraint of this name rejected the row. */
export function expectRefusedBy(answer: RestAnswer, constraint: string): void {
  const { code, message } = answer.body as { code?: string; message?: string };
  assert.equal(code, '23514', JSON.stringify(answer.body));
  assert.match(message ?? '', new RegExp(`"${constraint}"`));
}

export function expectRows(answer: RestAnswer, count: number): Record<string, unknown>[] {
  assert.ok(answer.status === 200 || answer.status === 201, `${answer.status}: ${JSON.stringify(answer.body)}`);
  const rows = answer.body as Record<string, unknown>[];
  assert.equal(rows.length, count, JSON.stringify(rows));
  return rows;
}
