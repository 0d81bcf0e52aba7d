/** Enforces the limit of each user, and sends the RateLimit fields. */
import type { Context, MiddlewareHandler } from 'hono';
import type { AppContext } from './environment.ts';
import { problem } from './problem.ts';

export type Verdict = { allowed: boolean; limit: number; remaining: number; resetSeconds: number };

/** `take` counts a request of the user. */
export function limitWith(take: (c: Context<AppContext>) => Promise<Verdict>): MiddlewareHandler<AppContext> {
  return async (c, next) => {
    const verdict = await take(c);
    c.header('RateLimit-Policy', `"burst";q=${verdict.limit};w=60`);
    c.header('RateLimit', `"burst";r=${verdict.remaining};t=${verdict.resetSeconds}`);
    if (!verdict.allowed) {
      c.header('Retry-After', String(verdict.resetSeconds));
      return problem(c, 429, 'rate_limited', 'the limit is reached; see Retry-After');
    }
    return next();
  };
}
