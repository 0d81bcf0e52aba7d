// A stand-in for Cloudflare's API, as far as `wrangler secret list`, `deployments status` and `deploy` use it: wrangler itself runs
// in the tests, with this URL as CLOUDFLARE_API_BASE_URL.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { bodyOf, startLoopbackServer } from './loopback_server.ts';

export const ACCOUNT = '0123456789abcdef0123456789abcdef';

export const NEW_VERSION = 'aaaaaaaa-0000-4000-8000-000000000002';

export interface CloudflareApi {
  /** The environment in which wrangler uses this API. */
  env: Record<string, string>;
  /** The names of the Worker's secrets. */
  secrets: string[];
  /** The versions that have traffic, with their shares. */
  versions: { version_id: string; percentage: number }[];
  /** The bodies of the requests that created a deployment. */
  deployments: string[];
  close(): Promise<void>;
}

export async function startCloudflareApi(): Promise<CloudflareApi> {
  const server = await startLoopbackServer((request, response) => void respond(request, response));
  const api: CloudflareApi = {
    env: { CLOUDFLARE_API_BASE_URL: `${server.url}/client/v4`, CLOUDFLARE_API_TOKEN: 'token', CLOUDFLARE_ACCOUNT_ID: ACCOUNT },
    secrets: ['OPENROUTER_API_KEY', 'SERVICE_SECRET', 'SUPABASE_URL', 'SUPABASE_ANON_KEY'],
    versions: [],
    deployments: [],
    close: () => server.close(),
  };

  /** The results of the API by the end of the path. */
  const results: [RegExp, () => unknown][] = [
    [/\/scripts\/[^/]+\/secrets$/, () => api.secrets.map((name) => ({ name, type: 'secret_text' }))],
    [/\/scripts\/[^/]+\/deployments$/, () => ({ deployments: [{ id: 'deployment', created_on: '2026-11-28T08:00:00Z', versions: api.versions }] })],
    [/\/assets-upload-session$/, () => ({ jwt: 'jwt', buckets: [] })],
    [/\/services\/[^/]+$/, () => ({ default_environment: { script: { last_deployed_from: 'wrangler', migration_tag: 'v1' } } })],
    [/\/versions$/, () => ({ id: NEW_VERSION, startup_time_ms: 10, resources: { script: { etag: 'etag', handlers: ['fetch'] }, bindings: [] } })],
    [/\/workers\/workers\/[^/]+$/, () => ({ id: 'worker', subdomain: { enabled: true, previews_enabled: false } })],
    [/\/scripts\/[^/]+\/subdomain$/, () => ({ enabled: true, previews_enabled: false })],
    [/\/workers\/subdomain$/, () => ({ subdomain: 'account' })],
  ];

  async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await bodyOf(request);
    const path = new URL(request.url ?? '', server.url).pathname;
    if (request.method === 'POST' && path.endsWith('/deployments')) api.deployments.push(body.toString());
    const result = results.find(([end]) => end.test(path))?.[1]() ?? null;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ success: true, errors: [], messages: [], result }));
  }
  return api;
}
