// A stand-in for Supabase Auth, complete enough for an unmodified `@supabase/supabase-js`: sign-up, anonymous and password
// sign-in, refresh, the user, sign-out, the JWKS. Users are stored in auth.users of the world's database.
// Only for this machine: it confirms every address and limits nothing.

import { createPublicKey, randomBytes, scryptSync, timingSafeEqual, verify } from 'node:crypto';
import type { AccessTokens } from './access_tokens.ts';
import type { Sql } from './database.ts';
import type { GatewayRequest } from './gateway.ts';
import { jsonResponse, type StandInResponse } from './stand_in_response.ts';
import { signature } from './signing_keys.ts';

export const STAND_IN = 'ai-sessions local sign-in';

const SESSION_S = 3600;

type UserRow = {
  id: string;
  email: string | null;
  encrypted_password: string | null;
  is_anonymous: boolean;
  created_at: Date;
};

export type SignIn = {
  createUser(wanted: { email?: string; password?: string; anonymous?: boolean }): Promise<UserRow>;
  /** Answers a request for `/auth/v1/...`. */
  answer(request: GatewayRequest): Promise<StandInResponse>;
};

export function createSignIn(sql: Sql, tokens: AccessTokens): SignIn {
  /** Refresh token → user id; each is valid for one use. */
  const refreshTokens = new Map<string, string>();

  async function createUser(wanted: { email?: string; password?: string; anonymous?: boolean }): Promise<UserRow> {
    const encrypted = wanted.password === undefined ? null : encryptPassword(wanted.password);
    const rows = await sql<UserRow>(
      `insert into auth.users (email, encrypted_password, is_anonymous) values ($1, $2, $3)
       on conflict (email) do nothing returning *`,
      [wanted.email?.toLowerCase() ?? null, encrypted, wanted.anonymous ?? false],
    );
    if (rows[0] === undefined) throw new AuthError(422, 'user_already_exists', 'User already registered');
    return rows[0];
  }

  async function userWhere(column: 'id' | 'email', value: string): Promise<UserRow | undefined> {
    const [row] = await sql<UserRow>(`select * from auth.users where ${column} = $1`, [value]);
    return row;
  }

  async function session(user: UserRow): Promise<StandInResponse> {
    await sql('update auth.users set last_sign_in_at = now() where id = $1', [user.id]);
    const refresh_token = randomBytes(9).toString('base64url');
    refreshTokens.set(refresh_token, user.id);
    return jsonResponse(200, {
      access_token: tokens.sign(tokenUser(user), { expires_in_s: SESSION_S }),
      token_type: 'bearer',
      expires_in: SESSION_S,
      expires_at: Math.floor(Date.now() / 1000) + SESSION_S,
      refresh_token,
      user: publicUser(user),
    });
  }

  async function signUp(body: Credentials): Promise<StandInResponse> {
    if (body.email === undefined) return session(await createUser({ anonymous: true }));
    const password = body.password ?? '';
    if (password.length < 6) {
      throw new AuthError(422, 'weak_password', 'Password should be at least 6 characters.');
    }
    return session(await createUser({ email: body.email, password }));
  }

  async function signInWithPassword(body: Credentials): Promise<StandInResponse> {
    const user = await userWhere('email', (body.email ?? '').toLowerCase());
    if (user === undefined || !isPassword(body.password ?? '', user.encrypted_password)) {
      throw new AuthError(400, 'invalid_credentials', 'Invalid login credentials');
    }
    return session(user);
  }

  async function refresh(body: Credentials): Promise<StandInResponse> {
    const userId = refreshTokens.get(body.refresh_token ?? '');
    const user = userId === undefined ? undefined : await userWhere('id', userId);
    if (user === undefined) {
      throw new AuthError(400, 'refresh_token_not_found', 'Invalid Refresh Token: Refresh Token Not Found');
    }
    refreshTokens.delete(body.refresh_token ?? '');
    return session(user);
  }

  async function currentUser(request: GatewayRequest): Promise<UserRow> {
    const bearer = String(request.headers['authorization'] ?? '').replace(/^Bearer /i, '');
    const sub = verifiedSubject(bearer, tokens);
    const user = sub === undefined ? undefined : await userWhere('id', sub);
    if (user === undefined) throw new AuthError(403, 'bad_jwt', 'invalid JWT');
    return user;
  }

  async function route(request: GatewayRequest): Promise<StandInResponse> {
    const url = new URL(request.path, 'http://localhost');
    const grant = url.searchParams.get('grant_type');
    switch (`${request.method} ${url.pathname.slice('/auth/v1'.length)}`) {
      case 'GET /.well-known/jwks.json':
        return jsonResponse(200, tokens.jwks, { 'cache-control': 'public, max-age=600' });
      case 'POST /signup':
        return signUp(credentials(request.raw));
      case 'POST /token':
        if (grant === 'password') return signInWithPassword(credentials(request.raw));
        if (grant === 'refresh_token') return refresh(credentials(request.raw));
        throw new AuthError(400, 'invalid_request', 'unsupported_grant_type');
      case 'GET /user':
        return jsonResponse(200, publicUser(await currentUser(request)));
      case 'POST /logout': {
        const user = await currentUser(request);
        for (const [token, userId] of refreshTokens) if (userId === user.id) refreshTokens.delete(token);
        return { status: 204, headers: {}, body: '' };
      }
      case 'GET /health':
        return jsonResponse(200, { name: STAND_IN, version: 'stand-in', description: 'not Supabase Auth' });
      default:
        throw new AuthError(404, 'not_found', `the ${STAND_IN} has no such endpoint`);
    }
  }

  return {
    createUser,
    async answer(request) {
      let reply: StandInResponse;
      try {
        reply = await route(request);
      } catch (error) {
        if (!(error instanceof AuthError)) throw error;
        // The format of this API version, which supabase-js requests and expects.
        const headers = { 'x-supabase-api-version': '2024-01-01' };
        reply = jsonResponse(error.status, { code: error.code, message: error.message }, headers);
      }
      reply.headers['x-stand-in'] = STAND_IN;
      return reply;
    },
  };
}

class AuthError extends Error {
  status: number;
  code: string;
  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

type Credentials = { email?: string; password?: string; refresh_token?: string };

function credentials(raw: string): Credentials {
  try {
    const body = JSON.parse(raw) as Credentials;
    // supabase-js sends no address for an anonymous sign-in.
    if (body.email === '') delete body.email;
    return body;
  } catch {
    throw new AuthError(400, 'bad_json', 'Could not parse request body as JSON');
  }
}

export function tokenUser(user: UserRow): { id: string; email: string | null; anonymous: boolean } {
  return { id: user.id, email: user.email, anonymous: user.is_anonymous };
}

function publicUser(user: UserRow): object {
  return {
    id: user.id,
    aud: 'authenticated',
    role: 'authenticated',
    email: user.email ?? '',
    phone: '',
    app_metadata: user.is_anonymous ? {} : { provider: 'email', providers: ['email'] },
    user_metadata: {},
    identities: [],
    is_anonymous: user.is_anonymous,
    created_at: user.created_at.toISOString(),
    updated_at: user.created_at.toISOString(),
  };
}

// The cheapest scrypt: these passwords protect nothing, and tests sign in often.
const SCRYPT_COST = { N: 2, r: 1, p: 1 };

function encryptPassword(password: string): string {
  const salt = randomBytes(8);
  return `${salt.toString('hex')}:${scryptSync(password, salt, 32, SCRYPT_COST).toString('hex')}`;
}

function isPassword(password: string, encrypted: string | null): boolean {
  const [salt, hash] = (encrypted ?? '').split(':');
  if (salt === undefined || hash === undefined) return false;
  const actual = scryptSync(password, Buffer.from(salt, 'hex'), 32, SCRYPT_COST);
  return timingSafeEqual(actual, Buffer.from(hash, 'hex'));
}

/** The `sub` of a token that a published key or the shared secret signed and that has not expired. */
function verifiedSubject(token: string, tokens: AccessTokens): string | undefined {
  const [header, claims, given] = token.split('.');
  if (header === undefined || claims === undefined || given === undefined) return undefined;
  try {
    const { alg, kid } = JSON.parse(Buffer.from(header, 'base64url').toString()) as { alg: string; kid?: string };
    const input = `${header}.${claims}`;
    const bytes = Buffer.from(given, 'base64url');
    const jwk = tokens.jwks.keys.find((key) => key.kid === kid && key.alg === alg);
    const genuine =
      jwk !== undefined
        ? verify(
            'sha256',
            Buffer.from(input),
            { key: createPublicKey({ key: jwk, format: 'jwk' }), dsaEncoding: 'ieee-p1363' },
            bytes,
          )
        : alg === 'HS256' && signature(input, tokens.jwtSecret).equals(bytes);
    const read = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { sub?: string; exp?: number };
    return genuine && (read.exp ?? 0) > Date.now() / 1000 ? read.sub : undefined;
  } catch {
    return undefined;
  }
}
