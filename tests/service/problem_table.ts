// The whole table of docs/api.md, "Errors", over HTTP: for each code a request that triggers it, and each response in the one
// format. When a code occurs is tested with its subject; here its format, and that no code is missing.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { before, describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { content, httpError, type ModelBehaviour, refusal, silence } from '../support/model_behaviour.ts';
import {
  type Answer,
  candidateOf,
  eventually,
  lesson,
  type RequestOptions,
  rowsOf,
  sendRequest,
  type Service,
  type SignedIn,
  signIn,
  started,
  type StartService,
  UUID_V7,
} from './service.ts';

export function tests(start: StartService): void {
  const walked = [...codesOf(common), ...codesOf(withoutKeys), ...codesOf(misconfigured)];

  describe('a configured service', () => {
    const service = started(start, { RATE_LIMIT_BURST: '2/60', AI_TIMEOUT_MS: '3000', AI_MAX_ATTEMPTS: '1' });
    walk(service, common);
    describe('compression', () => compression(service));
  });
  describe('a service without signing keys', () => {
    const service = started(start);
    before(() => {
      service().world.gateway.fail('/auth/v1/.well-known/jwks.json', { kind: 'answer', status: 503 });
    });
    walk(service, withoutKeys);
  });
  describe('a misconfigured service', () => walk(started(start, { AI_TIMEOUT_MS: '-1' }), misconfigured));

  it('every code of docs/api.md is triggered above or listed as impossible', () => {
    const documented = problemTable().map(([, code]) => code);
    assert.deepEqual([...walked, ...BY_A_LESSER_HOST, ...BY_A_BROKEN_HOST].sort(), documented.sort());
  });
}

/** The code of a host on which a request cannot join another one; all hosts can. */
const BY_A_LESSER_HOST = ['idempotency_in_progress'];

/** The code that no caller or upstream can trigger: user_object_unreachable.test.ts breaks the host. */
const BY_A_BROKEN_HOST = ['rate_limiter_unavailable'];

const ORIGIN = 'https://cards.example';
const QUOTA_EXCEEDED = 'https://iana.org/assignments/http-problem-types#quota-exceeded';

/** How a code is triggered: one request of a new user. */
type Row = { code: string; yields: (service: Service, user: SignedIn, send: Send) => Promise<Answer> };

/** Sends a request with the headers of these tests. */
type Send = (method: string, path: string, question?: RequestOptions) => Promise<Answer>;

const codesOf = (rows: Row[]) => rows.map(({ code }) => code);

const good = { input_text: lesson(), model: 'test/first' };

const byTheModel = (code: string, behaviour: ModelBehaviour): Row => ({
  code,
  yields: (service, { token }, send) => {
    service.world.openrouter.next(behaviour);
    return send('POST', '/ai-sessions', { token, body: good });
  },
});

const byTheBody = (code: string, body: unknown, headers: Record<string, string> = {}): Row => ({
  code,
  yields: (_service, { token }, send) => send('POST', '/ai-sessions', { token, body, headers }),
});

const byTheToken = (code: string, tokenOf: (service: Service, user: SignedIn) => Promise<string | undefined> | string | undefined): Row => ({
  code,
  yields: async (service, user, send) => {
    const token = await tokenOf(service, user);
    return send('POST', '/ai-sessions', { body: good, ...(token === undefined ? {} : { token }) });
  },
});

const common: Row[] = [
  byTheBody('malformed_json', '{'),
  byTheBody('validation_failed', { input_text: 'short', model: 'test/first' }),
  byTheBody('body_too_large', 'x'.repeat(256 * 1024 + 1)),
  byTheBody('unsupported_media_type', 'text', { 'content-type': 'text/plain' }),
  byTheBody('invalid_parameter', good, { 'idempotency-key': '""' }),
  byTheToken('missing_token', () => undefined),
  byTheToken('invalid_token', () => 'no.real.token'),
  byTheToken('expired_token', (service, user) => service.world.auth.token(user, { expires_in_s: -3600 })),
  byTheToken('anonymous_not_allowed', async (service) => (await signIn(service, { anonymous: true })).token),
  { code: 'not_found', yields: (_service, { token }, send) => send('GET', `/ai-sessions/${crypto.randomUUID()}`, { token }) },
  { code: 'method_not_allowed', yields: (_service, { token }, send) => send('PATCH', '/ai-sessions', { token }) },
  {
    code: 'rate_limited',
    yields: async (_service, { token }, send) => {
      for (let n = 0; n < 2; n += 1) await send('POST', '/ai-sessions', { token, body: '{' });
      return send('POST', '/ai-sessions', { token, body: good });
    },
  },
  {
    code: 'idempotency_key_reused',
    yields: async (_service, { token }, send) => {
      const headers = { 'idempotency-key': 'k' };
      await send('POST', '/ai-sessions', { token, body: good, headers });
      return send('POST', '/ai-sessions', { token, body: { ...good, model: 'test/second' }, headers });
    },
  },
  {
    code: 'not_running',
    yields: async (_service, { token }, send) => {
      const { body } = await send('POST', '/ai-sessions', { token, body: good });
      return send('DELETE', `/ai-sessions/${body.id}`, { token });
    },
  },
  {
    code: 'cancelled',
    yields: async (service, user, send) => {
      service.world.openrouter.next(silence({ headers: true }));
      const waiting = send('POST', '/ai-sessions', { token: user.token, body: good });
      const session = await eventually('the session is open', async () => (await rowsOf(service, user)).sessions[0]);
      await sendRequest(service, 'DELETE', `/ai-sessions/${session['id']}`, { token: user.token });
      return waiting;
    },
  },
  byTheModel('ai_unavailable', httpError(503)),
  byTheModel('ai_timeout', silence({ headers: true })),
  byTheModel('ai_invalid_response', content('no cards')),
  byTheModel('ai_refused', refusal()),
  byTheModel('ai_misconfigured', httpError(402)),
  {
    code: 'database_error',
    yields: async (service, { token }, send) => {
      const set = service.world.gateway.fail('/rpc/finish_ai_session', { kind: 'answer', status: 503 });
      const answer = await send('POST', '/ai-sessions', { token, body: good });
      set.clear();
      return answer;
    },
  },
];

const withoutKeys: Row[] = [byTheToken('auth_unavailable', (_service, user) => user.token)];

const misconfigured: Row[] = [byTheToken('internal', (_service, user) => user.token)];

/** Status and code of each row of the table in docs/api.md. */
function problemTable(): [status: number, code: string][] {
  const document = readFileSync(new URL('../../docs/api.md', import.meta.url), 'utf8');
  const [, chapter = ''] = document.split('## Errors');
  const [table = ''] = chapter.split(/^## /m);
  const rows = [...table.matchAll(/^\| (\d{3}) \| `(\w+)` \|/gm)];
  assert.ok(rows.length > 20, 'the table is found');
  return rows.map(([, status, code]) => [Number(status), code ?? '']);
}

function walk(service: () => Service, rows: Row[]): void {
  for (const { code, yields } of rows) {
    it(`${code} has the format of every error`, async () => {
      const user = await signIn(service());
      let sent = '';
      const send: Send = (method, path, question = {}) => {
        sent = crypto.randomUUID();
        return sendRequest(service(), method, path, { ...question, headers: { origin: ORIGIN, 'x-request-id': sent, ...question.headers } });
      };
      const answer = await yields(service(), user, send);
      expectFormat(service(), answer, code);
      assert.equal(answer.body.request_id, sent, 'the caller’s own id');
    });

    it(`${code} has an id of its own if the caller sends none`, async () => {
      const user = await signIn(service());
      const send: Send = (method, path, question = {}) =>
        sendRequest(service(), method, path, { ...question, headers: { origin: ORIGIN, ...question.headers } });
      const answer = await yields(service(), user, send);
      expectFormat(service(), answer, code);
      assert.match(answer.body.request_id, UUID_V7);
    });
  }
}

/** Expects the members and headers of every error, sent with the origin of these tests. */
export function expectFormat(service: Service, { status, headers, body, text }: Answer, code: string): void {
  const row = problemTable().find(([, name]) => name === code);
  assert.deepEqual([status, body?.code], row, text);
  assert.equal(headers.get('content-type'), 'application/problem+json');

  const costsAGeneration = code.startsWith('ai_') || ['database_error', 'cancelled'].includes(code);
  const expected = new Set(['type', 'title', 'status', 'detail', 'code', 'request_id']);
  if (costsAGeneration) expected.add('retryable');
  if (['validation_failed', 'body_too_large', 'invalid_parameter'].includes(code)) expected.add('errors');
  if (code === 'rate_limited') expected.add('violated-policies');
  assert.deepEqual(new Set(Object.keys(body)), expected);
  assert.equal(body.type, code === 'rate_limited' ? QUOTA_EXCEEDED : `${service.url}/docs#${code}`);
  for (const member of ['title', 'detail']) {
    assert.equal(typeof body[member], 'string');
    assert.ok(body[member].trim().length > 0, member);
  }
  assert.equal(body.status, status);
  assert.equal(body.request_id, headers.get('x-request-id'));
  if (costsAGeneration) assert.equal(body.retryable, !['ai_refused', 'ai_misconfigured'].includes(code));
  if (code === 'validation_failed') expectFieldErrors(body.errors, { field: 'input_text', code: 'length', min: 1000, max: 10_000, actual: 5 });
  if (code === 'body_too_large') expectFieldErrors(body.errors, { field: '', code: 'length', max: 256 * 1024 });
  if (code === 'invalid_parameter') expectFieldErrors(body.errors, { field: 'Idempotency-Key', code: 'type' });
  if (code === 'rate_limited') assert.deepEqual(body['violated-policies'], ['burst']);

  // A misconfigured service lets every page read that, and nothing else.
  const allowed = headers.get('access-control-allow-origin');
  assert.equal(allowed, code === 'internal' ? '*' : ORIGIN);
  if (allowed !== '*') assert.match(headers.get('vary') ?? '', /\borigin\b/i);
  const exposed = (headers.get('access-control-expose-headers') ?? '').toLowerCase().split(/, */);
  for (const name of ['x-request-id', 'retry-after', 'ratelimit', 'ratelimit-policy']) assert.ok(exposed.includes(name), name);
  assert.equal(headers.get('cache-control'), 'no-store');

  const challenge = headers.get('www-authenticate');
  if (status !== 401) assert.equal(challenge, null);
  else if (code === 'missing_token') assert.match(challenge ?? '', /^Bearer realm="[^"]+"$/);
  else assert.match(challenge ?? '', /^Bearer realm="[^"]+", error="invalid_token"$/);
  assert.equal(headers.has('allow'), status === 405);
  if (status === 405) assert.match(headers.get('allow') ?? '', /^[A-Z]+(, ?[A-Z]+)*$/);
  const retryAfter = headers.get('retry-after');
  if (status === 429) assert.match(retryAfter ?? '', /^[1-9]\d*$/);
  else if (retryAfter !== null) assert.match(retryAfter, /^\d+$/);
  // Authenticated callers of POST /ai-sessions receive their limits.
  const ofThePost = ['malformed_json', 'validation_failed', 'invalid_parameter', 'body_too_large', 'unsupported_media_type', 'idempotency_key_reused', 'rate_limited'];
  const isCounted = costsAGeneration || ofThePost.includes(code);
  for (const name of ['ratelimit', 'ratelimit-policy']) assert.equal(headers.has(name), isCounted, name);
}

function expectFieldErrors(errors: Record<string, unknown>[], expected: object): void {
  assert.equal(errors.length, 1);
  const { message, ...rest } = errors[0] ?? {};
  assert.ok(typeof message === 'string' && message.length > 0);
  assert.deepEqual(rest, expected);
}

/** Returns the bytes on the wire: `fetch` would unpack them. */
function rawAnswer(service: Service, token: string, acceptEncoding: string): Promise<{ status: number; encoding: string | undefined; bytes: Buffer }> {
  const body = JSON.stringify(good);
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json', 'accept-encoding': acceptEncoding };
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(`${service.url}/ai-sessions`, { method: 'POST', headers, agent: false }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('error', reject);
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, encoding: answer.headers['content-encoding'], bytes: Buffer.concat(chunks) }));
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

function compression(service: () => Service): void {
  const expectStored = async (user: SignedIn, json: string) => {
    const { id, partial, candidates } = JSON.parse(json);
    const rows = await rowsOf(service(), user);
    assert.deepEqual([id, partial], [rows.sessions[0]?.['id'], false]);
    assert.deepEqual(candidates, rows.candidates.map(candidateOf));
    assert.equal(candidates.length, 20);
  };

  for (const accepted of ['gzip', 'deflate, gzip;q=0.9']) {
    it(`a 201 for "${accepted}" is gzip, smaller, and the same when unpacked`, async () => {
      const user = await signIn(service());
      const { status, encoding, bytes } = await rawAnswer(service(), user.token, accepted);
      assert.deepEqual([status, encoding], [201, 'gzip']);
      const unpacked = gunzipSync(bytes);
      assert.ok(bytes.length < unpacked.length / 2, `${bytes.length} of ${unpacked.length} bytes`);
      await expectStored(user, unpacked.toString('utf8'));
    });
  }

  for (const accepted of ['identity', 'gzip;q=0']) {
    it(`a 201 for "${accepted}" is not compressed`, async () => {
      const user = await signIn(service());
      const { status, encoding, bytes } = await rawAnswer(service(), user.token, accepted);
      assert.deepEqual([status, encoding], [201, undefined]);
      await expectStored(user, bytes.toString('utf8'));
    });
  }

  it('an error for "gzip" is the same error', async () => {
    const { token } = await signIn(service());
    service().world.openrouter.next(httpError(402));
    const { status, encoding, bytes } = await rawAnswer(service(), token, 'gzip');
    const json = encoding === 'gzip' ? gunzipSync(bytes) : bytes;
    assert.deepEqual([status, JSON.parse(json.toString('utf8')).code], [500, 'ai_misconfigured']);
  });
}
