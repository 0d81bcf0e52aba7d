// The service's side of public.transact_ai_user_state, and the stored user states.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import type { Rest, RestAnswer, World } from '../support/world.ts';
import { type Actor, expectStatus } from './actors.ts';

export const TRANSACT = '/rpc/transact_ai_user_state';
export const KEY = 'the-key-of-the-service-in-these-tests-0123456789';
export const RUNNER = '00000000-0000-4000-8000-0000000000f1';
export const OTHER_RUNNER = '00000000-0000-4000-8000-0000000000f2';

export type Signed = { request: string; proof: string };
export type Members = Record<string, unknown>;

export function proofOf(request: string, key = KEY, label = 'ai-sessions/user-state\0'): string {
  return createHmac('sha256', key).update(label).update(request).digest('hex');
}

/** A request of the service on behalf of a user, signed now. */
export function signed(user: string | undefined, members: Members, key = KEY): Signed {
  const request = JSON.stringify({ format: 1, at_ms: Date.now(), as: 'owner', user, ...members });
  return { request, proof: proofOf(request, key) };
}

export const send = (rest: Rest, body: object): Promise<RestAnswer> => rest('POST', TRANSACT, body);

/** The result of a request as the owner, which must succeed. */
export async function transact(actor: Actor, members: Members): Promise<Members> {
  const answer = await send(actor.rest, signed(actor.id, members));
  expectStatus(answer, 200);
  return answer.body as Members;
}

export const read = (actor: Actor) => transact(actor, { purpose: 'read' });

export const store = (actor: Actor, version: number, writes: object[] = [], more: object = {}) =>
  transact(actor, { purpose: 'store', version, writes, ...more });

/** A record as the service writes it. */
export const record = (more: object = {}): string => JSON.stringify({ version: 1, ...more });

/** When the generations of these tests start. */
export const T = 1_800_000_000_000;

export function generation(id: string, more: object = {}) {
  return { write: 'generation', id, record: 'sealed', ending: null, started_ms: T, ...more };
}

export function lease(id: string, runner: string | null = RUNNER, lease_ms: number | null = 15_000) {
  return { write: 'lease', id, runner, lease_ms };
}

export function candidates(id: string, position: number, more: object = {}) {
  return { write: 'candidates', id, position, record: `[{"front":"${position}"}]`, ...more };
}

export function idempotencyRecord(id: string, expires_ms: number, more: object = {}) {
  return { write: 'idempotency_record', id, expires_ms, record: record({ session_id: id }), ...more };
}

/** Sets the only key. */
export async function setKey(world: World, key = KEY): Promise<void> {
  await world.sql('delete from ai_sessions.service_keys');
  await world.sql('select ai_sessions.set_service_key($1)', [key]);
}

export const TABLES = ['candidates', 'generations', 'idempotency_records', 'service_keys', 'user_states'];

/** All rows of the schema, read past all privileges. */
export async function allRows(world: World): Promise<Record<string, unknown>> {
  const rows: Record<string, unknown> = {};
  for (const table of TABLES) {
    rows[table] = await world.sql(`select t.*, t.xmin::text from ai_sessions.${table} as t order by t::text`);
  }
  return rows;
}

/** Expects an error with this code of Postgres or PostgREST. */
export function expectCode(answer: RestAnswer, code: string, status?: number): void {
  assert.equal((answer.body as { code?: string } | null)?.code, code, JSON.stringify(answer.body));
  if (status !== undefined) assert.equal(answer.status, status);
}
