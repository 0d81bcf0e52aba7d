// Problems as a person sees them: real failures of the service, its upstreams and the connection, then every code of the
// table. The browser lets the page read only responses with CORS headers, so each case also tests CORS on errors.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import type { Page } from 'playwright-core';
import { lesson } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { answer, httpError, type ModelBehaviour, refusal } from '../support/model_behaviour.ts';
import { button, cardsAre, expectAccessible, make, modelsLoaded, openSignedIn, phase, says, signIn, staged, textBox } from './stage.ts';

const problemSays = (tab: Page, words: string) => says(tab, '#problem', words);

describe('a problem on the page', () => {
  const stage = staged({ RATE_LIMIT_BURST: '1000/60', AI_MAX_ATTEMPTS: '1', AI_IDLE_TIMEOUT_MS: '1500' });
  const model = () => stage().service.world.openrouter;

  const modelFailures: [behaviour: ModelBehaviour, words: string][] = [
    [httpError(503), 'The model cannot be reached at the moment.'],
    [answer({ hold: { gate: createGate(), after_candidates: 0 } }), 'The model did not finish in time.'],
    [answer({ content: 'I would rather not.' }), 'no usable card'],
  ];
  for (const [behaviour, words] of modelFailures) {
    it(`a model failure is shown (“${words}”) and can be retried`, async () => {
      const { tab } = await openSignedIn(stage());
      await make(tab, lesson(30));
      await phase(tab, 'done');
      model().next(behaviour);
      await make(tab, lesson());
      await problemSays(tab, words);
      await says(tab, '#quota', '49 of 50 generations left');
      await button(tab, 'Try again').click();
      await phase(tab, 'done');
      await cardsAre(tab, 20);
      await says(tab, '#quota', '48 of 50 generations left');
    });
  }

  it('a refused text is shown and leads back to the text', async () => {
    const { tab } = await openSignedIn(stage());
    model().next(refusal());
    await make(tab, lesson());
    await problemSays(tab, 'The model does not want to make cards of this text.');
    await button(tab, 'Change the text').click();
    assert.equal(await tab.evaluate(() => document.activeElement?.id), 'text');
  });

  it('a misconfiguration is shown, and a retry is a new attempt', async () => {
    const { tab } = await openSignedIn(stage());
    model().next(httpError(402));
    await make(tab, lesson());
    await problemSays(tab, 'This model cannot be used here until its operator has mended it.');
    await button(tab, 'Try again').click();
    await phase(tab, 'done');
  });

  it('a database outage is shown, and a retry is not charged again', async () => {
    const { tab } = await openSignedIn(stage());
    const { gateway } = stage().service.world;
    const before = model().requests.total;
    gateway.fail('/rest/v1/', { kind: 'answer', status: 503 });
    try {
      await make(tab, lesson());
      await problemSays(tab, 'The cards could not be stored at the moment.');
    } finally {
      gateway.clearFaults();
    }
    await button(tab, 'Try again').click();
    await phase(tab, 'done');
    await cardsAre(tab, 20);
    assert.ok(model().requests.total - before <= 2);
  });

  it('an invalid sign-in leads to the sign-in and keeps the text', async () => {
    const { tab, user } = await openSignedIn(stage());
    await tab.evaluate(() => {
      const name = Object.keys(localStorage).find((key) => key.endsWith('-auth-token')) ?? '';
      localStorage.setItem(name, JSON.stringify({ ...JSON.parse(localStorage.getItem(name) ?? '{}'), access_token: 'a.b.c' }));
    });
    await make(tab, lesson());
    await problemSays(tab, 'Your sign-in is not valid any more.');
    await tab.locator('#problem').getByRole('button', { name: 'Sign in' }).click();
    await signIn(tab, user);
    assert.equal(await textBox(tab).inputValue(), lesson());
  });

  it('a lost connection is shown when it does not recover', async () => {
    const { tab } = await openSignedIn(stage());
    await tab.clock.install();
    stage().proxy.down();
    try {
      await make(tab, lesson());
      await says(tab, '#progress', 'Connection lost, trying again');
      // Advances the clock over each pause between attempts.
      while (!(await tab.locator('#problem').isVisible())) await tab.clock.fastForward(15_000);
      await problemSays(tab, 'The service cannot be reached.');
    } finally {
      stage().proxy.up();
    }
    await button(tab, 'Try again').click();
    await phase(tab, 'done');
  });

  it('a lost connection at the start is waited out', async () => {
    const { tab } = await openSignedIn(stage());
    await tab.route('**/models', (route) => route.abort(), { times: 2 });
    await tab.reload();
    await modelsLoaded(tab);
    await make(tab, lesson());
    await phase(tab, 'done');
  });

  it('every code has its own sentence, and each passes axe', async () => {
    const rows = [...readFileSync(new URL('../../src/http/problem.rs', import.meta.url), 'utf8').matchAll(/^ {4}\w+ "(\w+)" (\d+) (None|Some\((\w+)\)), "(.*)";$/gm)];
    assert.ok(rows.length > 20, 'the table was read');
    const { tab } = await openSignedIn(stage());
    await textBox(tab).fill(lesson());
    const shown = new Map<string, string>();
    for (const [, code = '', status = '', , retryable, title] of rows) {
      await tab.route('**/ai-sessions', (route) => route.fulfill({
        status: Number(status),
        headers: { 'access-control-allow-origin': '*', 'access-control-expose-headers': 'Retry-After', ...(code === 'rate_limited' ? { 'retry-after': '60' } : {}) },
        contentType: 'application/problem+json',
        body: JSON.stringify({ type: `https://x.example/docs#${code}`, title, status: Number(status), detail: 'x', code, request_id: crypto.randomUUID(), ...(retryable === undefined ? {} : { retryable: retryable === 'true' }) }),
      }));
      await button(tab, 'Make cards').click();
      await phase(tab, 'failed');
      shown.set(code, `${await tab.locator('#problem-title').textContent()} ${await tab.locator('#problem-sentence').textContent()}`);
      await expectAccessible(tab, code);
      await tab.unrouteAll();
      // A limit disables the button until it ends.
      await tab.reload();
      await tab.locator('#model:enabled').waitFor();
    }
    const strange = [...shown].filter(([, words]) => words.includes('does not know') || words.includes('has a fault'));
    assert.deepEqual(strange, []);
  });

  it('only a page of an allowed origin can read a problem', async () => {
    const { tab } = await openSignedIn(stage());
    const { url } = stage().proxy;
    const fetchInPage = (init: { method?: string; headers?: Record<string, string>; body?: string }, path = '/ai-sessions') =>
      tab.evaluate(async ([where, options]) => {
        const response = await fetch(where, options);
        const { code, request_id } = await response.json();
        return { status: response.status, code, same_id: request_id === response.headers.get('x-request-id'), auth: response.headers.get('www-authenticate') };
      }, [url + path, init] as const);
    const headers = { 'content-type': 'application/json' };
    const missing = await fetchInPage({ method: 'POST', headers, body: '{}' });
    assert.deepEqual([missing.status, missing.code, missing.same_id], [401, 'missing_token', true]);
    assert.match(missing.auth ?? '', /^Bearer/);
    assert.deepEqual((await fetchInPage({ headers: { authorization: 'Bearer a.b.c' } })).code, 'invalid_token');
    assert.deepEqual((await fetchInPage({}, '/nowhere')).code, 'not_found');
    assert.deepEqual((await fetchInPage({ method: 'DELETE' }, '/models')).code, 'method_not_allowed');

    const stranger = await tab.context().newPage();
    await stranger.goto(`${stage().pages.url.replace('127.0.0.1', 'localhost')}/favicon.svg`);
    const refused = await stranger.evaluate((where) => fetch(where).then(() => 'read', (error: Error) => error.name), `${url}/models`);
    assert.equal(refused, 'TypeError');
  });
});

describe('a limit on the page', () => {
  const stage = staged({ RATE_LIMIT_BURST: '1000/60', RATE_LIMIT_GENERATIONS: '1/8' });

  it('a limit counts down and then allows a generation', async () => {
    const { tab } = await openSignedIn(stage());
    await make(tab, lesson());
    await phase(tab, 'done');
    await says(tab, '#quota', '0 of 1 generations left');
    await button(tab, 'New cards').click();
    await problemSays(tab, 'You have used the one generation of 8 seconds.');
    await tab.getByText(/You can go on at \d/).waitFor();
    await says(tab, '#problem-countdown', /in \d+ s/);
    assert.equal(await button(tab, 'Try again').getAttribute('aria-disabled'), 'true');
    assert.equal(await button(tab, 'Make cards').getAttribute('aria-disabled'), 'true');
    await expectAccessible(tab, 'a limit');
    await problemSays(tab, 'You can make cards again.');
    await button(tab, 'Try again').click();
    await phase(tab, 'done');
    await cardsAre(tab, 20);
  });

  it('every policy has its own sentence, and the remaining quota is shown', async () => {
    const { tab } = await openSignedIn(stage());
    await textBox(tab).fill(lesson());
    const sentences: [policy: string, sentence: string][] = [
      ['burst', 'You have used all 10 requests of one minute.'],
      ['generations', 'You have used all 50 generations of 24 hours.'],
      ['attempts', 'You have used all 150 model calls of 24 hours.'],
      ['spend', 'Your cards may cost $0.50 in 24 hours. $0.0237 of that is left, and cards from this text can cost more.'],
      ['reads', 'Your cards were requested too often in a short time.'],
      ['concurrent', 'Too many cards of yours are being made, stored or watched at this moment.'],
      ['of-another-version', 'You have reached a limit.'],
    ];
    const spend = { limit: '0.5', remaining: '0.02375', window_s: 86400 };
    for (const [policy, sentence] of sentences) {
      await tab.route('**/ai-sessions', (route) => route.fulfill({
        status: 429,
        headers: {
          'access-control-allow-origin': '*',
          'access-control-expose-headers': 'Retry-After, RateLimit, RateLimit-Policy',
          'ratelimit-policy': '"burst";q=10;w=60, "generations";q=50;w=86400, "attempts";q=150;w=86400, "spend";q=5;w=86400, "of-another-version";q=1;w=86400',
          ratelimit: '"burst";r=9;t=60, "generations";r=49;t=86400, "attempts";r=2;t=86400, "spend";r=0;t=86400, "of-another-version";r=0;t=86400',
          'retry-after': '60',
        },
        contentType: 'application/problem+json',
        body: JSON.stringify({ type: 'https://iana.org/assignments/http-problem-types#quota-exceeded', title: 'x', status: 429, detail: 'x', code: 'rate_limited', request_id: crypto.randomUUID(), 'violated-policies': [policy], ...(policy === 'spend' ? { spend } : {}) }),
      }));
      await button(tab, 'Make cards').click();
      await problemSays(tab, sentence);
      assert.equal(await tab.locator('#quota').textContent(), '49 of 50 generations left in 24 hours · 2 of 150 model calls left in 24 hours');
      await tab.unrouteAll();
      // A limit disables the button until it ends.
      await tab.reload();
      await modelsLoaded(tab);
    }
  });
});
