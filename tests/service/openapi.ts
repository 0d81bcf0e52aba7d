// GET /openapi.json and GET /docs, and that they are true: every example is sent, and every described response is triggered
// and equals its example. (`sendRequest` checks in all tests that a response is described.)

import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import { answersTo, at, contract, type Json, schemaDeviations } from '../support/contract.ts';
import { parseEvents } from '../support/event_stream.ts';
import { createGate } from '../support/gate.ts';
import { SESSIONS_PATH } from '../support/gateway.ts';
import { answer, content, httpError, type ModelBehaviour, refusal, silence } from '../support/model_behaviour.ts';
import type { User } from '../support/world.ts';
import { type Answer, create, eventually, expectProblem, type RequestOptions, rowsOf, sendRequest, type Service, type SignedIn, signIn, started, type StartService } from './service.ts';

export function tests(start: StartService): void {
  const variables = { ALLOWED_MODELS: models.join(), AI_TIMEOUT_MS: '2000', AI_MAX_ATTEMPTS: '1' };
  const service = started(start, variables);
  let owner: SignedIn;
  before(async () => {
    owner = await signIn(service());
    await store(service(), owner, example('session'));
  });

  describe('GET /openapi.json', () => {
    it('any page can read and cache the document', async () => {
      const found = await sendRequest(service(), 'GET', '/openapi.json', { headers: { origin: 'https://cards.example' } });
      const [server] = found.body.servers;
      assert.equal(new URL(server.url, service().url).href.replace(/\/$/, ''), service().url);
      assert.deepEqual([found.status, { ...found.body, servers: [{ ...server, url: '/' }] }], [200, contract]);
      assert.equal(found.headers.get('content-type'), 'application/json');
      assert.equal(found.headers.get('access-control-allow-origin'), 'https://cards.example');
      assert.match(found.headers.get('cache-control') ?? '', /^public, max-age=\d+$/);
    });

    it('the document is OpenAPI 3.1', async () => {
      const { body } = await sendRequest(service(), 'GET', '/openapi.json');
      const validator = new Validator();
      const { valid, errors } = await validator.validate(body);
      assert.ok(valid, JSON.stringify(errors));
      assert.equal(validator.version, '3.1');
    });
  });

  describe('GET /docs', () => {
    it('the page may load and run nothing', async () => {
      const page = await sendRequest(service(), 'GET', '/docs');
      assert.equal(page.status, 200);
      assert.equal(page.headers.get('content-type'), 'text/html; charset=utf-8');
      assert.match(page.headers.get('content-security-policy') ?? '', /^default-src 'none'; style-src 'unsafe-inline';/);
      assert.doesNotMatch(page.text, /<script|<link|<img|https?:\/\/(?!service\.example)[^<]*["']? *>/);
    });

    it('the type of a problem is a link to /docs', async () => {
      const problem = expectProblem(await sendRequest(service(), 'GET', '/ai-sessions'), 401, 'missing_token');
      assert.equal(problem.type, `${service().url}/docs#missing_token`);
      const page = await sendRequest(service(), 'GET', '/docs');
      assert.ok(page.text.includes(' id=missing_token>'));
    });
  });

  it('the documents have no other paths', async () => {
    for (const path of ['/docs.html', '/docs/', '/openapi', '/assets/docs.html', '/index.html']) {
      expectProblem(await sendRequest(service(), 'GET', path), 404, 'not_found');
    }
  });

  describe('a misconfigured service', () => {
    const broken = started(start, { AI_TIMEOUT_MS: '-1' });
    for (const path of ['/openapi.json', '/docs']) {
      it(`${path} is available with a bad configuration`, async () => assert.equal((await sendRequest(broken(), 'GET', path)).status, 200));
    }
  });

  describe('every example fits its schema', () => {
    for (const [pointer, value, schema] of describedValues()) {
      it(`${pointer} fits its schema`, () => assert.deepEqual(schemaDeviations(schema, value), []));
    }
  });

  describe('every parameter can be sent as its example', () => {
    it('an invalid header is refused in sync and stream mode', async () => {
      const { token } = await signIn(service());
      for (const accept of ['application/json', 'text/event-stream']) {
        const headers = { accept, 'last-event-id': '1' };
        expectProblem(await create(service(), token, good, headers), 400, 'invalid_parameter');
      }
    });
    for (const { id, method, path } of operations()) {
      it(`${id} accepts the examples of all parameters`, async () => {
        // The owner has the session of the examples.
        const { token } = method === 'POST' ? await signIn(service()) : owner;
        const { question, target } = withAllParameters(method, path);
        const answered = await sendRequest(service(), method, target, { ...question, token });
        const sent = contract['components'].parameters['X-Request-Id'].example;
        assert.equal(answered.headers.get('x-request-id'), sent);
        const expected: Record<string, number> = { createSession: 202, stopSession: 409 };
        assert.equal(answered.status, expected[id] ?? 200, answered.text);
      });
    }
  });

  describe('every described response can be triggered', () => {
    const services: Record<Setting, () => Service> = {
      well: service,
      tight: started(start, { ...variables, RATE_LIMIT_BURST: '1/60', RATE_LIMIT_READS: '1/60' }),
      priced: started(start, { ...variables, RATE_LIMIT_SPEND: '0.50/86400', AI_MAX_PRICE: '1/5' }),
      keyless: started(start, variables),
      broken: started(start, { ALLOWED_MODELS: models.join(), OPENROUTER_API_KEY: '' }),
    };
    before(() => {
      services.keyless().world.gateway.fail('/auth/v1/.well-known/jwks.json', { kind: 'answer', status: 503 });
    });
    for (const { id, method, path } of operations()) {
      for (const { name, status, code, mediaType, value } of examplesOfAnswers(method, path)) {
        const way = ways[`${id} ${name}`] ?? ways[`${id} ${code ?? status}`] ?? ways[code ?? ''];
        if (BY_A_BROKEN_HOST.includes(code ?? '') || (code === 'internal' && isPublic(id))) continue;
        it(`${id} ${status} ${code ?? mediaType} ${name} equals its example`, async () => {
          assert.ok(way !== undefined, 'there is a way to trigger it');
          const there = services[way.setting ?? 'well']();
          const user = there === service() ? owner : await signIn(there);
          const answered = await way.send({ service: there, owner: user, method, path: path.replace('{id}', example('session')['id']) });
          assert.equal(answered.status, Number(status), answered.text);
          const given = mediaType === 'text/event-stream' ? parseEvents(answered.text) : answered.body;
          const shown = mediaType === 'text/event-stream' ? parseEvents(value) : value;
          assert.deepEqual(masked(given), masked(shown));
        });
      }
    }
  });

  describe('responses to other requests', () => {
    it('the preflight of any path is 204', async () => {
      for (const path of ['/ai-sessions', '/nothing']) assert.equal((await sendRequest(service(), 'OPTIONS', path)).status, 204);
    });
    for (const [method, path, status, name] of [['GET', '/nothing', 404, 'no_such_path'], ['PUT', '/ai-sessions', 405, 'method_not_allowed']] as const) {
      it(`${method} ${path} is the ${status} of the example`, async () => {
        const answered = await sendRequest(service(), method, path);
        assert.equal(answered.status, status);
        assert.deepEqual(masked(answered.body), masked(example(name)));
      });
    }
  });
}

/** Codes that no caller or upstream can trigger: user_object_unreachable.test.ts breaks the host; no host needs the other. */
const BY_A_BROKEN_HOST = ['rate_limiter_unavailable', 'idempotency_in_progress'];

/** Operations whose only `internal` is that of a broken host: trap.test.ts, missing_assets.test.ts. */
const isPublic = (id: string) => ['health', 'ready', 'openapi', 'docs'].includes(id);

const models: string[] = example('models')['models'].map(({ id }: { id: string }) => id);

/** The value of a named example. */
function example(name: string): Json {
  return contract['components'].examples[name].value;
}

type Operation = { id: string; method: string; path: string };

function operations(): Operation[] {
  return Object.entries<Json>(contract['paths']).flatMap(([path, item]) =>
    Object.keys(item)
      .filter((name) => name !== 'parameters')
      .map((name) => ({ id: item[name].operationId, method: name.toUpperCase(), path })),
  );
}

type AnswerExample = { name: string; status: string; code: string | undefined; mediaType: string; value: any };

function examplesOfAnswers(method: string, path: string): AnswerExample[] {
  return Object.entries(answersTo(method, path)).flatMap(([status, { response }]) =>
    Object.entries<Json>(response['content'] ?? {}).flatMap(([mediaType, body]) =>
      Object.entries<Json>(body['examples'] ?? {}).map(([name, ref]) => {
        const { value } = at(ref['$ref']);
        return { name, status, code: value.code, mediaType, value };
      }),
    ),
  );
}

/** Every example of the document, with the pointer of its schema. */
function describedValues(): [pointer: string, value: unknown, schema: string][] {
  const found: [string, unknown, string][] = [];
  const walk = (pointer: string, value: any) => {
    if (typeof value !== 'object' || value === null || pointer === '#/components/examples') return;
    if (value.schema !== undefined) {
      if (value.example !== undefined) found.push([pointer, value.example, `${pointer}/schema`]);
      for (const [name, ref] of Object.entries<Json>(value.examples ?? {})) {
        // This example is invalid on purpose.
        if (name === 'too_short' && pointer.includes('requestBody')) continue;
        found.push([`${pointer} ${name}`, at(ref['$ref'])['value'], `${pointer}/schema`]);
      }
    }
    for (const [key, member] of Object.entries(value)) walk(`${pointer}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`, member);
  };
  walk('#', contract);
  return found;
}

function withAllParameters(method: string, path: string): { target: string; question: RequestOptions } {
  const item = contract['paths'][path];
  const parameters = [...(item.parameters ?? []), ...(item[method.toLowerCase()].parameters ?? [])].map((parameter: Json) =>
    parameter['$ref'] === undefined ? parameter : at(parameter['$ref']),
  );
  const placed = (place: string) => parameters.filter((parameter) => parameter['in'] === place).map(({ name, example }) => [name, String(example)]);
  const query = new URLSearchParams(placed('query')).toString();
  const target = path.replace('{id}', Object.fromEntries(placed('path')).id ?? '') + (query === '' ? '' : `?${query}`);
  const question: RequestOptions = { headers: Object.fromEntries(placed('header')) };
  return { target, question: method === 'POST' ? { ...question, body: example('water_cycle') } : question };
}

/** Replaces what differs each time: ids, times, figures, the service's own URL. */
function masked(value: unknown): unknown {
  const text = JSON.stringify(value)
    .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, 'an id')
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'a time')
    .replace(/"(latency_ms|prompt_tokens|completion_tokens|cost)":[\d.e-]+/g, '"$1":0')
    .replace(/https?:\/\/[^"]+?\/docs#/g, 'https://service.example/docs#');
  return JSON.parse(text);
}

/** Inserts a completed session of the owner, past the service. */
async function store({ world }: Service, user: User, session: Json): Promise<void> {
  const { id, model, created_at, ended_at, usage, candidates } = session;
  await world.sql(
    `insert into ai_generation_sessions
       (id, user_id, status, model, input_text, prompt_tokens, completion_tokens, cost, created_at, ended_at, coverage_percent)
     values ($1, $2, 'completed', $3, $4, $5, $6, $7, $8, $9, $10)`,
    [id, user.id, model, example('water_cycle')['input_text'], usage.prompt_tokens, usage.completion_tokens, usage.cost, created_at, ended_at, Math.round(example('created')['coverage'] * 100)],
  );
  for (const [position, candidate] of candidates.entries()) {
    const { source, supported, notes } = candidate;
    await world.sql(
      `insert into flashcard_candidates (id, session_id, user_id, position, front, back, prompt, source_start, source_end, supported, notes)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
      [candidate.id, id, user.id, position, candidate.front, candidate.back, candidate.prompt, source.start, source.end, supported, notes],
    );
  }
}

type Setting = 'well' | 'tight' | 'priced' | 'keyless' | 'broken';

/** A request that triggers a certain response. `owner` has the session of the examples where that exists. */
type Exchange = { service: Service; owner: SignedIn; method: string; path: string };
type Way = { setting?: Setting; send: (exchange: Exchange) => Promise<Answer> };

const good = example('water_cycle');

/** Sends the operation as described, with that token. */
function plainly({ service, method, path }: Exchange, token: string | undefined, question: RequestOptions = {}): Promise<Answer> {
  const body = method === 'POST' ? { body: good } : {};
  return sendRequest(service, method, path, { ...body, ...(token === undefined ? {} : { token }), ...question });
}

const byToken = (tokenOf: (exchange: Exchange) => Promise<string | undefined> | string | undefined): Way => ({
  send: async (exchange) => plainly(exchange, await tokenOf(exchange)),
});

const asOwner = (question: RequestOptions = {}): Way => ({ send: (exchange) => plainly(exchange, exchange.owner.token, question) });

/** Sends a `POST` of a new user, with that behaviour of the model. */
const whileTheModel = (behaviour: ModelBehaviour, question: RequestOptions = {}): Way => ({
  send: async (exchange) => {
    exchange.service.world.openrouter.next(behaviour);
    return plainly(exchange, (await signIn(exchange.service)).token, question);
  },
});

/** Sends the request of a new user with these options. */
const asNewcomer = (question: RequestOptions, path?: string): Way => ({
  send: async (exchange) => plainly(path === undefined ? exchange : { ...exchange, path }, (await signIn(exchange.service)).token, question),
});

const withoutDatabase = (path: string): Way => ({
  send: async (exchange) => {
    const set = exchange.service.world.gateway.fail(path, { kind: 'answer', status: 503 });
    try {
      return await plainly(exchange, (await signIn(exchange.service)).token);
    } finally {
      set.clear();
    }
  },
});

/** The numbers of the sentences that the examples come from. */
const SENTENCES = [[2, 3], [10]];
const candidates = () => answer({ candidates: example('created')['candidates'].map(({ front, back, prompt }: Json, n: number) => ({ source: SENTENCES[n], front, back, prompt })) });

/** How to trigger each response: of an operation, or of any. */
const ways: Record<string, Way> = {
  missing_token: byToken(() => undefined),
  invalid_token: byToken(() => 'no.real.token'),
  expired_token: byToken(({ service, owner }) => service.world.auth.token(owner, { expires_in_s: -3600 })),
  anonymous_not_allowed: byToken(async ({ service }) => (await signIn(service, { anonymous: true })).token),
  not_found: asNewcomer({}),
  database_error: withoutDatabase(SESSIONS_PATH),
  auth_unavailable: { setting: 'keyless', send: (exchange) => plainly(exchange, exchange.owner.token) },
  rate_limited: {
    setting: 'tight',
    send: async (exchange) => {
      const { token } = await signIn(exchange.service);
      await plainly(exchange, token);
      return plainly(exchange, token);
    },
  },
  internal: { setting: 'broken', send: (exchange) => plainly(exchange, exchange.owner.token) },

  'createSession 200': whileTheModel(candidates(), { headers: { accept: 'text/event-stream' } }),
  'createSession 201': whileTheModel(candidates()),
  'createSession 202': asNewcomer({ headers: { prefer: 'respond-async' } }),
  'createSession malformed_json': asNewcomer({ body: '{' }),
  'createSession validation_failed': asNewcomer({ body: example('too_short') }),
  'createSession invalid_parameter': asNewcomer({ headers: { 'idempotency-key': 'two words' } }),
  'createSession body_too_large': asNewcomer({ body: 'x'.repeat(262_145) }),
  'createSession unsupported_media_type': asNewcomer({ body: 'text', headers: { 'content-type': 'text/plain' } }),
  'createSession idempotency_key_reused': {
    send: async (exchange) => {
      const { token } = await signIn(exchange.service);
      const headers = { 'idempotency-key': '"a"' };
      await plainly(exchange, token, { headers });
      return plainly(exchange, token, { headers, body: { ...good, model: models[1] } });
    },
  },
  'createSession not_found': {
    send: async (exchange) => {
      const user = await signIn(exchange.service);
      const headers = { 'idempotency-key': '"a"' };
      await plainly(exchange, user.token, { headers });
      await exchange.service.world.sql('delete from ai_generation_sessions where user_id = $1', [user.id]);
      return plainly(exchange, user.token, { headers });
    },
  },
  'createSession cancelled': {
    send: async (exchange) => {
      const user = await signIn(exchange.service);
      const gate = createGate();
      exchange.service.world.openrouter.next(answer({ hold: { gate, after_candidates: 0 } }));
      const waiting = plainly(exchange, user.token);
      await gate.reached;
      const id = await eventually('the row is open', async () => (await rowsOf(exchange.service, user)).sessions[0]?.['id']);
      const stopped = await sendRequest(exchange.service, 'DELETE', `/ai-sessions/${id}`, { token: user.token });
      assert.equal(stopped.status, 204);
      gate.open();
      return waiting;
    },
  },
  'createSession rate_limited': {
    setting: 'tight',
    send: async (exchange) => {
      await plainly(exchange, exchange.owner.token, { body: '{' });
      return plainly(exchange, exchange.owner.token);
    },
  },
  'createSession spend_limited': {
    setting: 'priced',
    send: async (exchange) => {
      const { limit, remaining } = example('spend_limited')['spend'];
      exchange.service.world.openrouter.next(answer({ cost: Number(limit) - Number(remaining) }));
      await plainly(exchange, exchange.owner.token);
      return plainly(exchange, exchange.owner.token);
    },
  },
  'createSession ai_unavailable': whileTheModel(httpError(503)),
  'createSession ai_timeout': whileTheModel(silence({ headers: true })),
  'createSession ai_invalid_response': whileTheModel(content('no cards')),
  'createSession ai_refused': whileTheModel(refusal()),
  'createSession ai_misconfigured': whileTheModel(httpError(402)),
  'createSession database_error': withoutDatabase('/rpc/finish_ai_session'),

  'listSessions 200': asOwner(),
  'listSessions invalid_parameter': asNewcomer({}, '/ai-sessions?limit=101'),
  'readSession 200': asOwner(),
  'followSession 200': asOwner(),
  'followSession invalid_parameter': asNewcomer({ headers: { 'last-event-id': 'x' } }),
  'stopSession not_running': asOwner(),

  'listModels 200': asNewcomer({}),
  'health 200': asNewcomer({}),
  'ready 200': asNewcomer({}),
  'ready unavailable': { setting: 'keyless', send: (exchange) => plainly(exchange, undefined) },
  'ready misconfigured': { setting: 'broken', send: (exchange) => plainly(exchange, undefined) },
};
