// A deployment without its static assets: the two documents are 500 `internal`, and the log names the asset.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { eventually, expectProblem, sendRequest, type Service } from '../service/service.ts';
import { startAfter } from './workerd.ts';

const binding = (fetch: string) => `Object.getPrototypeOf(assetsEnv.ASSETS).fetch = ${fetch};`;

const broken: [name: string, prelude: string][] = [
  ['an assets binding that has no such file', binding(`async () => new Response('not found', { status: 404 })`)],
  ['an assets binding that redirects', binding(`async () => new Response(null, { status: 307, headers: { location: '/docs' } })`)],
  ['an assets binding that fails', binding(`() => Promise.reject(new Error('Network connection lost.'))`)],
  ['an assets binding that throws', binding(`() => { throw new TypeError('Illegal invocation'); }`)],
  ['a deployment without the binding', 'delete assetsEnv.ASSETS;'],
];

for (const [name, prelude] of broken) {
  describe(name, () => {
    let service: Service;
    before(async () => {
      service = await startAfter(`import { env as assetsEnv } from 'cloudflare:workers'; ${prelude}`);
    });
    after(() => service.close());

    for (const [path, asset] of [['/docs', 'docs.html'], ['/openapi.json', 'openapi.json']] as const) {
      it(`${path} alone is a 500, and the log names its asset`, async () => {
        expectProblem(await sendRequest(service, 'GET', path), 500, 'internal');
        const line = JSON.stringify({ level: 'error', message: 'asset missing', asset });
        await eventually('the log names the asset', () => service.logs.find((logged) => logged === line));
        assert.equal((await sendRequest(service, 'GET', '/health')).status, 200);
      });
    }
  });
}
