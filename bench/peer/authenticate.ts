/** Verifies Supabase access tokens with the project's key set. */
import { createMiddleware } from 'hono/factory';
import { createRemoteJWKSet, errors, jwtVerify } from 'jose';
import { z } from 'zod';
import type { AppContext, Environment } from './environment.ts';
import { problem } from './problem.ts';

const claims = z.object({ sub: z.uuid(), role: z.literal('authenticated') });

let keySet: ReturnType<typeof createRemoteJWKSet> | undefined;

export const authenticate = createMiddleware<AppContext>(async (c, next) => {
  const token = c.req.header('authorization')?.match(/^Bearer (.+)$/i)?.[1];
  if (token === undefined) return problem(c, 401, 'missing_token', 'a bearer token is needed');
  try {
    const { payload } = await jwtVerify(token, keysOf(c.env), {
      issuer: `${c.env.SUPABASE_URL}/auth/v1`,
      audience: 'authenticated',
      algorithms: ['ES256', 'RS256'],
      clockTolerance: 30,
    });
    c.set('userId', claims.parse(payload).sub);
    c.set('token', token);
  } catch (error) {
    if (error instanceof errors.JWTExpired) return problem(c, 401, 'expired_token', 'the token has expired');
    if (error instanceof errors.JOSEError || error instanceof z.ZodError) return problem(c, 401, 'invalid_token', 'the token does not hold');
    throw error;
  }
  return next();
});

function keysOf(environment: Environment): ReturnType<typeof createRemoteJWKSet> {
  keySet ??= createRemoteJWKSet(new URL(`${environment.SUPABASE_URL}/auth/v1/.well-known/jwks.json`));
  return keySet;
}
