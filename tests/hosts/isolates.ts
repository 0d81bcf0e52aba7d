// Several isolates of an Edge Function: which of them gets a request, and the leases in their shared user state. Contains no
// assertion.

import { eventually, openStream, type SignedIn } from '../service/service.ts';
import type { EventSubscriber } from '../support/event_subscriber.ts';
import { ISOLATE_HEADER } from '../support/edge_runtime.ts';
import type { EdgeService } from './supabase_edge.ts';

/** The headers of a request for that isolate. */
export const inIsolate = (number: number, headers: Record<string, string> = {}): Record<string, string> => ({
  [ISOLATE_HEADER]: String(number),
  ...headers,
});

/** `GET /ai-sessions/{id}/events` in that isolate. */
export function subscribeIn(service: EdgeService, number: number, { token }: SignedIn, id: string, lastEventId?: string): Promise<EventSubscriber> {
  const headers = inIsolate(number, lastEventId === undefined ? {} : { 'last-event-id': lastEventId });
  return openStream(service, 'GET', `/ai-sessions/${id}/events`, { token, headers });
}

/** The path of all requests for user state. */
export const USER_STATE_PATH = '/rest/v1/rpc/transact_ai_user_state';

/** Waits until an isolate that does not drive a user's generation polls it. */
export async function followed(service: EdgeService, { id }: SignedIn): Promise<void> {
  // The driver polls without candidates, from a position that no generation has.
  const isFollowers = ({ path, raw }: { path: string; raw: string }) => path === USER_STATE_PATH && raw.includes(id) && /\\?"purpose\\?":\\?"poll\\?".*\\?"from\\?":\d{1,3}[,}]/.test(raw);
  await service.world.gateway.requests.nthWhere(1, isFollowers);
}

/** The statuses of the requests for user state that the database has refused. */
export const refusals = ({ world }: EdgeService): (number | undefined)[] =>
  world.gateway.requests.where(({ path, status = 0 }) => path === USER_STATE_PATH && status >= 400).map(({ status }) => status);

export type StoredGeneration = { user_id: string; id: string };

/** The generations of a user, or of all, that are in progress or not yet persisted. */
export function generations({ world }: EdgeService, user?: SignedIn): Promise<StoredGeneration[]> {
  return world.sql<StoredGeneration>('select user_id, id from ai_sessions.generations where $1::uuid is null or user_id = $1', [user?.id ?? null]);
}

/** Lets the leases of a user, or of all, expire now: as 15 s after their last renewal. */
export async function expireLeases({ world }: EdgeService, user?: SignedIn): Promise<void> {
  const expire = `update ai_sessions.generations set lease_until = now() - interval '1 s'
    where runner is not null and ($1::uuid is null or user_id = $1)`;
  await world.sql(expire, [user?.id ?? null]);
}

/** The number of valid leases. */
async function leases({ world }: EdgeService): Promise<number> {
  const [row] = await world.sql<{ count: number }>('select count(*)::int from ai_sessions.generations where lease_until > now()');
  return row?.count ?? 0;
}

/** Waits until no generation has a valid lease. */
export function noLeases(service: EdgeService, deadline_ms?: number): Promise<true> {
  return eventually('all leases have ended', async () => ((await leases(service)) === 0 ? true : undefined), deadline_ms);
}
