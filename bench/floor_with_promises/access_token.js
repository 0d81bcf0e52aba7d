/** Verifies Supabase access tokens: the signature by the project's key set, then the claims. */
import { Problem } from './problem.js';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const KEYS_MS = 600_000;
/** An unknown key id is looked up again, at most this often. */
const REFRESH_MS = 10_000;
const FETCH_MS = 5_000;
const TOLERANCE_S = 30;
const PSEUDONYMS_MAX = 1000;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const pseudonyms = new Map();
let keys = { read_ms: 0, byId: new Map() };

/** Returns the token, its user, and the user's name in the log. */
export async function authenticate(request, env) {
  const token = /^Bearer +([\w-]+\.[\w-]+\.[\w-]+)$/i.exec(request.headers.get('authorization') ?? '')?.[1];
  if (token === undefined) throw new Problem('missing_token', 'send the access token as a bearer token');
  const [header, claims, signature] = token.split('.');
  const { alg, kid } = objectOf(header);
  const key = alg === 'ES256' ? await keyOf(kid, env) : undefined;
  const signed = encoder.encode(`${header}.${claims}`);
  if (key === undefined || !(await crypto.subtle.verify(ALGORITHM, key, bytesOf(signature), signed))) throw invalid();
  const user = userOf(objectOf(claims), `${env.SUPABASE_URL}/auth/v1`);
  return { token, user, pseudonym: await pseudonymOf(user, env) };
}

const invalid = () => new Problem('invalid_token', 'the access token is not valid here; sign in again');

function userOf({ iss, aud, exp, nbf, role, sub }, issuer) {
  const now_s = Date.now() / 1000;
  if (typeof exp !== 'number' || (nbf ?? 0) > now_s + TOLERANCE_S) throw invalid();
  if (exp < now_s - TOLERANCE_S) throw new Problem('expired_token', 'the access token has expired; refresh it');
  const isFor = [aud].flat().includes('authenticated');
  if (iss !== issuer || !isFor || role !== 'authenticated' || !UUID.test(sub)) throw invalid();
  return sub;
}

async function keyOf(id, env) {
  const age_ms = Date.now() - keys.read_ms;
  if (age_ms > KEYS_MS || (!keys.byId.has(id) && age_ms > REFRESH_MS)) keys = await readKeys(env);
  return keys.byId.get(id);
}

async function readKeys(env) {
  const answer = await fetch(`${env.SUPABASE_URL}/auth/v1/.well-known/jwks.json`, { signal: AbortSignal.timeout(FETCH_MS) });
  const { keys } = await answer.json();
  const usable = keys.filter(({ kty, crv }) => kty === 'EC' && crv === 'P-256');
  const imported = usable.map(async (key) => [key.kid, await crypto.subtle.importKey('jwk', key, ALGORITHM, false, ['verify'])]);
  return { read_ms: Date.now(), byId: new Map(await Promise.all(imported)) };
}

/** A name for the log that only the holder of the secret can compute. */
async function pseudonymOf(user, env) {
  let found = pseudonyms.get(user);
  if (found === undefined) {
    const digest = await crypto.subtle.digest('SHA-256', encoder.encode(`${env.OPENROUTER_API_KEY} ${user}`));
    found = new Uint8Array(digest, 0, 8).toHex();
    if (pseudonyms.size >= PSEUDONYMS_MAX) pseudonyms.clear();
    pseudonyms.set(user, found);
  }
  return found;
}

function objectOf(base64url) {
  try {
    const value = JSON.parse(decoder.decode(bytesOf(base64url)));
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // Answered below.
  }
  throw invalid();
}

function bytesOf(base64url) {
  const text = atob(base64url.replaceAll('-', '+').replaceAll('_', '/'));
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}
