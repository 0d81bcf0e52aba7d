/** Enforces the limit of each user, and sends the RateLimit fields. */
import { createMiddleware } from 'hono/factory';
import type { AppContext } from './environment.ts';
import { problem } from './problem.ts';

export const limit = createMiddleware<AppContext>(async (c, next) => {
  const verdict = await c.env.LIMITER.getByName(c.get('userId')).take();
  c.header('RateLimit-Policy', `"burst";q=${verdict.limit};w=60`);
  c.header('RateLimit', `"burst";r=${verdict.remaining};t=${verdict.resetSeconds}`);
  if (!verdict.allowed) {
    c.header('Retry-After', String(verdict.resetSeconds));
    return problem(c, 429, 'rate_limited', 'the limit is reached; see Retry-After');
  }
  return next();
});
