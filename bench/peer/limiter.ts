/** One Durable Object per user: a sliding window over the requests of the last minute. */
import { DurableObject } from 'cloudflare:workers';
import type { Environment } from './environment.ts';
import type { Verdict } from './limit.ts';

const WINDOW_MS = 60_000;

export class Limiter extends DurableObject<Environment> {
  constructor(state: DurableObjectState, environment: Environment) {
    super(state, environment);
    state.storage.sql.exec('create table if not exists hits (at integer not null)');
  }

  take(): Verdict {
    const now = Date.now();
    const limit = Number(this.env.RATE_LIMIT);
    const { sql } = this.ctx.storage;
    sql.exec('delete from hits where at <= ?', now - WINDOW_MS);
    const { count, oldest } = sql.exec<{ count: number; oldest: number | null }>('select count(*) as count, min(at) as oldest from hits').one();
    const resetSeconds = Math.ceil(((oldest ?? now) + WINDOW_MS - now) / 1000);
    if (count >= limit) return { allowed: false, limit, remaining: 0, resetSeconds };
    sql.exec('insert into hits (at) values (?)', now);
    return { allowed: true, limit, remaining: limit - count - 1, resetSeconds };
  }
}
