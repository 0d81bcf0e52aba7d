// Which tokens are accepted: those of this project's sign-in. Forged ones are a table: hostile_tokens.ts.

import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { describe, it } from 'node:test';
import { encodePart, signJws } from '../support/signing_keys.ts';
import {
  type Answer,
  create,
  eventually,
  expectProblem,
  remaining,
  rowsOf,
  sendRequest,
  type Service,
  type SignedIn,
  signIn,
  started,
  type StartService,
} from './service.ts';

export function tests(start: StartService): void {
  describe('with the default variables', () => withDefaults(start));
  describe('with SUPABASE_JWT_SECRET and ALLOW_ANONYMOUS_USERS=1', () => withMoreAccepted(start));
  describe('the signing keys', () => theSigningKeys(start));
}

const JWKS = '/auth/v1/.well-known/jwks.json';

/** Reads a session that does not exist: 404 for an accepted token, and nothing is charged. */
function readUnknownSession(service: Service, authorization: string): Promise<Answer> {
  return sendRequest(service, 'GET', `/ai-sessions/${crypto.randomUUID()}`, { headers: { authorization } });
}

async function expectAccepted(service: Service, token: string): Promise<void> {
  expectProblem(await readUnknownSession(service, `Bearer ${token}`), 404, 'not_found');
}

async function expectRefused(service: Service, token: string, code = 'invalid_token'): Promise<any> {
  const refused = await readUnknownSession(service, `Bearer ${token}`);
  const problem = expectProblem(refused, 401, code);
  assert.match(refused.headers.get('www-authenticate') ?? '', /^Bearer .*error="invalid_token"/);
  return problem;
}

function withDefaults(start: StartService): void {
  const service = started(start);
  type Forge = (user: SignedIn) => string;

  /** Makes a token of this project with these claims. */
  const claiming = (claims: Record<string, unknown>): Forge => (user) => service().world.auth.token(user, { claims });
  const now_s = () => Math.floor(Date.now() / 1000);

  describe('without a token', () => {
    for (const authorization of [undefined, '', 'Bearer', 'Bearer ', 'Basic dXNlcjpwYXNzd29yZA==', 'Token abc', 'BearerX']) {
      it(`${authorization === undefined ? 'no header' : `"${authorization}"`} is a missing token`, async () => {
        const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
        const refused = await sendRequest(service(), 'GET', `/ai-sessions/${crypto.randomUUID()}`, { headers });
        expectProblem(refused, 401, 'missing_token');
        // RFC 6750, section 3.1: without a token the challenge has no error.
        assert.match(refused.headers.get('www-authenticate') ?? '', /^Bearer (?!.*error=)/);
      });
    }
  });

  describe('a token of this project', () => {
    const good: Record<string, Forge> = {
      'signed with ES256': (user) => service().world.auth.token(user, { alg: 'ES256' }),
      'signed with RS256': (user) => service().world.auth.token(user, { alg: 'RS256' }),
      'with several audiences': claiming({ aud: ['other', 'authenticated'] }),
      'that expired within the leeway': (user) => service().world.auth.token(user, { expires_in_s: -15 }),
      'that begins within the leeway': (user) => claiming({ nbf: now_s() + 20, iat: now_s() + 20 })(user),
      'with claims of a hook': claiming({ plan: 'pro', app_metadata: { roles: ['a'] } }),
      'of 7 KiB': claiming({ user_metadata: { note: 'x'.repeat(5000) } }),
    };
    for (const [name, forge] of Object.entries(good)) {
      it(`a token ${name} is accepted`, async () => expectAccepted(service(), forge(await signIn(service()))));
    }

    it('the scheme of the Authorization header may be in any case', async () => {
      const { token } = await signIn(service());
      for (const scheme of ['bearer', 'BEARER']) {
        expectProblem(await readUnknownSession(service(), `${scheme} ${token}`), 404, 'not_found');
      }
    });

    it('a token signed with RS256 starts a generation', async () => {
      const user = await signIn(service());
      const created = await create(service(), service().world.auth.token(user, { alg: 'RS256' }));
      assert.equal(created.status, 201, created.text);
    });
  });

  describe('a token that expired', () => {
    it('an expired token has a code of its own', async () => {
      const user = await signIn(service());
      await expectRefused(service(), service().world.auth.token(user, { expires_in_s: -45 }), 'expired_token');
    });
  });

  describe('an anonymous sign-in', () => {
    it('an anonymous sign-in has a code of its own', async () => {
      const user = await signIn(service(), { anonymous: true });
      await expectRefused(service(), user.token, 'anonymous_not_allowed');
    });
  });

  it('a refused request costs the user nothing and has no RateLimit', async () => {
    const user = await signIn(service());
    const forged = withSignature(user.token, Buffer.alloc(64));
    for (let n = 0; n < 12; n += 1) {
      const refused = await create(service(), forged);
      expectProblem(refused, 401, 'invalid_token');
      assert.equal(refused.headers.get('ratelimit'), null);
    }
    assert.deepEqual(await rowsOf(service(), user), { sessions: [], candidates: [], events: [] });
    assert.deepEqual(remaining(await create(service(), user.token)), { burst: 9, generations: 49 });
  });
}

function withMoreAccepted(start: StartService): void {
  const service = started(start, (world) => ({ SUPABASE_JWT_SECRET: world.jwtSecret, ALLOW_ANONYMOUS_USERS: '1' }));

  it('a token signed with the secret starts a generation', async () => {
    const user = await signIn(service());
    const created = await create(service(), service().world.auth.token(user, { alg: 'HS256' }));
    assert.equal(created.status, 201, created.text);
    assert.equal((await rowsOf(service(), user)).sessions[0]?.['status'], 'completed');
  });

  it('a token signed with a published key is still accepted', async () => {
    const user = await signIn(service());
    for (const alg of ['ES256', 'RS256'] as const) await expectAccepted(service(), service().world.auth.token(user, { alg }));
  });

  it('an anonymous sign-in starts a generation', async () => {
    const user = await signIn(service(), { anonymous: true });
    const created = await create(service(), user.token);
    assert.equal(created.status, 201, created.text);
    assert.equal((await rowsOf(service(), user)).candidates.length, created.body.candidates.length);
  });

  it('an HS512 signature with the secret is refused', async () => {
    const user = await signIn(service());
    const input = `${encodePart({ alg: 'HS512', typ: 'JWT' })}.${partsOf(user.token)[1]}`;
    await expectRefused(service(), `${input}.${createHmac('sha512', service().world.jwtSecret).update(input).digest('base64url')}`);
  });
}

function theSigningKeys(start: StartService): void {
  describe('requested once', () => {
    const service = started(start);

    it('the keys are requested once for concurrent requests at a cold start', async () => {
      const users = await Promise.all(Array.from({ length: 10 }, () => signIn(service())));
      await Promise.all(users.map((user) => expectAccepted(service(), user.token)));
      assert.equal(service().world.auth.jwksRequests, 1);
    });

    it('the keys are requested once for many users', async () => {
      for (let n = 0; n < 10; n += 1) await expectAccepted(service(), (await signIn(service())).token);
      assert.equal(service().world.auth.jwksRequests, 1);
    });

    it('the keys are not requested again while the sign-in is down', async () => {
      const down = service().world.gateway.fail(JWKS, { kind: 'answer', status: 503 });
      await expectAccepted(service(), (await signIn(service())).token);
      down.clear();
    });
  });

  describe('rotated', () => {
    const service = started(start);

    it('tokens of the new and of the old key are accepted', async () => {
      const old = await signIn(service());
      await expectAccepted(service(), old.token);
      await service().world.auth.rotate();
      const users = await Promise.all(Array.from({ length: 5 }, () => signIn(service())));
      await Promise.all(users.map((user) => expectAccepted(service(), user.token)));
      await expectAccepted(service(), old.token);
      assert.equal(service().world.auth.jwksRequests, 2);
    });
  });

  describe('retired', () => {
    const service = started(start);

    it('tokens of a retired key are refused after the next refresh', async () => {
      const { auth } = service().world;
      const user = await signIn(service());
      const { kid } = auth.current;
      await auth.rotate('RS256');
      await auth.retire(kid);
      await expectRefused(service(), user.token);
      await expectAccepted(service(), auth.token(user));
    });
  });

  describe('forged tokens', () => {
    const service = started(start);

    it('forged tokens with unknown keys do not cause many key requests', async () => {
      const user = await signIn(service());
      await expectAccepted(service(), user.token);
      for (let n = 0; n < 20; n += 1) {
        await expectRefused(service(), signedBy(user.token, anotherKey(), { kid: crypto.randomUUID() }));
      }
      assert.ok(service().world.auth.jwksRequests <= 2, `${service().world.auth.jwksRequests} requests`);
    });
  });

  describe('unavailable', () => {
    const service = started(start);

    it('requests fail with auth_unavailable until the keys arrive', async () => {
      const down = service().world.gateway.fail(JWKS, { kind: 'answer', status: 503 });
      const user = await signIn(service());
      const refused = await create(service(), user.token);
      expectProblem(refused, 500, 'auth_unavailable');
      assert.equal(refused.headers.get('www-authenticate'), null);
      assert.match(refused.headers.get('retry-after') ?? '', /^[1-9]\d*$/);
      down.clear();
      const created = await eventually('the keys are requested again', async () => {
        const answer = await create(service(), user.token);
        return answer.status === 500 ? undefined : answer;
      });
      assert.equal(created.status, 201, created.text);
    });
  });
}

function partsOf(token: string): [string, string, string] {
  return token.split('.') as [string, string, string];
}

function headerOf(token: string): object {
  return JSON.parse(Buffer.from(partsOf(token)[0], 'base64url').toString()) as object;
}

function claimsOf(token: string): object {
  return JSON.parse(Buffer.from(partsOf(token)[1], 'base64url').toString()) as object;
}

function withSignature(token: string, bytes: Buffer): string {
  return [...partsOf(token).slice(0, 2), bytes.toString('base64url')].join('.');
}

/** Makes a token with the same claims, signed with that key. */
function signedBy(token: string, key: KeyObject, header: object = {}): string {
  return signJws({ ...headerOf(token), ...header }, claimsOf(token), key);
}

function anotherKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
}
