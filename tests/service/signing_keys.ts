// The keys of the sign-in service: rotation, retirement, outages. Effects after minutes or a day are tested natively, with a
// settable clock: tests/core/signing_keys.rs.

import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { before, describe, it } from 'node:test';
import type { Fault } from '../support/gateway.ts';
import { createGate } from '../support/gate.ts';
import { signJws } from '../support/signing_keys.ts';
import { type Answer, eventually, expectProblem, sendRequest, type Service, type SignedIn, signIn, started, type StartService } from './service.ts';

const JWKS = '/auth/v1/.well-known/jwks.json';

export function tests(start: StartService): void {
  describe('a rotation', () => rotation(start));
  describe('keys that cannot be refreshed', () => keysThatCannotBeRefreshed(start));
  describe('keys that never arrived', () => keysThatNeverArrived(start));
  describe('many requests', () => manyRequests(start));
  describe('beside a shared secret', () => besideASecret(start));
}

/** Reads a session that does not exist: 404 for an accepted token, and nothing is charged. */
function readUnknownSession(service: Service, token: string): Promise<Answer> {
  return sendRequest(service, 'GET', `/ai-sessions/${crypto.randomUUID()}`, { token });
}

async function expectAccepted(service: Service, token: string): Promise<void> {
  expectProblem(await readUnknownSession(service, token), 404, 'not_found');
}

async function expectRefused(service: Service, token: string): Promise<void> {
  expectProblem(await readUnknownSession(service, token), 401, 'invalid_token');
}

/** Makes a token that has not been verified before. */
function freshToken(service: Service, user: SignedIn, kid?: string): string {
  return service.world.auth.token(user, kid === undefined ? {} : { kid });
}

/** Makes such a token, signed with an unpublished key. */
function unknownToken(service: Service, user: SignedIn): string {
  const [, claims = ''] = freshToken(service, user).split('.');
  const members = JSON.parse(Buffer.from(claims, 'base64url').toString()) as object;
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return signJws({ alg: 'ES256', kid: crypto.randomUUID(), typ: 'JWT' }, members, privateKey);
}

/** Responses of a sign-in service with a fault. */
const keyFaults: Record<string, Fault> = {
  'an error': { kind: 'answer', status: 503, body: { message: 'unavailable' } },
  'a page': { kind: 'answer', status: 200, body: '<!doctype html><title>Maintenance</title>', headers: { 'content-type': 'text/html' } },
  'nothing': { kind: 'answer', status: 200 },
  'an empty set': { kind: 'answer', status: 200, body: { keys: [] } },
  '10 MB': { kind: 'answer', status: 200, body: `{"keys":[${' '.repeat(10 * 1024 * 1024)}]}` },
  'keys of unknown types': {
    kind: 'answer',
    status: 200,
    body: { keys: [{ kty: 'AKP', kid: 'a', alg: 'ML-DSA-65', pub: 'AA' }, { kty: 'oct', kid: 'b', k: 'AA' }, 5, null] },
  },
  'a redirect': { kind: 'answer', status: 302, headers: { location: 'http://127.0.0.1:1/jwks.json' } },
  'a cut connection': { kind: 'cut' },
};

function rotation(start: StartService): void {
  const service = started(start);

  it('a rotation is accepted within one refresh, with the old key', async () => {
    const { auth } = service().world;
    const user = await signIn(service());
    const old = auth.current.kid;
    await expectAccepted(service(), freshToken(service(), user));
    const before = auth.jwksRequests;

    const next = await auth.rotate();
    await expectAccepted(service(), freshToken(service(), user, next));
    await expectAccepted(service(), freshToken(service(), user, old));
    assert.equal(auth.jwksRequests, before + 1);

    await service().restart();
    await expectAccepted(service(), freshToken(service(), user, old));

    await auth.retire(old);
    await service().restart();
    await expectRefused(service(), freshToken(service(), user, old));
    await expectAccepted(service(), freshToken(service(), user, next));
  });

  it('no request is refused during a rotation', async () => {
    const { auth } = service().world;
    await service().restart();
    const user = await signIn(service());
    const old = auth.current.kid;
    const before = auth.jwksRequests;
    const expectAllAccepted = (kids: string[]) =>
      Promise.all(Array.from({ length: 20 }, (_, n) => expectAccepted(service(), freshToken(service(), user, kids[n % kids.length]))));

    await expectAllAccepted([old]);
    const next = await auth.rotate();
    await expectAllAccepted([old, next]);
    await auth.retire(old);
    await expectAllAccepted([next]);
    assert.equal(auth.jwksRequests, before + 2, 'once at the start, once for the new key');
  });

  it('a verified token is refused once its key has left the set', async () => {
    const { auth } = service().world;
    await service().restart();
    const user = await signIn(service());
    const [old, verified] = [auth.current.kid, freshToken(service(), user)];
    for (let round = 0; round < 2; round += 1) await expectAccepted(service(), verified);
    const next = await auth.rotate();
    await auth.retire(old);
    await expectAccepted(service(), freshToken(service(), user, next));
    await expectRefused(service(), verified);
  });
}

function keysThatCannotBeRefreshed(start: StartService): void {
  const service = started(start);

  /** An isolate that has the keys, and may still request them once for an unknown one. */
  async function freshIsolate(): Promise<SignedIn> {
    await service().restart();
    const user = await signIn(service());
    await expectAccepted(service(), freshToken(service(), user));
    return user;
  }

  for (const [name, fault] of Object.entries(keyFaults)) {
    it(`cached keys stay valid while the sign-in answers with ${name}`, async () => {
      const user = await freshIsolate();
      const set = service().world.gateway.fail(JWKS, fault);
      await expectRefused(service(), unknownToken(service(), user));
      assert.equal(set.hits, 1);
      await expectAccepted(service(), freshToken(service(), user));
      await expectRefused(service(), unknownToken(service(), user));
      assert.equal(set.hits, 1, 'one refresh in half a minute');
      set.clear();
    });
  }

  it('a slow refresh delays no token of a cached key', async () => {
    const user = await freshIsolate();
    const gate = createGate();
    const set = service().world.gateway.fail(JWKS, { kind: 'gate', gate });
    let answered = false;
    const unknown = readUnknownSession(service(), unknownToken(service(), user)).finally(() => (answered = true));
    await gate.reached;
    await expectAccepted(service(), freshToken(service(), user));
    assert.equal(answered, false);
    gate.open();
    expectProblem(await unknown, 401, 'invalid_token');
    set.clear();
  });

  it('an endless response with keys is abandoned after five seconds', async () => {
    const user = await freshIsolate();
    const set = service().world.gateway.fail(JWKS, { kind: 'endless' });
    const start_ms = Date.now();
    await expectRefused(service(), unknownToken(service(), user));
    assert.ok(Date.now() - start_ms < 8000, `${Date.now() - start_ms} ms`);
    await expectAccepted(service(), freshToken(service(), user));
    set.clear();
  });
}

function keysThatNeverArrived(start: StartService): void {
  const service = started(start);
  let user: SignedIn;
  before(async () => {
    user = await signIn(service());
  });

  for (const [name, fault] of Object.entries(keyFaults)) {
    it(`requests are auth_unavailable while the sign-in answers with ${name}`, async () => {
      const set = service().world.gateway.fail(JWKS, fault);
      await eventually('the keys are requested again', async () => {
        const refused = await readUnknownSession(service(), freshToken(service(), user));
        expectProblem(refused, 500, 'auth_unavailable');
        assert.match(refused.headers.get('retry-after') ?? '', /^[1-9]\d*$/);
        assert.equal(refused.headers.get('www-authenticate'), null);
        return set.hits > 0 ? true : undefined;
      });
      set.clear();
    });
  }

  it('tokens are accepted as soon as the keys arrive', async () => {
    await eventually('a token is accepted', async () => {
      const answer = await readUnknownSession(service(), freshToken(service(), user));
      return answer.status === 500 ? undefined : expectProblem(answer, 404, 'not_found');
    });
  });
}

function manyRequests(start: StartService): void {
  const service = started(start);

  it('concurrent tokens in a cold isolate cause one key request', async () => {
    const user = await signIn(service());
    const tokens = Array.from({ length: 20 }, () => freshToken(service(), user));
    await Promise.all(tokens.map((token) => expectAccepted(service(), token)));
    assert.equal(service().world.auth.jwksRequests, 1);
  });

  it('tokens with a hundred unknown keys cause one more key request', async () => {
    const user = await signIn(service());
    for (let round = 0; round < 5; round += 1) {
      const tokens = Array.from({ length: 20 }, () => unknownToken(service(), user));
      await Promise.all(tokens.map((token) => expectRefused(service(), token)));
    }
    assert.equal(service().world.auth.jwksRequests, 2);
    await expectAccepted(service(), freshToken(service(), user));
  });

  it('a bad signature with a cached kid causes no key request', async () => {
    const user = await signIn(service());
    const before = service().world.auth.jwksRequests;
    const forged = Array.from({ length: 20 }, () => {
      const [header, claims] = freshToken(service(), user).split('.');
      return `${header}.${claims}.${Buffer.alloc(64, 1).toString('base64url')}`;
    });
    await Promise.all(forged.map((token) => expectRefused(service(), token)));
    assert.equal(service().world.auth.jwksRequests, before);
  });
}

function besideASecret(start: StartService): void {
  const service = started(start, (world) => ({ SUPABASE_JWT_SECRET: world.jwtSecret }));
  const bySecret = (user: SignedIn, kid?: string) => service().world.auth.token(user, { alg: 'HS256', ...(kid === undefined ? {} : { kid }) });

  it('a token signed with the secret that names a published key is refused', async () => {
    const user = await signIn(service());
    for (const { kid } of service().world.auth.keys) await expectRefused(service(), bySecret(user, kid));
    await expectAccepted(service(), bySecret(user));
    await expectAccepted(service(), bySecret(user, crypto.randomUUID()));
  });

  it('a token without a kid needs no key set', async () => {
    const set = service().world.gateway.fail(JWKS, { kind: 'cut' });
    await service().restart();
    await expectAccepted(service(), bySecret(await signIn(service())));
    set.clear();
  });
}
