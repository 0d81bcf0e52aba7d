// The code that no caller or upstream can trigger: the user object cannot be reached. It protects the budget, so no request is
// admitted without it.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { expectFormat } from '../service/problem_table.ts';
import { eventually, lesson, rowsOf, sendRequest, type Service, signIn } from '../service/service.ts';
import { startAfter } from './workerd.ts';

const origin = 'https://cards.example';

/** Replaces the objects of the binding. */
const broken: [name: string, prelude: string][] = [
  [
    'that cannot be reached',
    `import { env as workerEnv } from 'cloudflare:workers';
     for (const name of ['get', 'getByName']) {
       Object.getPrototypeOf(workerEnv.USER_SESSIONS)[name] = () => ({ execute: () => Promise.reject(new Error('Network connection lost.')) });
     }`,
  ],
  [
    'whose reply is a text of the platform',
    `import { env as workerEnv } from 'cloudflare:workers';
     for (const name of ['get', 'getByName']) {
       Object.getPrototypeOf(workerEnv.USER_SESSIONS)[name] = () => ({ execute: async () => ({ text: 'error code: 1101', body: null }) });
     }`,
  ],
  [
    'that replies nothing',
    `import { env as workerEnv } from 'cloudflare:workers';
     for (const name of ['get', 'getByName']) {
       Object.getPrototypeOf(workerEnv.USER_SESSIONS)[name] = () => ({ execute: async () => undefined });
     }`,
  ],
];

for (const [name, prelude] of broken) {
  describe(`an object ${name}`, () => {
    let service: Service;
    before(async () => {
      service = await startAfter(prelude);
    });
    after(() => service.close());

    it('a generation is refused without a model call', async () => {
      const user = await signIn(service);
      const options = { token: user.token, body: { input_text: lesson(), model: 'test/first' }, headers: { origin } };
      const refused = await sendRequest(service, 'POST', '/ai-sessions', options);
      expectFormat(service, refused, 'rate_limiter_unavailable');
      assert.equal(service.world.openrouter.requests.total, 0);
      assert.deepEqual((await rowsOf(service, user)).sessions, []);
    });

    it('routes without the user object still work', async () => {
      assert.equal((await sendRequest(service, 'GET', '/health')).status, 200);
      assert.equal((await sendRequest(service, 'GET', '/models')).status, 200);
    });
  });
}

describe('an object that the platform calls overloaded', () => {
  // The platform's own error: https://developers.cloudflare.com/durable-objects/best-practices/error-handling/
  const prelude = `import { env as workerEnv } from 'cloudflare:workers';
     for (const name of ['get', 'getByName']) {
       Object.getPrototypeOf(workerEnv.USER_SESSIONS)[name] = () => ({
         execute: () => {
           console.log('the object is called');
           return Promise.reject(Object.assign(new Error('Durable Object is overloaded.'), { overloaded: true, retryable: true }));
         },
       });
     }`;
  let service: Service;
  before(async () => {
    service = await startAfter(prelude);
  });
  after(() => service.close());

  it('an overloaded object is not called again; Retry-After is set', async () => {
    const user = await signIn(service);
    const options = { token: user.token, body: { input_text: lesson(), model: 'test/first' }, headers: { origin } };
    const refused = await sendRequest(service, 'POST', '/ai-sessions', options);
    expectFormat(service, refused, 'rate_limiter_unavailable');
    assert.match(refused.headers.get('retry-after') ?? '', /^[1-9]\d*$/);
    const id = refused.headers.get('x-request-id') ?? '';
    await eventually('the log has the request', () => service.logs.find((line) => line.includes(id)));
    assert.equal(service.logs.filter((line) => line.includes('the object is called')).length, 1);
    assert.equal(service.world.openrouter.requests.total, 0);
  });
});
