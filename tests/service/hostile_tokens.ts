// Which tokens are accepted over HTTP: every token of tests/fixtures/hostile_tokens.json (which describes its members), made
// with real keys. tests/core/hostile_tokens.rs makes the same ones natively, with a fixed clock.

import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { text as readText } from 'node:stream/consumers';
import { before, describe, it } from 'node:test';
import { encodePart, signature } from '../support/signing_keys.ts';
import { type Answer, expectProblem, lesson, rowsOf, type Service, signIn, type SignedIn, started, type StartService, type Variables } from './service.ts';

type Members = Record<string, unknown>;
type Encoding = 'padded' | 'trailing bits';

/** One token; the file describes the members. */
type Case = {
  name: string;
  expect: string;
  header?: Members;
  without_header?: string[];
  header_as?: string;
  header_encoding?: Encoding;
  claims?: Members;
  without_claims?: string[];
  claims_as?: string;
  claims_encoding?: Encoding;
  signed_by?: string;
  signature?: string;
  token?: string;
  bytes?: number;
  authorization?: string[];
  service?: string;
  exact_time?: boolean;
};

const { cases } = JSON.parse(readFileSync(new URL('../fixtures/hostile_tokens.json', import.meta.url), 'utf8')) as { cases: Case[] };

export function tests(start: StartService): void {
  const overHttp = cases.filter((token) => !token.exact_time);
  describe('with the default variables', () => {
    table(start, {}, overHttp.filter(({ service }) => service === undefined));
  });
  describe('with SUPABASE_JWT_SECRET and ALLOW_ANONYMOUS_USERS=1', () => {
    const variables: Variables = (world) => ({ SUPABASE_JWT_SECRET: world.jwtSecret, ALLOW_ANONYMOUS_USERS: '1' });
    table(start, variables, overHttp.filter(({ service }) => service === 'with the secret'));
  });
}

function table(start: StartService, variables: Variables, tokens: Case[]): void {
  const service = started(start, variables);
  const sent: string[] = [];
  const refusals: { name: string; code: string; seen: object }[] = [];
  let user: SignedIn;
  before(async () => {
    user = await signIn(service());
  });

  for (const token of tokens) {
    it(`${token.name}: the token is ${token.expect}`, async () => {
      const { world } = service();
      const made = makeToken(token, service(), user);
      sent.push(made);
      const lines = (token.authorization ?? ['Bearer <token>']).map((line) => line.replaceAll('<token>', made));
      if (token.expect === 'let in') {
        // A session that does not exist: 404 for an accepted token.
        expectProblem(await send(service(), 'GET', `/ai-sessions/${crypto.randomUUID()}`, lines), 404, 'not_found');
        return;
      }
      const before = { database: databaseRequests(service()), model: world.openrouter.requests.total };
      // The most expensive request.
      const body = JSON.stringify({ input_text: lesson(), model: 'test/first' });
      const refused = await send(service(), 'POST', '/ai-sessions', lines, body);
      expectProblem(refused, 401, token.expect);
      assert.deepEqual({ database: databaseRequests(service()), model: world.openrouter.requests.total }, before);
      refusals.push({ name: token.name, code: token.expect, seen: asSeen(refused) });
    });
  }

  it('all refusals of one code are equal but for their ids', () => {
    const refused = tokens.filter(({ expect }) => expect !== 'let in');
    assert.equal(refusals.length, refused.length);
    for (const { name, code, seen } of refusals) {
      assert.deepEqual(seen, refusals.find((other) => other.code === code)?.seen, name);
    }
  });

  it('no refusal stores anything for the user', async () => {
    assert.deepEqual(await rowsOf(service(), user), { sessions: [], candidates: [], events: [] });
  });

  it('no token is in the log', () => {
    // A shorter part could occur by chance.
    const parts = sent.flatMap((token) => [token, ...token.split('.').slice(1)]).filter((part) => part.length >= 12);
    assert.ok(parts.length >= tokens.length);
    // The service writes a line for each request.
    assert.ok(service().logs.length >= tokens.length);
    assert.deepEqual(service().logs.filter((line) => parts.some((part) => line.includes(part))), []);
  });
}

function databaseRequests(service: Service): number {
  return service.world.gateway.requests.where(({ path }) => path.startsWith('/rest/v1/')).length;
}

/** A refusal as its caller sees it, without the request's own id and time. */
function asSeen({ status, headers, body, text }: Answer): object {
  const named = Object.fromEntries(headers);
  const own = ['x-request-id', 'date', 'server-timing'];
  for (const name of own) if (name in named) named[name] = 'its own';
  return { status, headers: named, body: { ...body, request_id: 'its own' }, length: text.length };
}

/** Sends without `fetch`, which would trim and join the lines. */
function send(service: Service, method: string, path: string, authorization: string[], body = ''): Promise<Answer> {
  const url = new URL(service.url + path);
  const headers = ['Host', url.host, 'Connection', 'close', ...authorization.flatMap((line) => ['Authorization', line])];
  if (body !== '') headers.push('Content-Type', 'application/json', 'Content-Length', String(Buffer.byteLength(body)));
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { method, headers, agent: false }, (response) => {
      readText(response).then((text) => {
        const answered = new Headers(Object.entries(response.headers).map(([name, value]) => [name, String(value)]));
        resolve({ status: response.statusCode ?? 0, headers: answered, body: JSON.parse(text), text });
      }, reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}

// The maker.

function makeToken(token: Case, service: Service, user: SignedIn): string {
  const [es256, rs256] = projectKeys(service);
  const now_s = Math.floor(Date.now() / 1000);
  const issuer = `${service.world.supabaseUrl}/auth/v1`;
  const placeholders: Record<string, string> = {
    '<user>': user.id,
    '<USER>': user.id.toUpperCase(),
    '<user without hyphens>': user.id.replaceAll('-', ''),
    '<issuer>': issuer,
    '<ISSUER>': issuer.toUpperCase(),
    '<supabase url>': service.world.supabaseUrl,
    '<rs256 kid>': rs256.kid,
    '<ES256 KID>': es256.kid.toUpperCase(),
  };

  function fill(value: unknown): unknown {
    if (Array.isArray(value)) return value.map(fill);
    if (typeof value === 'string') {
      if (value === '<stranger jwk>') return strangers.stranger.publicKey.export({ format: 'jwk' });
      if (value === '<es256 jwk>') return es256.publicJwk;
      return Object.entries(placeholders).reduce((text, [name, meant]) => text.replaceAll(name, meant), value);
    }
    if (typeof value !== 'object' || value === null) return value;
    if ('now' in value) return now_s + Number(value.now);
    if ('now as text' in value) return String(now_s + Number(value['now as text']));
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, fill(member)]));
  }

  function textOf(genuine: Members, set: Members = {}, without: string[] = [], around = '{<members>}'): string {
    const members: Members = { ...genuine, ...(fill(set) as Members) };
    for (const name of without) delete members[name];
    const inner = JSON.stringify(members).slice(1, -1);
    return around.replace('<members>', () => inner);
  }

  const genuineClaims = JSON.parse(Buffer.from(user.token.split('.')[1] ?? '', 'base64url').toString()) as Members;
  const headerText = (more: Members = {}) =>
    textOf({ alg: 'ES256', kid: es256.kid, typ: 'JWT' }, { ...token.header, ...more }, token.without_header, token.header_as);
  const claimsText = (more: Members = {}) =>
    textOf({ ...genuineClaims, exp: now_s + 3600, iat: now_s }, { ...token.claims, ...more }, token.without_claims, token.claims_as);

  let texts = { header: headerText(), claims: claimsText() };
  if (token.bytes !== undefined) texts = filledUpTo(token.bytes, headerText, claimsText);
  const header = encode(texts.header, token.header_encoding);
  const claims = encode(texts.claims, token.claims_encoding);
  const genuine = signature(`${header}.${claims}`, keyOf(token.signed_by ?? 'es256', service));
  const made = (token.token ?? '<header>.<claims>.<signature>')
    .replace('<header>', header)
    .replace('<claims>', claims)
    .replace('<signature>', changed(genuine, token.signature))
    .replace('<other header>', encodePart(`${texts.header} `))
    .replace('<other claims>', encodePart(`${texts.claims} `));
  if (token.bytes !== undefined) assert.equal(made.length, token.bytes);
  return made;
}

const projectKeys = (service: Service) => {
  const [es256, rs256] = service.world.auth.keys;
  assert.ok(es256?.alg === 'ES256' && rs256?.alg === 'RS256');
  return [es256, rs256] as const;
};

/** Keys that this project has not published. */
const strangers = {
  'stranger': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  'stranger rsa': generateKeyPairSync('rsa', { modulusLength: 2048 }),
  'p384': generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  'secp256k1': generateKeyPairSync('ec', { namedCurve: 'secp256k1' }),
};

function keyOf(name: string, service: Service): KeyObject | string {
  const [es256, rs256] = projectKeys(service);
  const pem = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }).toString();
  const keys: Record<string, KeyObject | string | undefined> = {
    'es256': es256.privateKey,
    'rs256': rs256.privateKey,
    ...Object.fromEntries(Object.entries(strangers).map(([stranger, { privateKey }]) => [stranger, privateKey])),
    'secret: jwt secret': service.world.jwtSecret,
    'secret: anon key': service.world.anonKey,
    'secret: nothing': '',
    'secret: es256 pem': pem(es256.publicKey),
    'secret: es256 jwk': JSON.stringify(es256.publicJwk),
    'secret: es256 x': es256.publicJwk.x,
    'secret: rs256 pem': pem(rs256.publicKey),
    'secret: rs256 jwk': JSON.stringify(rs256.publicJwk),
    'secret: rs256 n': rs256.publicJwk.n,
  };
  const key = keys[name];
  assert.ok(key !== undefined, `there is no key ${name}`);
  return key;
}

/** Adds white space where unused bits or padding need it. */
function encode(json: string, encoding: Encoding | undefined): string {
  let text = json;
  while (encoding !== undefined && Buffer.byteLength(text) % 3 !== 1) text += ' ';
  const encoded = encodePart(text);
  if (encoding === 'padded') return `${encoded}==`;
  return encoding === 'trailing bits' ? withTrailingBits(encoded) : encoded;
}

/** Another last letter with the same bytes: its lowest bits are unused. */
function withTrailingBits(text: string): string {
  const last = text.charCodeAt(text.length - 1);
  const other = text.slice(0, -1) + String.fromCharCode(last + 1);
  assert.deepEqual(Buffer.from(other, 'base64url'), Buffer.from(text, 'base64url'));
  return other;
}

/** The claims alone cannot reach every length: base64url has none of 4 n + 1. */
function filledUpTo(bytes: number, headerText: (more: Members) => string, claimsText: (more: Members) => string): { header: string; claims: string } {
  const chars = (text: string) => encodePart(text).length;
  const signatureChars = 86;
  for (let hint = ''; ; hint += 'x') {
    const header = headerText({ hint });
    const room = bytes - chars(header) - signatureChars - 2;
    const note = Math.floor((room * 3) / 4) - Buffer.byteLength(claimsText({ hint: '' }));
    const claims = claimsText({ hint: 'x'.repeat(note) });
    if (chars(claims) === room) return { header, claims };
  }
}

/** The order of P-256 (SEC 2, section 2.4.2). */
const ORDER = Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551', 'hex');

/** Alters the bytes of the signature. */
function changed(genuine: Buffer, how: string | undefined): string {
  const half = genuine.length / 2;
  const [r, s] = [genuine.subarray(0, half), genuine.subarray(half)];
  const flipped = (at: number, bit: number) => {
    const bytes = Buffer.from(genuine);
    bytes[at] = (bytes[at] ?? 0) ^ bit;
    return bytes;
  };
  // Shortest form, with a leading zero where the number would be negative.
  const der = (number: Buffer) => {
    const start = number.findIndex((byte) => byte !== 0);
    const digits = (number[start] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), number.subarray(start)]) : number.subarray(start);
    return Buffer.concat([Buffer.of(2, digits.length), digits]);
  };
  const ways: Record<string, () => Buffer> = {
    'zeros': () => Buffer.alloc(genuine.length),
    'ones': () => Buffer.alloc(genuine.length, 0xff),
    'r zero': () => Buffer.concat([Buffer.alloc(half), s]),
    's zero': () => Buffer.concat([r, Buffer.alloc(half)]),
    'r the order': () => Buffer.concat([ORDER, s]),
    's the order': () => Buffer.concat([r, ORDER]),
    'swapped': () => Buffer.concat([s, r]),
    'DER': () => Buffer.concat([Buffer.of(0x30, der(r).length + der(s).length), der(r), der(s)]),
    'one byte less': () => genuine.subarray(0, -1),
    'one byte more': () => Buffer.concat([genuine, Buffer.of(0)]),
    'first bit': () => flipped(0, 0x80),
    'last bit': () => flipped(genuine.length - 1, 1),
    'twice': () => Buffer.concat([genuine, genuine]),
  };
  const text = genuine.toString('base64url');
  if (how === undefined) return text;
  if (how === 'trailing bits') return withTrailingBits(text);
  if (how === 'truncated') return text.slice(0, -1);
  const way = ways[how];
  assert.ok(way, `there is no alteration ${how}`);
  return way().toString('base64url');
}
