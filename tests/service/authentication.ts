// Who is let in: the tokens of this project's sign-in and nothing that only looks like them.

import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { describe, it } from 'node:test';
import { encodePart, signature, signJws } from '../support/signing_keys.ts';
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
  describe('as it is delivered', () => asDelivered(start));
  describe('with SUPABASE_JWT_SECRET and ALLOW_ANONYMOUS_USERS=1', () => withMoreLetIn(start));
  describe('the signing keys', () => theSigningKeys(start));
}

const JWKS = '/auth/v1/.well-known/jwks.json';

/** A session that nobody has: 404 for whoever is let in, and it costs nothing. */
function knock(service: Service, authorization: string): Promise<Answer> {
  return sendRequest(service, 'GET', `/ai-sessions/${crypto.randomUUID()}`, { headers: { authorization } });
}

async function expectLetIn(service: Service, token: string): Promise<void> {
  expectProblem(await knock(service, `Bearer ${token}`), 404, 'not_found');
}

async function expectRefused(service: Service, token: string, code = 'invalid_token'): Promise<any> {
  const refused = await knock(service, `Bearer ${token}`);
  const problem = expectProblem(refused, 401, code);
  assert.match(refused.headers.get('www-authenticate') ?? '', /^Bearer .*error="invalid_token"/);
  return problem;
}

function asDelivered(start: StartService): void {
  const service = started(start);
  type Forge = (user: SignedIn) => string;

  /** A token of this project with these claims. */
  const claiming = (claims: Record<string, unknown>): Forge => (user) => service().world.auth.token(user, { claims });
  const now_s = () => Math.floor(Date.now() / 1000);

  describe('without a token', () => {
    for (const authorization of [undefined, '', 'Bearer', 'Bearer ', 'Basic dXNlcjpwYXNzd29yZA==', 'Token abc', 'BearerX']) {
      it(`${authorization === undefined ? 'no header' : `"${authorization}"`} is told what is missing`, async () => {
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
      it(`${name} is let in`, async () => expectLetIn(service(), forge(await signIn(service()))));
    }

    it('is let in whatever the case of its scheme', async () => {
      const { token } = await signIn(service());
      for (const scheme of ['bearer', 'BEARER']) {
        expectProblem(await knock(service(), `${scheme} ${token}`), 404, 'not_found');
      }
    });

    it('makes cards by RS256 too', async () => {
      const user = await signIn(service());
      const created = await create(service(), service().world.auth.token(user, { alg: 'RS256' }));
      assert.equal(created.status, 201, created.text);
    });
  });

  describe('a token that expired', () => {
    it('is told so', async () => {
      const user = await signIn(service());
      await expectRefused(service(), service().world.auth.token(user, { expires_in_s: -45 }), 'expired_token');
    });
  });

  describe('an anonymous sign-in', () => {
    it('is told that it is not allowed', async () => {
      const user = await signIn(service(), { anonymous: true });
      await expectRefused(service(), user.token, 'anonymous_not_allowed');
    });
  });

  describe('with a genuine signature', () => {
    const header = (members: Record<string, unknown>): Forge => (user) => service().world.auth.token(user, { header: members });
    const forged: Record<string, Forge> = {
      'the issuer of another project': claiming({ iss: 'https://other.supabase.co/auth/v1' }),
      'an issuer that begins like this one': claiming({ iss: 'http://127.0.0.1' }),
      'no issuer': claiming({ iss: undefined }),
      'another audience': claiming({ aud: 'anon' }),
      'no audience': claiming({ aud: undefined }),
      'the role anon': claiming({ role: 'anon' }),
      'the role service_role': claiming({ role: 'service_role' }),
      'no role': claiming({ role: undefined }),
      'no user': claiming({ sub: undefined }),
      'a user who is no UUID': claiming({ sub: 'admin' }),
      'a user in another form': (user) => claiming({ sub: user.id.replaceAll('-', '') })(user),
      'no end': claiming({ exp: undefined }),
      'an end that is text': (user) => claiming({ exp: String(now_s() + 3600) })(user),
      'an end that is null': claiming({ exp: null }),
      'a begin in an hour': (user) => claiming({ nbf: now_s() + 3600 })(user),
      'an issue in an hour': (user) => claiming({ iat: now_s() + 3600 })(user),
      'crit': header({ crit: ['exp'] }),
      'b64': header({ b64: false, crit: ['b64'] }),
      'an embedded key': (user) => header({ jwk: service().world.auth.current.publicJwk })(user),
      'a key by URL': (user) => header({ jku: `${service().world.supabaseUrl}${JWKS}` })(user),
      'a certificate by URL': header({ x5u: 'https://keys.example/cert.pem' }),
      'a certificate': header({ x5c: ['MIIB'] }),
      'a type of another kind': header({ typ: 'JWE' }),
      'the kid of another key': (user) => header({ kid: otherKid() })(user),
      'no kid': header({ kid: undefined }),
      'the name of another algorithm': header({ alg: 'RS256' }),
      'more than 8 KiB': claiming({ user_metadata: { note: 'x'.repeat(8192) } }),
      'the user twice': (user) => {
        const claims = claimsOf(user.token);
        const twice = JSON.stringify(claims).replace('{', `{"sub":"${crypto.randomUUID()}",`);
        return resigned(encodePart(headerOf(user.token)), encodePart(twice));
      },
      'the algorithm twice': (user) => {
        const twice = JSON.stringify(headerOf(user.token)).replace('{', '{"alg":"none",');
        return resigned(encodePart(twice), partsOf(user.token)[1]);
      },
    };
    const otherKid = () => service().world.auth.keys.find((key) => key !== service().world.auth.current)?.kid;
    const resigned = (head: string, claims: string) => {
      const bytes = signature(`${head}.${claims}`, service().world.auth.current.privateKey);
      return `${head}.${claims}.${bytes.toString('base64url')}`;
    };
    for (const [name, forge] of Object.entries(forged)) {
      it(`${name} is refused`, async () => {
        await expectRefused(service(), forge(await signIn(service())));
      });
    }
  });

  describe('without a genuine signature', () => {
    const forged: Record<string, Forge> = {
      'garbage': () => 'garbage',
      'three parts of garbage': () => 'a.b.c',
      'two tokens': (user) => `${user.token}, Bearer ${user.token}`,
      'a token that breaks off': (user) => user.token.slice(0, -4),
      'a token with a fourth part': (user) => `${user.token}.AAAA`,
      'a JWE': (user) => [encodePart({ alg: 'dir', enc: 'A256GCM' }), '', ...partsOf(user.token)].join('.'),
      'a token with padding': (user) => `${user.token}=`,
      'another user in the claims': (user) => withClaims(user.token, { sub: crypto.randomUUID() }),
      'a later end in the claims': (user) => withClaims(service().world.auth.token(user, { expires_in_s: -60 }), { exp: now_s() + 60 }),
      'alg none': (user) => `${encodePart({ alg: 'none', typ: 'JWT' })}.${partsOf(user.token)[1]}.`,
      'alg None with the kid': (user) => `${encodePart({ ...headerOf(user.token), alg: 'None' })}.${partsOf(user.token)[1]}.`,
      'no signature': (user) => `${partsOf(user.token)[0]}.${partsOf(user.token)[1]}.`,
      'a signature of zeros': (user) => withSignature(user.token, Buffer.alloc(64)),
      'another key under this kid': (user) => signedBy(user.token, anotherKey()),
      'another key and an unknown kid': (user) => signedBy(user.token, anotherKey(), { kid: crypto.randomUUID() }),
      'another key that comes along': (user) => {
        const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
        return signedBy(user.token, privateKey, { jwk: publicKey.export({ format: 'jwk' }) });
      },
      'HS256 with the JWT secret': (user) => service().world.auth.token(user, { alg: 'HS256' }),
      'HS256 with the public key as its secret': (user) => signedBySecret(user.token, publicPem()),
      'HS256 with the published key as its secret': (user) => signedBySecret(user.token, JSON.stringify(publicJwk())),
      'HS256 with the anon key as its secret': (user) => signedBySecret(user.token, service().world.anonKey),
      'HS256 with an empty secret': (user) => signedBySecret(user.token, ''),
      'the anon key': () => service().world.anonKey,
      'the service key': () => service().world.serviceKey,
    };
    const publicPem = () => service().world.auth.current.publicKey.export({ type: 'spki', format: 'pem' }).toString();
    const publicJwk = () => service().world.auth.current.publicJwk;
    for (const [name, forge] of Object.entries(forged)) {
      it(`${name} is refused`, async () => {
        await expectRefused(service(), forge(await signIn(service())));
      });
    }

    it('is told the same whatever the reason', async () => {
      const user = await signIn(service());
      const reasons = ['another user in the claims', 'another key under this kid', 'another key and an unknown kid', 'a signature of zeros', 'HS256 with the JWT secret'];
      const problems = await Promise.all(reasons.map((reason) => expectRefused(service(), forged[reason]?.(user) ?? '')));
      for (const problem of problems) assert.deepEqual({ ...problem, request_id: '' }, { ...problems[0], request_id: '' });
    });
  });

  it('whoever is refused costs the user nothing and learns nothing of the limits', async () => {
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

function withMoreLetIn(start: StartService): void {
  const service = started(start, (world) => ({ SUPABASE_JWT_SECRET: world.jwtSecret, ALLOW_ANONYMOUS_USERS: '1' }));

  it('a token by the secret makes cards', async () => {
    const user = await signIn(service());
    const created = await create(service(), service().world.auth.token(user, { alg: 'HS256' }));
    assert.equal(created.status, 201, created.text);
    assert.equal((await rowsOf(service(), user)).sessions[0]?.['status'], 'completed');
  });

  it('a token by a published key is still let in', async () => {
    const user = await signIn(service());
    for (const alg of ['ES256', 'RS256'] as const) await expectLetIn(service(), service().world.auth.token(user, { alg }));
  });

  it('an anonymous sign-in makes cards', async () => {
    const user = await signIn(service(), { anonymous: true });
    const created = await create(service(), user.token);
    assert.equal(created.status, 201, created.text);
    assert.equal((await rowsOf(service(), user)).candidates.length, created.body.candidates.length);
  });

  const forged: Record<string, (user: SignedIn) => string> = {
    'the anon key, which the secret signed': () => service().world.anonKey,
    'the service key, which the secret signed': () => service().world.serviceKey,
    'HS256 with another secret': (user) => signedBySecret(user.token, 'another secret of the same kind'),
    'HS256 with a public key as its secret': (user) => {
      const { publicKey } = service().world.auth.current;
      return signedBySecret(user.token, publicKey.export({ type: 'spki', format: 'pem' }).toString());
    },
    'HS512 with the secret': (user) => {
      const input = `${encodePart({ alg: 'HS512', typ: 'JWT' })}.${partsOf(user.token)[1]}`;
      return `${input}.${createHmac('sha512', service().world.jwtSecret).update(input).digest('base64url')}`;
    },
    'the secret under the name of ES256': (user) => {
      const input = `${encodePart(headerOf(user.token))}.${partsOf(user.token)[1]}`;
      return `${input}.${signature(input, service().world.jwtSecret).toString('base64url')}`;
    },
  };
  for (const [name, forge] of Object.entries(forged)) {
    it(`${name} is refused`, async () => {
      await expectRefused(service(), forge(await signIn(service())));
    });
  }
}

function theSigningKeys(start: StartService): void {
  describe('are asked for once', () => {
    const service = started(start);

    it('for many requests that arrive together at a cold start, and all of them are let in', async () => {
      const users = await Promise.all(Array.from({ length: 10 }, () => signIn(service())));
      await Promise.all(users.map((user) => expectLetIn(service(), user.token)));
      assert.equal(service().world.auth.jwksRequests, 1);
    });

    it('for many users one after another', async () => {
      for (let n = 0; n < 10; n += 1) await expectLetIn(service(), (await signIn(service())).token);
      assert.equal(service().world.auth.jwksRequests, 1);
    });

    it('and not again while the sign-in is away', async () => {
      const down = service().world.gateway.fail(JWKS, { kind: 'answer', status: 503 });
      await expectLetIn(service(), (await signIn(service())).token);
      down.clear();
    });
  });

  describe('that are rotated', () => {
    const service = started(start);

    it('let in the tokens of the new key, all that arrive together, and those of the old one', async () => {
      const old = await signIn(service());
      await expectLetIn(service(), old.token);
      await service().world.auth.rotate();
      const users = await Promise.all(Array.from({ length: 5 }, () => signIn(service())));
      await Promise.all(users.map((user) => expectLetIn(service(), user.token)));
      await expectLetIn(service(), old.token);
      assert.equal(service().world.auth.jwksRequests, 2);
    });
  });

  describe('that were retired', () => {
    const service = started(start);

    it('let nobody in once they are asked for again', async () => {
      const { auth } = service().world;
      const user = await signIn(service());
      const { kid } = auth.current;
      await auth.rotate('RS256');
      await auth.retire(kid);
      await expectRefused(service(), user.token);
      await expectLetIn(service(), auth.token(user));
    });
  });

  describe('are not asked for', () => {
    const service = started(start);

    it('again and again by forged tokens with unknown keys', async () => {
      const user = await signIn(service());
      await expectLetIn(service(), user.token);
      for (let n = 0; n < 20; n += 1) {
        await expectRefused(service(), signedBy(user.token, anotherKey(), { kid: crypto.randomUUID() }));
      }
      assert.ok(service().world.auth.jwksRequests <= 2, `${service().world.auth.jwksRequests} requests`);
    });
  });

  describe('that cannot be had', () => {
    const service = started(start);

    it('are the service’s failure and not the user’s, until they come', async () => {
      const down = service().world.gateway.fail(JWKS, { kind: 'answer', status: 503 });
      const user = await signIn(service());
      const refused = await create(service(), user.token);
      expectProblem(refused, 500, 'auth_unavailable');
      assert.equal(refused.headers.get('www-authenticate'), null);
      assert.match(refused.headers.get('retry-after') ?? '', /^[1-9]\d*$/);
      down.clear();
      const created = await eventually('the keys are asked for again', async () => {
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

/** The same signature over other claims. */
function withClaims(token: string, claims: object): string {
  const [header, , bytes] = partsOf(token);
  return `${header}.${encodePart({ ...claimsOf(token), ...claims })}.${bytes}`;
}

function withSignature(token: string, bytes: Buffer): string {
  return [...partsOf(token).slice(0, 2), bytes.toString('base64url')].join('.');
}

/** The same claims, signed by somebody else. */
function signedBy(token: string, key: KeyObject, header: object = {}): string {
  return signJws({ ...headerOf(token), ...header }, claimsOf(token), key);
}

/** The same claims, by HS256, without a kid: with that of a published key no secret is looked at. */
function signedBySecret(token: string, secret: string): string {
  return signJws({ ...headerOf(token), alg: 'HS256', kid: undefined }, claimsOf(token), secret);
}

function anotherKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
}
