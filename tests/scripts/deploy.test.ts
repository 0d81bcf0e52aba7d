// `npm run deploy`: wrangler itself, with stand-ins for Cloudflare's API and for the deployed service.

import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { root } from '../../scripts/paths.ts';
import { IN_A_ROW, readyUrl, waitUntilReady } from '../../scripts/ready.ts';
import { type Ended, run } from '../../scripts/run_program.ts';
import { type CloudflareApi, NEW_VERSION, startCloudflareApi } from '../support/cloudflare_api.ts';
import { type LoopbackServer, startLoopbackServer } from '../support/loopback_server.ts';

const PREVIOUS_VERSION = 'aaaaaaaa-0000-4000-8000-000000000001';

let cloudflare: CloudflareApi;
let service: LoopbackServer;
/** How the service responds to the n-th request of a test. */
let respond: (response: ServerResponse, n: number) => void;
let overrides: (string | undefined)[];

before(async () => {
  cloudflare = await startCloudflareApi();
  service = await startLoopbackServer((request, response) => {
    overrides.push(request.headers['cloudflare-workers-version-overrides'] as string | undefined);
    if (request.url === '/health/ready') respond(response, overrides.length);
    else response.writeHead(404).end();
  });
});

beforeEach(() => {
  overrides = [];
  respond = ready;
  cloudflare.versions = [{ version_id: PREVIOUS_VERSION, percentage: 100 }];
  cloudflare.deployments.length = 0;
});

after(() => Promise.all([cloudflare.close(), service.close()]));

function ready(response: ServerResponse): void {
  response.end(JSON.stringify({ status: 'ok', checks: [{ name: 'database', ok: true, latency_ms: 1 }] }));
}

function notReady(response: ServerResponse): void {
  const checks = [
    { name: 'configuration', ok: true, latency_ms: 0 },
    { name: 'auth_keys', ok: false, latency_ms: 3, detail: 'no usable key set', since: '2026-11-28T08:00:00.000Z' },
    { name: 'database', ok: false, latency_ms: 5000, detail: 'no answer in time', since: '2026-11-28T08:00:30.000Z' },
  ];
  response.writeHead(503).end(JSON.stringify({ status: 'unavailable', checks }));
}

/** Runs the command; `signedIn` decides whether wrangler has a token. */
function deploy(args: string[], signedIn = true): Promise<Ended> {
  const away = { CLOUDFLARE_API_TOKEN: '', CLOUDFLARE_ACCOUNT_ID: '', CLOUDFLARE_API_BASE_URL: service.url, XDG_CONFIG_HOME: join(root, 'test-output', 'no_login'), CI: '1' };
  const node = ['--disable-warning=ExperimentalWarning', join(root, 'scripts/deploy.ts')];
  return run(process.execPath, [...node, ...args], { env: signedIn ? cloudflare.env : away });
}

describe('npm run deploy', () => {
  it('a deployment that is ready ends with success', async () => {
    const { ok, output } = await deploy(['--yes', '--url', service.url]);
    assert.ok(ok, output);
    assert.match(output, new RegExp(`✓ checking that GET ${service.url}/health/ready responds with 200`));
    assert.ok(!output.includes('rollback'));
    assert.deepEqual(cloudflare.deployments.map((body) => JSON.parse(body).versions), [[{ version_id: NEW_VERSION, percentage: 100 }]]);
    assert.deepEqual(overrides, Array.from({ length: IN_A_ROW }, () => `ai-sessions="${NEW_VERSION}"`));
  });

  it('a deployment that is not ready fails and says how to roll back', async () => {
    respond = notReady;
    const { ok, output } = await deploy(['--yes', '--url', `${service.url}/`, '--wait', '1']);
    assert.equal(ok, false);
    assert.equal(cloudflare.deployments.length, 1);
    const said = output.slice(output.indexOf('The new version is deployed'));
    assert.deepEqual(said.split('\n').slice(0, 6), [
      'The new version is deployed, but it is not ready:',
      `  GET ${service.url}/health/ready responded with 503`,
      '  auth_keys: no usable key set, since 2026-11-28T08:00:00.000Z',
      '  database: no answer in time, since 2026-11-28T08:00:30.000Z',
      'To roll back to the version before it:',
      `  npx wrangler rollback ${PREVIOUS_VERSION} --durable-objects-code-update-mode immediate`,
    ]);
  });

  it('a first deployment that is not ready has nothing to roll back to', async () => {
    respond = notReady;
    cloudflare.versions = [];
    const { ok, output } = await deploy(['--yes', '--url', service.url, '--wait', '1']);
    assert.equal(ok, false);
    assert.match(output, /There is no earlier version/);
    assert.ok(!output.includes('wrangler rollback'));
  });

  it('nothing is deployed without a yes', async () => {
    const { ok, output } = await deploy(['--url', service.url]);
    assert.equal(ok, false);
    assert.match(output, /Nothing was deployed: say yes/);
    assert.deepEqual([cloudflare.deployments.length, overrides.length], [0, 0]);
  });

  it('a dry run names a missing secret', async () => {
    const all = cloudflare.secrets;
    cloudflare.secrets = ['SUPABASE_URL', 'SUPABASE_ANON_KEY'];
    const { ok, output } = await deploy(['--dry-run']);
    cloudflare.secrets = all;
    assert.equal(ok, false);
    assert.match(output, /npx wrangler secret put OPENROUTER_API_KEY/);
  });

  it('a dry run without being signed in deploys nothing and succeeds', async () => {
    const { ok, output } = await deploy(['--dry-run', '--url', service.url], false);
    assert.ok(ok, output);
    assert.match(output, /You are not signed in to Cloudflare: whether the secrets are set is not checked/);
    assert.match(output, /--dry-run: exiting now/, "wrangler's own dry run");
    assert.match(output, /Nothing was deployed: this was a dry run\.\n$/);
    assert.equal(overrides.length, 0);
  });

  it('a deployment without being signed in is refused', async () => {
    const { ok, output } = await deploy(['--yes'], false);
    assert.equal(ok, false);
    assert.match(output, /npx wrangler login/);
  });

  it('an unknown option is refused', async () => {
    const { ok, output } = await deploy(['--dryrun']);
    assert.equal(ok, false);
    assert.match(output, /Use: npm run deploy -- \[--dry-run\]/);
  });
});

describe('the check after a deployment', () => {
  const check = (within_ms: number, timeout_ms = 5000) => waitUntilReady(`${service.url}/health/ready`, {}, { within_ms, pause_ms: 1, timeout_ms });

  it('a service that becomes ready is waited for', async () => {
    respond = (response, n) => (n <= 4 ? notReady(response) : ready(response));
    assert.equal((await check(60_000)).ready, true);
    assert.equal(overrides.length, 4 + IN_A_ROW);
  });

  it('a success of the version before does not count alone', async () => {
    respond = (response, n) => (n < IN_A_ROW ? ready(response) : notReady(response));
    const { ready: isReady, lines } = await check(300);
    assert.equal(isReady, false);
    assert.match(lines.join('\n'), /responded with 503\nauth_keys/);
  });

  it('a service that never responds is not ready', async () => {
    respond = () => {};
    const outcome = await check(300, 100);
    assert.deepEqual(outcome, { ready: false, lines: [`GET ${service.url}/health/ready had no response in time`] });
    assert.ok(overrides.length > 1, 'it was requested again');
  });

  it('a service that cannot be reached is not ready', async () => {
    const away = await startLoopbackServer(() => {});
    await away.close();
    const { ready: isReady, lines } = await waitUntilReady(`${away.url}/health/ready`, {}, { within_ms: 20, pause_ms: 1 });
    assert.equal(isReady, false);
    assert.match(lines.join(), /failed: /);
  });

  it('the page of another server is not ready', async () => {
    respond = (response) => response.end('<!doctype html><title>Welcome</title>');
    assert.deepEqual(await check(20), { ready: false, lines: [`GET ${service.url}/health/ready responded with 200, not as this service does`] });
  });

  it('a redirect is not followed', async () => {
    respond = (response, n) => (n % 2 === 1 ? response.writeHead(302, { location: '/health/ready' }).end() : ready(response));
    assert.equal((await check(100)).ready, false);
  });
});

describe('the URL of the check', () => {
  const domain = 'api.example (custom domain)';
  const subdomain = 'https://ai-sessions.account.workers.dev';
  const cases: [name: string, expected: string | undefined, ...Parameters<typeof readyUrl>][] = [
    ['the requested one', 'https://a.example/health/ready', 'https://a.example/', 'https://b.example', [subdomain]],
    ["the service's own, with its base path", 'https://b.example/cards/health/ready', undefined, 'https://b.example/cards', [domain]],
    ['a custom domain before workers.dev', 'https://api.example/health/ready', undefined, '', [subdomain, domain]],
    ['workers.dev', `${subdomain}/health/ready`, undefined, '', ['schedule: * * * * *', subdomain]],
    ['a route', 'https://example.com/cards/health/ready', undefined, '', ['*.example.com/* (zone name: example.com)', 'example.com/cards/* (zone name: example.com)']],
    ['none', undefined, undefined, '', ['schedule: * * * * *', '*.example.com/*', 'Producer for queue']],
  ];
  for (const [name, expected, ...input] of cases) {
    it(`the URL is ${name}`, () => assert.equal(readyUrl(...input), expected));
  }
});
