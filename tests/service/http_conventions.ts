// Common to all routes: paths and methods, CORS, ids, caching, compression, the trace, the log.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGate } from '../support/gate.ts';
import { concernsRows } from '../support/gateway.ts';
import { gated, httpError } from '../support/model_behaviour.ts';
import {
  type Answer,
  create,
  eventually,
  expectProblem,
  read,
  type Row,
  sendRequest,
  type Service,
  signIn,
  started,
  type StartService,
  UUID_V7,
} from './service.ts';

const ORIGIN = 'https://cards.example';

export function tests(start: StartService): void {
  describe('with the default variables', () => {
    const service = started(start, { RATE_LIMIT_BURST: '5/60' });
    describe('a path', () => paths(service));
    describe('GET /models and GET /health', () => openRoutes(service));
    describe('a page of another origin', () => cors(service));
    describe('the request id', () => requestIds(service));
    describe('an answer', () => headers(service));
    describe('the trace', () => trace(service));
    describe('the log', () => log(service));
  });
  describe('with ALLOWED_ORIGINS=* and LOG_LEVEL=error', () => openToAll(start));
  describe('with a bad configuration', () => badConfiguration(start));
  describe('without a configuration', () => noConfiguration(start));
}

function paths(service: () => Service): void {
  for (const path of ['/', '/ai-session', '/ai-sessions/', '/ai-sessions/a/b', '/AI-SESSIONS', '/health/', '/models/x', '/favicon.ico', '/%2Fhealth']) {
    it(`${path} is not found`, async () => {
      for (const method of ['GET', 'POST']) expectProblem(await sendRequest(service(), method, path), 404, 'not_found');
    });
  }

  for (const [method, path, allowed] of [
    ['PUT', '/ai-sessions', 'POST'],
    ['PATCH', `/ai-sessions/${crypto.randomUUID()}`, 'GET'],
    ['POST', '/models', 'GET'],
    ['DELETE', '/health', 'GET'],
  ] as const) {
    it(`${method} ${path} is not allowed, and Allow names the methods`, async () => {
      const refused = await sendRequest(service(), method, path);
      expectProblem(refused, 405, 'method_not_allowed');
      const allow = refused.headers.get('allow')?.split(/, */) ?? [];
      assert.ok(allow.includes(allowed) && allow.includes('OPTIONS') && !allow.includes(method), allow.join());
    });
  }

  it('a query does not change the route', async () => {
    assert.equal((await sendRequest(service(), 'GET', '/health?a=b')).status, 200);
  });
}

function openRoutes(service: () => Service): void {
  it('/models names the allowed models, the default first, to anyone', async () => {
    const found = await sendRequest(service(), 'GET', '/models');
    assert.equal(found.status, 200);
    assert.equal(found.headers.get('content-type'), 'application/json');
    assert.deepEqual(found.body, {
      models: [
        { id: 'test/first', default: true },
        { id: 'test/second', default: false },
      ],
    });
  });

  it('/health is 200 during outages and sends no request', async () => {
    const { gateway, openrouter } = service().world;
    gateway.requests.clear();
    gateway.down();
    openrouter.down();
    const found = await sendRequest(service(), 'GET', '/health');
    gateway.up();
    openrouter.up();
    assert.equal(found.status, 200);
    assert.deepEqual(Object.keys(found.body).sort(), ['status', 'version']);
    assert.equal(found.body.status, 'ok');
    assert.match(found.body.version, /^\d+\.\d+\.\d+/);
    assert.equal(gateway.requests.total, 0);
  });
}

const members = (field: string | null): string[] => (field ?? '').toLowerCase().split(/, */);

function cors(service: () => Service): void {
  const preflight = (origin: string, path = '/ai-sessions') =>
    sendRequest(service(), 'OPTIONS', path, {
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,content-type',
      },
    });
  const expectReadable = ({ headers }: Answer) => {
    assert.equal(headers.get('access-control-allow-origin'), ORIGIN);
    assert.ok(members(headers.get('vary')).includes('origin'), 'a cache distinguishes origins');
    assert.equal(headers.get('access-control-allow-credentials'), null);
    const exposed = members(headers.get('access-control-expose-headers'));
    for (const name of ['x-request-id', 'location', 'retry-after', 'ratelimit', 'ratelimit-policy']) {
      assert.ok(exposed.includes(name), `${name} is exposed`);
    }
  };

  for (const path of ['/ai-sessions', `/ai-sessions/${crypto.randomUUID()}`, '/models', '/not-there-but-its-404-is-to-be-read']) {
    it(`a page of an allowed origin may request ${path}`, async () => {
      const { status, headers, text } = await preflight(ORIGIN, path);
      assert.equal(status, 204);
      assert.equal(text, '');
      assert.equal(headers.get('access-control-allow-origin'), ORIGIN);
      assert.ok(members(headers.get('vary')).includes('origin'));
      assert.equal(headers.get('access-control-allow-credentials'), null);
      const methods = members(headers.get('access-control-allow-methods'));
      for (const method of ['get', 'post']) assert.ok(methods.includes(method), method);
      const names = members(headers.get('access-control-allow-headers'));
      for (const name of ['authorization', 'content-type', 'idempotency-key', 'x-request-id', 'traceparent']) {
        assert.ok(names.includes(name), name);
      }
      assert.ok(Number(headers.get('access-control-max-age')) > 0);
    });
  }

  for (const origin of ['https://evil.example', 'http://cards.example', 'https://cards.example.evil.example', 'https://cards.example:8443', 'null']) {
    it(`a page of ${origin} is not allowed`, async () => {
      for (const answer of [await preflight(origin), await sendRequest(service(), 'GET', '/models', { headers: { origin } })]) {
        assert.equal(answer.headers.get('access-control-allow-origin'), null);
        assert.ok(members(answer.headers.get('vary')).includes('origin'));
      }
    });
  }

  const origin = { origin: ORIGIN };
  const answers: Record<string, () => Promise<Answer>> = {
    200: () => sendRequest(service(), 'GET', '/models', { headers: origin }),
    201: async () => create(service(), (await signIn(service())).token, undefined, origin),
    400: async () => create(service(), (await signIn(service())).token, '{', origin),
    401: () => create(service(), 'wrong', undefined, origin),
    404: () => sendRequest(service(), 'GET', '/nothing', { headers: origin }),
    405: () => sendRequest(service(), 'PUT', '/models', { headers: origin }),
    415: async () => create(service(), (await signIn(service())).token, 'x', { ...origin, 'content-type': 'text/plain' }),
    429: async () => {
      const { token } = await signIn(service());
      for (let n = 0; n < 5; n += 1) await create(service(), token, '{');
      return create(service(), token, '{', origin);
    },
    500: async () => {
      service().world.openrouter.next(httpError(402));
      return create(service(), (await signIn(service())).token, undefined, origin);
    },
  };
  for (const [status, answered] of Object.entries(answers)) {
    it(`a page of an allowed origin can read a ${status}`, async () => {
      const answer = await answered();
      assert.equal(answer.status, Number(status), answer.text);
      expectReadable(answer);
    });
  }
}

function requestIds(service: () => Service): void {
  const models = (id?: string) => sendRequest(service(), 'GET', '/models', { headers: id === undefined ? {} : { 'x-request-id': id } });

  it('a request without an id receives a new one', async () => {
    const ids = (await Promise.all([models(), models()])).map(({ headers }) => headers.get('x-request-id'));
    for (const id of ids) assert.match(id ?? '', UUID_V7);
    assert.notEqual(ids[0], ids[1]);
  });

  it('a UUID sent by the caller is the request id, in errors too', async () => {
    const id = crypto.randomUUID();
    assert.equal((await models(id)).headers.get('x-request-id'), id);
    const failed = await sendRequest(service(), 'GET', '/nothing', { headers: { 'x-request-id': id } });
    assert.equal(expectProblem(failed, 404, 'not_found').request_id, id);
    const refused = await create(service(), (await signIn(service())).token, '{', { 'x-request-id': id });
    assert.equal(expectProblem(refused, 400, 'malformed_json').request_id, id);
    service().world.openrouter.next(httpError(402));
    const unlucky = await create(service(), (await signIn(service())).token, undefined, { 'x-request-id': id });
    assert.equal(expectProblem(unlucky, 500, 'ai_misconfigured').request_id, id);
  });

  for (const sent of ['1', 'abc', 'x'.repeat(36), `${crypto.randomUUID()}0`, `${crypto.randomUUID()}, ${crypto.randomUUID()}`, '"><script>']) {
    it(`the request id "${sent}" is replaced`, async () => {
      assert.match((await models(sent)).headers.get('x-request-id') ?? '', UUID_V7);
    });
  }
}

function headers(service: () => Service): void {
  it('responses with a user’s data are not cached', async () => {
    const { token } = await signIn(service());
    const created = await create(service(), token);
    for (const answer of [
      created,
      await read(service(), token, created.body.id),
      await read(service(), token, crypto.randomUUID()),
      await create(service(), token, '{'),
      await create(service(), 'wrong'),
    ]) {
      assert.equal(answer.headers.get('cache-control'), 'no-store', String(answer.status));
    }
  });

  it('a response is compressed for clients that accept it', async () => {
    const { token } = await signIn(service());
    const [plain, gzipped] = [{ 'accept-encoding': 'identity' }, { 'accept-encoding': 'gzip' }];
    const created = await create(service(), token, undefined, gzipped);
    assert.equal(created.headers.get('content-encoding'), 'gzip');
    const path = `/ai-sessions/${created.body.id}`;
    const compressed = await sendRequest(service(), 'GET', path, { token, headers: gzipped });
    assert.equal(compressed.headers.get('content-encoding'), 'gzip');
    const whole = await sendRequest(service(), 'GET', path, { token, headers: plain });
    assert.equal(whole.headers.get('content-encoding'), null);
    assert.deepEqual(compressed.body, whole.body);
  });

  it('Server-Timing has the duration of each stage', async () => {
    const { token } = await signIn(service());
    const timing = (await create(service(), token)).headers.get('server-timing') ?? '';
    assert.deepEqual(timing.split(', ').map((stage) => stage.replace(/;dur=\d+(\.\d+)?$/, '')), ['auth', 'model', 'database', 'total']);
  });
}

function trace(service: () => Service): void {
  const traced = async (traceparent: string) => {
    const { gateway, openrouter } = service().world;
    const { token } = await signIn(service());
    gateway.requests.clear();
    openrouter.requests.clear();
    const { status, body } = await create(service(), token, undefined, { traceparent });
    assert.equal(status, 201);
    await sendRequest(service(), 'GET', `/ai-sessions/${body.id}`, { token, headers: { traceparent } });
    const sent = [...gateway.requests.where(concernsRows), ...openrouter.requests.recent];
    assert.equal(sent.length, 4);
    return sent.map(({ headers }) => headers['traceparent']);
  };

  it('the caller’s traceparent is sent to the database and the model API', async () => {
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    assert.deepEqual(await traced(traceparent), Array(4).fill(traceparent));
  });

  for (const field of ['nonsense', '00-00000000000000000000000000000000-00f067aa0ba902b7-01', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7']) {
    it(`an invalid traceparent (${field}) is not forwarded`, async () => {
      assert.deepEqual(await traced(field), Array(4).fill(undefined));
    });
  }
}

/** The log lines of one request. */
function linesOf(service: Service, id: string): Row[] {
  const lines = service.logs.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Row);
  return lines.filter(({ request_id }) => request_id === id);
}

function lineOf(service: Service, { headers }: Answer): Promise<Row> {
  return eventually('the line', () => linesOf(service, headers.get('x-request-id') ?? '')[0]);
}

function log(service: () => Service): void {
  it('a generation has one log line with all of its fields', async () => {
    const user = await signIn(service());
    const created = await create(service(), user.token);
    const { level, method, route, status, code, session_id, model, attempts, usage, ...line } = await lineOf(service(), created);
    assert.deepEqual(
      { level, method, route, status, code, session_id, model, attempts },
      {
        level: 'info',
        method: 'POST',
        route: '/ai-sessions',
        status: 201,
        code: undefined,
        session_id: created.body.id,
        model: 'test/first',
        attempts: 1,
      },
    );
    assert.ok(usage.prompt_tokens > 0 && usage.completion_tokens > 0 && usage.cost > 0);
    for (const stage of ['duration_ms', 'auth_ms', 'model_ms', 'database_ms']) {
      assert.ok(Number.isInteger(line[stage]) && line[stage] >= 0, `${stage}: ${line[stage]}`);
    }
    assert.match(line['user'], /^[0-9a-f]{16,}$/);
  });

  it('each request has one log line', async () => {
    const { token } = await signIn(service());
    const answers = [
      await create(service(), token),
      await create(service(), token, '{'),
      await sendRequest(service(), 'GET', '/models'),
      await sendRequest(service(), 'GET', '/nothing'),
      await create(service(), 'wrong'),
    ];
    for (const answer of answers) await lineOf(service(), answer);
    for (const { headers } of answers) assert.equal(linesOf(service(), headers.get('x-request-id') ?? '').length, 1);
  });

  for (const [name, send, expected] of [
    ['a path that is not there', () => sendRequest(service(), 'GET', '/nothing?token=hidden'), { status: 404, code: 'not_found', level: 'info' }],
    ['a wrong token', () => create(service(), 'wrong'), { status: 401, code: 'invalid_token', level: 'info' }],
    ['a bad body', async () => create(service(), (await signIn(service())).token, '{'), { status: 400, code: 'malformed_json', level: 'info' }],
    [
      'a model API that refuses the service',
      async () => {
        service().world.openrouter.next(httpError(402));
        return create(service(), (await signIn(service())).token);
      },
      { status: 500, code: 'ai_misconfigured', level: 'error' },
    ],
    [
      'a database outage',
      async () => {
        const { gateway, openrouter } = service().world;
        const gate = createGate();
        openrouter.reset();
        openrouter.next(gated(gate));
        const { token } = await signIn(service());
        const set = gateway.fail(concernsRows, { kind: 'answer', status: 503 });
        const answer = await create(service(), token);
        set.clear();
        gate.open();
        return answer;
      },
      { status: 500, code: 'database_error', level: 'warn' },
    ],
  ] as const) {
    it(`the log line of ${name} has its code`, async () => {
      const { status, code, level } = await lineOf(service(), await send());
      assert.deepEqual({ status, code, level }, expected);
    });
  }

  it('the log has a stable pseudonym and never the user id', async () => {
    const user = await signIn(service());
    const [first, second] = [await create(service(), user.token), await create(service(), user.token, '{')];
    assert.equal((await lineOf(service(), first))['user'], (await lineOf(service(), second))['user']);
    for (const personal of [user.id, user.email ?? user.id]) {
      assert.deepEqual(service().logs.filter((line) => line.includes(personal)), []);
    }
  });

  // `started` checks for every service of this folder that no line has a token, a key or a text.
}

function openToAll(start: StartService): void {
  const service = started(start, { ALLOWED_ORIGINS: '*', LOG_LEVEL: 'error' });

  it('any page may read, but never with credentials', async () => {
    const { token } = await signIn(service());
    for (const answer of [
      await create(service(), token, undefined, { origin: 'https://any.example' }),
      await create(service(), 'wrong', undefined, { origin: 'https://any.example' }),
      await sendRequest(service(), 'OPTIONS', '/ai-sessions', { headers: { origin: 'https://any.example' } }),
    ]) {
      assert.equal(answer.headers.get('access-control-allow-origin'), '*');
      assert.equal(answer.headers.get('access-control-allow-credentials'), null);
    }
  });

  it('LOG_LEVEL=error logs only errors that an operator must act on', async () => {
    const { token } = await signIn(service());
    await create(service(), token);
    service().world.openrouter.next(httpError(402));
    const failed = await create(service(), token);
    await lineOf(service(), failed);
    const levels = service().logs.filter((line) => line.startsWith('{')).map((line) => (JSON.parse(line) as Row)['level']);
    assert.deepEqual([...new Set(levels)], ['error']);
  });
}

function badConfiguration(start: StartService): void {
  const service = started(start, {
    SUPABASE_URL: '',
    OPENROUTER_BASE_URL: 'openrouter.ai/marker-of-the-value',
    RATE_LIMIT_BURST: '0/0',
    AI_TIMEOUT_MS: '-1',
    ALLOWED_MODELS: ' , ',
    AI_FALLBACK: 'perhaps',
    LOG_LEVEL: 'loud',
  });
  const names = ['SUPABASE_URL', 'OPENROUTER_BASE_URL', 'RATE_LIMIT_BURST', 'AI_TIMEOUT_MS', 'ALLOWED_MODELS', 'AI_FALLBACK', 'LOG_LEVEL'];

  it('a bad configuration is 500 internal on every route', async () => {
    const { token } = await signIn(service());
    const headers = { origin: ORIGIN };
    for (const answer of [
      await create(service(), token, undefined, headers),
      await create(service(), 'wrong', undefined, headers),
      await sendRequest(service(), 'GET', `/ai-sessions/${crypto.randomUUID()}`, { token, headers }),
      await sendRequest(service(), 'GET', '/models', { headers }),
    ]) {
      expectProblem(answer, 500, 'internal');
      assert.match(answer.headers.get('x-request-id') ?? '', UUID_V7);
      assert.ok(['*', ORIGIN].includes(answer.headers.get('access-control-allow-origin') ?? ''));
      for (const name of names) assert.ok(!answer.text.includes(name), 'the response does not name the variable');
    }
  });

  it('/health is 200 with a bad configuration', async () => {
    const found = await sendRequest(service(), 'GET', '/health');
    assert.deepEqual([found.status, found.body.status], [200, 'ok']);
  });

  it('the log names each invalid variable and no value', async () => {
    await sendRequest(service(), 'GET', '/models');
    const line = await eventually('the line', () => service().logs.find((line) => line.includes('RATE_LIMIT_BURST')));
    for (const name of names) assert.ok(line.includes(name), name);
    assert.equal((JSON.parse(line) as Row)['level'], 'error');
    assert.deepEqual(service().logs.filter((line) => line.includes('marker-of-the-value')), []);
  });
}

function noConfiguration(start: StartService): void {
  const required = ['SUPABASE_URL', 'SUPABASE_ANON_KEY', 'OPENROUTER_API_KEY'];
  const service = started(start, Object.fromEntries(required.map((name) => [name, ''])));

  it('the log names each required variable', async () => {
    expectProblem(await sendRequest(service(), 'GET', '/models'), 500, 'internal');
    const line = await eventually('the line', () => service().logs.find((line) => line.includes('SUPABASE_URL')));
    for (const name of required) assert.ok(line.includes(name), name);
  });
}
