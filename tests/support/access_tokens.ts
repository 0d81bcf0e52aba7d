// The keys and tokens of a Supabase project: which key signs, which are published, the claims of a token.

import { createSigningKey, signJws, type SigningKey } from './signing_keys.ts';

export type TokenUser = { id: string; email?: string | null; anonymous?: boolean };

export type TokenOptions = {
  /** Lifetime from now; negative for an expired token. Default 3600, as Supabase's. */
  expires_in_s?: number;
  /** Default: that of the current key. */
  alg?: 'ES256' | 'RS256' | 'HS256';
  /** Signs with this published or retired key; with HS256 it is only a header member. */
  kid?: string;
  /** Members that replace Supabase's; `undefined` removes one. */
  claims?: Record<string, unknown>;
  /** Members that replace the header's; `undefined` removes one. */
  header?: Record<string, unknown>;
};

export class AccessTokens {
  /** All keys, retired ones too: for forging. */
  readonly keys: SigningKey[] = [];
  readonly jwtSecret: string;
  #published: SigningKey[] = [];
  #current: SigningKey;
  #issuer: () => string;

  constructor(keys: [SigningKey, ...SigningKey[]], jwtSecret: string, issuer: () => string) {
    this.keys.push(...keys);
    this.#published.push(...keys);
    this.#current = keys[0];
    this.jwtSecret = jwtSecret;
    this.#issuer = issuer;
  }

  /** The current signing key. */
  get current(): SigningKey {
    return this.#current;
  }

  /** The document of `/.well-known/jwks.json`. */
  get jwks(): { keys: SigningKey['publicJwk'][] } {
    return { keys: this.#published.map((key) => key.publicJwk) };
  }

  /** The keys with which the database verifies: the published ones and the shared secret. */
  get verifierJwks(): { keys: object[] } {
    const k = Buffer.from(this.jwtSecret).toString('base64url');
    return { keys: [...this.jwks.keys, { kty: 'oct', k, alg: 'HS256' }] };
  }

  async rotate(alg: SigningKey['alg']): Promise<string> {
    const key = await createSigningKey(alg);
    this.keys.push(key);
    this.#published.unshift(key);
    this.#current = key;
    return key.kid;
  }

  retire(kid: string): void {
    if (kid === this.#current.kid) throw new Error('rotate first: the current key cannot be retired');
    this.#published = this.#published.filter((key) => key.kid !== kid);
  }

  sign(user: TokenUser, options: TokenOptions = {}): string {
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      iss: this.#issuer(),
      sub: user.id,
      aud: 'authenticated',
      exp: now + (options.expires_in_s ?? 3600),
      iat: now,
      email: user.email ?? '',
      phone: '',
      app_metadata: user.anonymous ? {} : { provider: 'email', providers: ['email'] },
      user_metadata: {},
      role: 'authenticated',
      aal: 'aal1',
      amr: [{ method: user.anonymous ? 'anonymous' : 'password', timestamp: now }],
      session_id: crypto.randomUUID(),
      is_anonymous: user.anonymous ?? false,
      // JSON.stringify omits undefined members.
      ...options.claims,
    };
    if (options.alg === 'HS256') {
      const header = { alg: 'HS256', kid: options.kid, typ: 'JWT', ...options.header };
      return signJws(header, claims, this.jwtSecret);
    }
    const key = this.#keyFor(options);
    return signJws({ alg: key.alg, kid: key.kid, typ: 'JWT', ...options.header }, claims, key.privateKey);
  }

  /** A key of the project in JWT form: no user, no `sub`. */
  apiKey(role: 'anon' | 'service_role'): string {
    const iat = Math.floor(Date.now() / 1000);
    const tenYears_s = 10 * 365 * 86_400;
    const claims = { iss: 'supabase', ref: 'local', role, iat, exp: iat + tenYears_s };
    return signJws({ alg: 'HS256', typ: 'JWT' }, claims, this.jwtSecret);
  }

  #keyFor({ alg, kid }: TokenOptions): SigningKey {
    if (kid !== undefined) {
      const named = this.keys.find((key) => key.kid === kid);
      if (named === undefined) throw new Error(`no key has the kid ${kid}; a forged kid goes into options.header`);
      return named;
    }
    if (alg === undefined || alg === this.#current.alg) return this.#current;
    const newest = this.#published.find((key) => key.alg === alg);
    if (newest === undefined) throw new Error(`no ${alg} key is published`);
    return newest;
  }
}
