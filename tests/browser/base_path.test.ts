// The page with a service under a base path, as Supabase's gateway serves it: every kind of request that the page sends.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { lesson, rowsOf } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { answer } from '../support/model_behaviour.ts';
import { button, cards, cardsAre, make, openSignedIn, phase, says, staged } from './stage.ts';

const BASE_PATH = '/functions/v1/flashcards';

describe('a service under a base path', () => {
  const stage = staged({ MAX_CANDIDATES: '3' }, BASE_PATH);

  it('cards are made, resumed, stored and found again', async () => {
    const { openrouter } = stage().service.world;
    const { tab, user } = await openSignedIn(stage());
    const sent: URL[] = [];
    tab.on('request', (request) => void sent.push(new URL(request.url())));
    const gate = createGate();
    openrouter.next(answer({ hold: { gate, after_candidates: 1 } }));
    await make(tab, lesson());
    await cardsAre(tab, 1);
    const resumed = tab.waitForRequest((request) => request.url().endsWith('/events'));
    await tab.reload();
    assert.equal((await resumed).headers()['last-event-id'], '1.1');
    gate.open();
    await phase(tab, 'done');
    await cardsAre(tab, 3);
    assert.equal((await rowsOf(stage().service, user)).sessions.length, 1);

    await tab.reload();
    await phase(tab, 'done');
    await cardsAre(tab, 3);
    await button(tab, 'Past sessions').click();
    await tab.getByRole('dialog', { name: 'Past sessions' }).getByRole('link').first().click();
    await phase(tab, 'done');
    await cards(tab).nth(2).waitFor();

    const ofService = sent.filter(({ origin }) => origin === stage().proxy.url).map(({ pathname }) => pathname);
    assert.ok(ofService.length > 5, 'the requests were not recorded');
    assert.deepEqual(ofService.filter((path) => !path.startsWith(`${BASE_PATH}/`)), []);
  });

  it('a generation is stopped', async () => {
    const { tab } = await openSignedIn(stage());
    stage().service.world.openrouter.next(answer({ hold: { gate: createGate(), after_candidates: 2 } }));
    await make(tab, lesson());
    await cardsAre(tab, 2);
    await button(tab, 'Stop').click();
    await phase(tab, 'done');
    await says(tab, '#progress', '2 cards · The answer broke off; these are whole.');
  });

  it('the error of an unknown session has the public URL in its type', async () => {
    const { tab } = await openSignedIn(stage());
    const unknown = crypto.randomUUID();
    const read = tab.waitForResponse((response) => response.url().includes(unknown));
    await tab.evaluate((id) => void (location.hash = id), unknown);
    const response = await read;
    assert.deepEqual([response.status(), (await response.json()).type], [404, `${stage().proxy.url}${BASE_PATH}/docs#not_found`]);
  });
});
