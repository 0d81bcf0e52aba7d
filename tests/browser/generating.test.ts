// A generation on the page, from the first click to the last card, with all interruptions.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { lesson, rowsOf } from '../service/service.ts';
import { createGate } from '../support/gate.ts';
import { answer } from '../support/model_behaviour.ts';
import { scriptByMark } from '../support/model_by_mark.ts';
import { within } from '../support/within.ts';
import { button, cards, cardsAre, make, modelsLoaded, open, openSignedIn, phase, says, staged } from './stage.ts';

describe('a generation on the page', () => {
  const stage = staged({ RATE_LIMIT_BURST: '1000/60', RATE_LIMIT_CONCURRENT: '10' });
  let script: ReturnType<typeof scriptByMark>;
  const scripted = (...behaviours: Parameters<ReturnType<typeof scriptByMark>>[0]) => {
    script ??= scriptByMark(stage().service.world.openrouter);
    const marked = script(behaviours);
    return { ...marked, text: `${lesson()} ${marked.mark}` };
  };

  it('cards appear one by one without moving the page', async () => {
    const { tab } = await openSignedIn(stage());
    const [third, rest] = [createGate(), createGate()];
    const { text } = scripted(async (turn) => {
      const whole = turn.candidates();
      turn.streamHead();
      await turn.chunk({ content: `{"${turn.listName}":[` });
      for (const [i, card] of whole.entries()) {
        if (i === 2) await third.pass();
        if (i === 3) await rest.pass();
        await turn.chunk({ content: (i === 0 ? '' : ',') + JSON.stringify(card) });
      }
      await turn.chunk({ content: ']}' }, 'stop');
      await turn.event('[DONE]');
      turn.end();
    });
    await make(tab, text);
    await cardsAre(tab, 2);
    assert.equal(await tab.evaluate(() => document.activeElement?.id), 'results-heading');
    await says(tab, '#progress', '2 cards so far');
    await tab.evaluate(() => {
      const shifts: string[] = [];
      Object.assign(globalThis, { shifts });
      const record = (list: PerformanceObserverEntryList) => shifts.push(...list.getEntries().flatMap((entry) => (entry as unknown as { sources: { node?: Element }[] }).sources.map(({ node }) => node?.outerHTML ?? 'a removed element')));
      new PerformanceObserver(record).observe({ type: 'layout-shift' });
    });
    third.open();
    await cardsAre(tab, 3);
    rest.open();
    await phase(tab, 'done');
    await cardsAre(tab, 20);
    // The last shifts are reported with the next frames.
    await tab.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
    assert.deepEqual(await tab.evaluate(() => (globalThis as unknown as { shifts: string[] }).shifts), []);
    await says(tab, '#progress', '20 cards');
    await says(tab, '#quota', '49 of 50 generations left in 24 hours');
  });

  it('a reload resumes after the last received event', async () => {
    const { tab, user } = await openSignedIn(stage());
    const gate = createGate();
    const { text, requests } = scripted(answer({ hold: { gate, after_candidates: 3 } }));
    await make(tab, text);
    await cardsAre(tab, 3);
    const resumed = tab.waitForRequest((request) => request.method() === 'GET' && request.url().endsWith('/events'));
    await tab.reload();
    assert.equal((await resumed).headers()['last-event-id'], '1.3');
    await cardsAre(tab, 3);
    await phase(tab, 'generating');
    gate.open();
    await phase(tab, 'done');
    await cardsAre(tab, 20);
    assert.equal(requests.length, 1);
    assert.equal((await rowsOf(stage().service, user)).sessions.length, 1);
    // A reload after the end finds the session by the address.
    await tab.reload();
    await phase(tab, 'done');
    await cardsAre(tab, 20);
  });

  it('a reload before the first event resumes the generation', async () => {
    const { tab } = await openSignedIn(stage());
    const [answers, cardsGate] = [createGate(), createGate()];
    const { text, requests } = scripted(answer({ hold: { gate: cardsGate, after_candidates: 0 } }));
    stage().proxy.hold(answers);
    await make(tab, text);
    await within(cardsGate.reached, 'the model call');
    await tab.reload();
    answers.open();
    cardsGate.open();
    await phase(tab, 'done');
    await cardsAre(tab, 20);
    assert.equal(requests.length, 1);
  });

  it('a tab that opens the address receives the cards as they arrive', async () => {
    const { tab } = await openSignedIn(stage());
    const gate = createGate();
    const { text, requests } = scripted(answer({ hold: { gate, after_candidates: 3 } }));
    await make(tab, text);
    await cardsAre(tab, 3);
    const other = await open(stage(), tab.context(), new URL(tab.url()).hash);
    await cardsAre(other, 3);
    await phase(other, 'generating');
    gate.open();
    await phase(other, 'done');
    await cardsAre(other, 20);
    assert.equal(requests.length, 1);
  });

  it('an offline browser waits and resumes by itself', async () => {
    const { tab } = await openSignedIn(stage());
    const gate = createGate();
    const { text, requests } = scripted(answer({ hold: { gate, after_candidates: 2 } }));
    await make(tab, text);
    await cardsAre(tab, 2);
    await tab.context().setOffline(true);
    await says(tab, '#progress', 'Offline');
    await tab.getByText('You are offline.').waitFor();
    gate.open();
    await requests[0]?.over;
    await tab.context().setOffline(false);
    await phase(tab, 'done');
    await cardsAre(tab, 20);
    assert.equal(await tab.getByText('You are offline.').isVisible(), false);
    assert.equal(requests.length, 1);
  });

  it('a broken connection is resumed', async () => {
    const { tab } = await openSignedIn(stage());
    const gate = createGate();
    const { text, requests } = scripted(answer({ hold: { gate, after_candidates: 2 } }));
    await make(tab, text);
    await cardsAre(tab, 2);
    stage().proxy.down();
    await says(tab, '#progress', 'Connection lost, trying again');
    gate.open();
    await requests[0]?.over;
    stage().proxy.up();
    await phase(tab, 'done');
    await cardsAre(tab, 20);
    assert.equal(requests.length, 1);
  });

  it('the stop button keeps the complete cards and says so', async () => {
    const { tab, user } = await openSignedIn(stage());
    const { text } = scripted(answer({ hold: { gate: createGate(), after_candidates: 2 } }));
    await make(tab, text);
    await cardsAre(tab, 2);
    await button(tab, 'Stop').click();
    await phase(tab, 'done');
    await says(tab, '#progress', '2 cards · The answer broke off; these are whole.');
    const [session] = (await rowsOf(stage().service, user)).sessions;
    assert.deepEqual([session?.['status'], session?.['partial']], ['completed', true]);
  });

  it('a generation stopped before the first card can be started again', async () => {
    const { tab } = await openSignedIn(stage());
    const { text } = scripted(answer({ hold: { gate: createGate(), after_candidates: 0 } }), answer({}));
    await make(tab, text);
    await phase(tab, 'generating');
    await tab.waitForFunction(() => location.hash !== '');
    await button(tab, 'Stop').click();
    await says(tab, '#problem', 'You stopped it before the first card was there.');
    await button(tab, 'Try again').click();
    await phase(tab, 'done');
    await cardsAre(tab, 20);
  });

  it('the same text in two tabs is charged once, as are their new cards', async () => {
    const { tab } = await openSignedIn(stage());
    const other = await open(stage(), tab.context());
    await modelsLoaded(other);
    const gate = createGate();
    const { text, requests } = scripted(answer({ hold: { gate, after_candidates: 1 } }), answer({}));
    await Promise.all([make(tab, text), make(other, `  ${text}\r\n`)]);
    await Promise.all([cardsAre(tab, 1), cardsAre(other, 1)]);
    gate.open();
    await Promise.all([phase(tab, 'done'), phase(other, 'done')]);
    assert.equal(requests.length, 1);
    assert.deepEqual(await cards(tab).allTextContents(), await cards(other).allTextContents());
    // Once more, without new cards: the existing ones are shown and marked as such.
    await button(tab, 'Make cards').click();
    await says(tab, '#progress', 'You sent this text before; nothing new was counted.');
    assert.equal(requests.length, 1);

    const { hash } = new URL(tab.url());
    await Promise.all([button(tab, 'New cards').click(), button(other, 'New cards').click()]);
    const isAnother = (shown: string) => location.hash !== shown;
    await Promise.all([tab.waitForFunction(isAnother, hash), other.waitForFunction(isAnother, hash)]);
    await Promise.all([phase(tab, 'done'), phase(other, 'done')]);
    assert.equal(requests.length, 2);
    assert.equal(tab.url(), other.url());
  });
});
