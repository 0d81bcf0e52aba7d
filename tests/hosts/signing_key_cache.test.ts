// The key set in the Cache API. The prelude logs each URL of a stored entry.

import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { eventually, expectProblem, sendRequest, signIn } from '../service/service.ts';
import { startAfter, type WorkerdService } from './workerd.ts';

const prelude = `
const { put } = Cache.prototype;
Cache.prototype.put = function (key, response) {
  console.log('CACHED ' + (key.url ?? key));
  return put.call(this, key, response);
};
`;

let service: WorkerdService;
before(async () => {
  service = await startAfter(prelude);
});
after(() => service.close());

it('the key set is cached under a URL of the service that is no route', async () => {
  const { token } = await signIn(service);
  await sendRequest(service, 'GET', `/ai-sessions/${crypto.randomUUID()}`, { token });
  const cached = () => service.logs.filter((line) => line.startsWith('CACHED ')).map((line) => new URL(line.slice('CACHED '.length)));
  const [url] = await eventually('the key set is stored', () => (cached().length > 0 ? cached() : undefined));
  assert.equal(url?.origin, service.url);
  assert.ok(!url?.href.includes(new URL(service.world.supabaseUrl).host));
  expectProblem(await sendRequest(service, 'GET', url?.pathname ?? ''), 404, 'not_found');
});
