// The key that proves to the database that a request for user state comes from the service.

import { randomBytes } from 'node:crypto';
import type { World } from './world.ts';

/** Gives the database a new key; returns it, for USER_STATE_KEY. */
export async function setServiceKey(world: Pick<World, 'sql'>): Promise<string> {
  const key = randomBytes(32).toString('hex');
  await world.sql('select ai_sessions.set_service_key($1)', [key]);
  return key;
}
