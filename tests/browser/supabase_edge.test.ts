// The page with the service as an Edge Function on Supabase's engine: a generation from the first click to the last card, its
// interruptions, and a sign-out.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startOnSupabaseEdge } from '../hosts/supabase_edge.ts';
import { lesson, rowsOf } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { answer } from '../support/model_behaviour.ts';
import { button, cardsAre, make, open, openSignedIn, phase, says, staged, textBox } from './stage.ts';

describe('the page with an Edge Function', () => {
  const stage = staged({ RATE_LIMIT_BURST: '1000/60' }, '/functions/v1/flashcards', startOnSupabaseEdge);

  it('cards arrive while the model answers, and the page is not reloaded', async () => {
    const { tab, user } = await openSignedIn(stage());
    const gate = createGate();
    stage().service.world.openrouter.next(answer({ hold: { gate, after_candidates: 2 } }));
    await make(tab, lesson());
    await cardsAre(tab, 2);
    await says(tab, '#progress', '2 cards so far');
    gate.open();
    await phase(tab, 'done');
    await cardsAre(tab, 20);
    await says(tab, '#quota', '49 of 50 generations left in 24 hours');
    const [session] = (await rowsOf(stage().service, user)).sessions;
    assert.deepEqual([session?.['status'], session?.['partial']], ['completed', false]);
  });

  it('a reload in mid-stream resumes after the last received event', async () => {
    const { tab, user } = await openSignedIn(stage());
    const { openrouter } = stage().service.world;
    const before = openrouter.requests.total;
    const gate = createGate();
    openrouter.next(answer({ hold: { gate, after_candidates: 3 } }));
    await make(tab, lesson());
    await cardsAre(tab, 3);
    const resumed = tab.waitForRequest((request) => request.method() === 'GET' && request.url().endsWith('/events'));
    await tab.reload();
    assert.equal((await resumed).headers()['last-event-id'], '1.3');
    await cardsAre(tab, 3);
    await phase(tab, 'generating');
    gate.open();
    await phase(tab, 'done');
    await cardsAre(tab, 20);
    assert.equal(openrouter.requests.total - before, 1);
    assert.equal((await rowsOf(stage().service, user)).sessions.length, 1);
  });

  it('a stop keeps the complete cards', async () => {
    const { tab, user } = await openSignedIn(stage());
    stage().service.world.openrouter.next(answer({ hold: { gate: createGate(), after_candidates: 2 } }));
    await make(tab, lesson());
    await cardsAre(tab, 2);
    await button(tab, 'Stop').click();
    await phase(tab, 'done');
    await says(tab, '#progress', '2 cards · The answer broke off; these are whole.');
    const [session] = (await rowsOf(stage().service, user)).sessions;
    assert.deepEqual([session?.['status'], session?.['partial']], ['completed', true]);
  });

  it('an isolate that is killed in mid-stream costs no card', async () => {
    const { tab, user } = await openSignedIn(stage());
    stage().service.world.openrouter.next(answer({ hold: { gate: createGate(), after_candidates: 2 } }));
    await make(tab, lesson());
    await cardsAre(tab, 2);
    await stage().service.restart();
    // The new isolate takes the generation over when the lease of the killed one has lapsed.
    await phase(tab, 'done');
    await cardsAre(tab, 2);
    await says(tab, '#progress', '2 cards · The answer broke off; these are whole.');
    const [session] = (await rowsOf(stage().service, user)).sessions;
    assert.deepEqual([session?.['status'], session?.['partial']], ['completed', true]);
  });

  it('a sign-out ends every tab, and another user sees no card', async () => {
    const { tab } = await openSignedIn(stage());
    await make(tab, lesson());
    await phase(tab, 'done');
    const { hash } = new URL(tab.url());
    const other = await open(stage(), tab.context(), hash);
    await cardsAre(other, 20);
    await button(other, 'Sign out').click();
    for (const each of [tab, other]) await button(each, 'Sign in').waitFor();
    assert.equal(await textBox(tab).count(), 0);
    const { tab: stranger } = await openSignedIn(stage());
    await stranger.goto(stage().pages.url + hash);
    await stranger.reload();
    await stranger.getByText('There is no such session, or it is not yours.').waitFor();
  });
});
