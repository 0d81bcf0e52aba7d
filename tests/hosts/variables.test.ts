// Variables in unusual formats: numbers and booleans without quotes (which must not count as not set), values with line ends,
// a weak secret, origins of apps, `localhost`.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create, eventually, expectProblem, sendRequest, signIn, started } from '../service/service.ts';
import { startAfter, startOnWorkerd } from './workerd.ts';

const unquoted = (variables: Record<string, unknown>) => startAfter('', variables as Record<string, string>);

it('a number without quotes is read, and refused if invalid', async () => {
  const service = await unquoted({ AI_MAX_ATTEMPTS: 11, MAX_CANDIDATES: 5, AI_FALLBACK: true, LOG_LEVEL: {} });
  try {
    const { status, body } = await sendRequest(service, 'GET', '/health/ready');
    assert.equal(status, 503);
    const wrong = (body.checks as { detail: string }[]).map(({ detail }) => detail.split(' ')[0]);
    assert.deepEqual(wrong, ['AI_MAX_ATTEMPTS', 'LOG_LEVEL']);
  } finally {
    await service.close();
  }
});

it('a weak API key is refused as the hash key without a secret', async () => {
  const service = await startAfter('', { OPENROUTER_API_KEY: 'ollama' });
  try {
    const { status, body } = await sendRequest(service, 'GET', '/health/ready');
    assert.equal(status, 503);
    const [check] = body.checks as { name: string; detail: string }[];
    assert.deepEqual([check?.name, check?.detail.split(' ')[0]], ['configuration', 'SERVICE_SECRET']);
    assert.match(check?.detail ?? '', /OPENROUTER_API_KEY.*32.*openssl rand -hex 32/);
    const { token } = await signIn(service);
    expectProblem(await create(service, token), 500, 'internal');
    assert.equal(service.world.openrouter.requests.total, 0);
    await eventually('the log line is written', () => service.logs.find((line) => line.includes('"configuration"') && line.includes('SERVICE_SECRET')));
  } finally {
    await service.close();
  }
});

describe('values with line ends around them', () => {
  const service = started(startOnWorkerd, (world) => ({
    SUPABASE_URL: `${world.supabaseUrl}/\r\n`,
    SUPABASE_ANON_KEY: `${world.anonKey}\n`,
    SUPABASE_JWT_SECRET: `\uFEFF${world.jwtSecret}\r\n`,
    OPENROUTER_API_KEY: `\uFEFF${world.openrouter.key}\r\n`,
    OPENROUTER_BASE_URL: `${world.openrouter.url}/ \n`,
    ALLOWED_MODELS: 'test/first\r\n',
    ALLOWED_ORIGINS: 'https://cards.example\r\n',
  }));

  it('values are read without their line ends', async () => {
    const { auth, openrouter } = service().world;
    const user = await signIn(service());
    for (const alg of ['ES256', 'HS256'] as const) {
      const created = await create(service(), auth.token(user, { alg }));
      assert.equal(created.status, 201, created.text);
    }
    assert.deepEqual(openrouter.requests.recent.map(({ path }) => path), Array.from({ length: 2 }, () => '/api/v1/chat/completions'));
    for (const { headers } of openrouter.requests.recent) assert.equal(headers['authorization'], `Bearer ${openrouter.key}`);
    const { headers } = await sendRequest(service(), 'GET', '/models', { headers: { origin: 'https://cards.example' } });
    assert.equal(headers.get('access-control-allow-origin'), 'https://cards.example');
  });
});

describe('keys as JSON, as Supabase sets them', () => {
  const service = started(startOnWorkerd, (world) => ({
    SUPABASE_ANON_KEY: '',
    SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: world.anonKey }),
    SUPABASE_JWKS: JSON.stringify(world.auth.jwks),
  }));

  it('a token is verified without a fetch, until another key signs', async () => {
    const { auth } = service().world;
    const created = await create(service(), (await signIn(service())).token);
    assert.equal(created.status, 201, created.text);
    assert.equal(auth.jwksRequests, 0);
    await auth.rotate();
    const afterwards = await create(service(), (await signIn(service())).token);
    assert.equal(afterwards.status, 201, afterwards.text);
    assert.equal(auth.jwksRequests, 1);
  });
});

it('keys that are no JSON are reported by name', async () => {
  const service = await startAfter('', { SUPABASE_PUBLISHABLE_KEYS: 'sb_publishable_1', SUPABASE_JWKS: '{}', PUBLIC_URL: '/cards' });
  try {
    const { status, body } = await sendRequest(service, 'GET', '/health/ready');
    assert.equal(status, 503);
    const wrong = (body.checks as { detail: string }[]).map(({ detail }) => detail.split(' ')[0]);
    assert.deepEqual(wrong, ['PUBLIC_URL', 'SUPABASE_PUBLISHABLE_KEYS', 'SUPABASE_JWKS']);
  } finally {
    await service.close();
  }
});

describe('localhost', () => {
  const service = started(startOnWorkerd, ({ openrouter }) => ({ OPENROUTER_BASE_URL: openrouter.url.replace('127.0.0.1', 'localhost') }));

  // workerd tries every address of the name: https://github.com/cloudflare/workers-sdk/issues/2457 says that Node did not.
  it('localhost reaches a model server that listens on IPv4 only', async () => {
    const created = await create(service(), (await signIn(service())).token);
    assert.equal(created.status, 201, created.text);
    assert.equal(service().world.openrouter.requests.total, 1);
  });
});

describe('origins of apps', () => {
  const extension = 'chrome-extension://abcdefghijklmnopabcdefghijklmnop';
  const allowed = ['https://app.example.test', 'capacitor://localhost', 'tauri://localhost', extension, 'com.example.app://Main'];
  const service = started(startOnWorkerd, { ALLOWED_ORIGINS: allowed.join(',').replace('capacitor', 'Capacitor') });

  for (const origin of allowed) {
    it(`${origin} may read a response and send a preflight`, async () => {
      const models = await sendRequest(service(), 'GET', '/models', { headers: { origin } });
      assert.deepEqual([models.status, models.headers.get('access-control-allow-origin')], [200, origin]);
      const preflight = await sendRequest(service(), 'OPTIONS', '/ai-sessions', {
        headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,content-type' },
      });
      assert.deepEqual([preflight.status, preflight.headers.get('access-control-allow-origin')], [204, origin]);
    });
  }

  it('other origins of the same scheme or host are not allowed', async () => {
    for (const origin of ['capacitor://localhost:80', 'capacitor://example.test', 'ionic://localhost', 'http://localhost', extension.replace('a', 'b'), 'com.example.app://main', 'null']) {
      const { headers } = await sendRequest(service(), 'GET', '/models', { headers: { origin } });
      assert.equal(headers.get('access-control-allow-origin'), null, origin);
    }
  });
});

it('an origin that no browser sends is reported by name', async () => {
  const service = await startAfter('', { ALLOWED_ORIGINS: 'https://cards.example,javascript://cards.example' });
  try {
    const { status, body } = await sendRequest(service, 'GET', '/health/ready');
    assert.equal(status, 503);
    assert.match(body.checks[0].detail, /^ALLOWED_ORIGINS /);
  } finally {
    await service.close();
  }
});
