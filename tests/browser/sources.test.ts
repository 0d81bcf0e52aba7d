// Where a card comes from: its passage in the text, its label without support, the advice, and the passages without a card.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Page } from 'playwright-core';
import { answer, inventsCards } from '../support/model_behaviour.ts';
import { button, cards, cardsAre, expectAccessible, make, openSignedIn, phase, picture, says, staged } from './stage.ts';

type Card = { front: string; back: string; prompt: string; source?: unknown };

/** Sentences of a text, each of which is a passage of its own. */
const languages: Record<string, { direction: string; sentence: (n: number) => string }> = {
  'Latin letters': { direction: 'ltr', sentence: (n) => `Planet number ${n} of the catalogue circles its star in exactly ${n * 17 + 3} days.` },
  Arabic: { direction: 'rtl', sentence: (n) => `يدور الكوكب رقم ${n} في القائمة حول نجمه مرة واحدة كل ${n * 17 + 3} يوما من أيام الأرض.` },
  emoji: { direction: 'ltr', sentence: (n) => `🪐🌟 Planet ${n} 👩‍🚀 of the 📖 circles 🔄 its 🌞 in exactly ${n * 17 + 3} days 🗓️🇵🇱.` },
};

const COUNT = 24;
const textOf = (sentence: (n: number) => string) => Array.from({ length: COUNT }, (_, n) => sentence(n + 1)).join(' ');

describe('the source of a card on the page', () => {
  const stage = staged({ RATE_LIMIT_BURST: '1000/60' });

  /** Queues a model answer with these cards. */
  function nextCards(candidates: Card[]): void {
    stage().service.world.openrouter.next(answer({ content: JSON.stringify({ candidates }) }));
  }

  const cardFrom = (n: number, sentence: string, source: unknown = [n]): Card => ({ front: `Front ${n}?`, back: sentence, prompt: 'Tests it.', source });

  const marks = (tab: Page, kind: 'source' | 'uncovered') => tab.locator(`#source-text mark[data-kind=${kind}]`);
  const sourceButton = (tab: Page, n: number) => cards(tab).nth(n).getByRole('button', { name: /^Show source/ });
  const isFocused = (tab: Page, selector: string) => tab.evaluate((selector) => document.activeElement?.matches(selector) === true, selector);

  for (const [name, { direction, sentence }] of Object.entries(languages)) {
    it(`a passage is marked in a text of ${name}`, async () => {
      const { tab } = await openSignedIn(stage());
      nextCards([cardFrom(2, sentence(2)), cardFrom(24, sentence(24)), cardFrom(7, sentence(7), [7, 8])]);
      await make(tab, textOf(sentence));
      await phase(tab, 'done');
      for (const [n, expected] of [sentence(2), sentence(24), `${sentence(7)} ${sentence(8)}`].entries()) {
        await sourceButton(tab, n).click();
        await marks(tab, 'source').waitFor();
        assert.equal(await marks(tab, 'source').textContent(), expected);
        assert.equal(await tab.locator('#source-text').textContent(), textOf(sentence));
        assert.equal(await tab.locator('#source-text').evaluate((element) => getComputedStyle(element).direction), direction);
        await tab.keyboard.press('Escape');
      }
    });
  }

  it('Enter and Space show the passage, and Escape returns to the card', async () => {
    const { sentence } = languages['Latin letters']!;
    const { tab } = await openSignedIn(stage());
    nextCards([cardFrom(20, sentence(20))]);
    await make(tab, textOf(sentence));
    await phase(tab, 'done');
    for (const key of ['Enter', 'Space']) {
      await sourceButton(tab, 0).focus();
      await tab.keyboard.press(key);
      await marks(tab, 'source').waitFor();
      assert.equal(await isFocused(tab, 'mark[data-kind=source]'), true);
      assert.equal(await marks(tab, 'source').getAttribute('aria-describedby'), 'source-about');
      await says(tab, '#source-about', 'The passage of “Front 20?” is marked.');
      assert.equal(await isOnScreen(tab, '#source-text mark'), true);
      await tab.keyboard.press('Escape');
      assert.equal(await isFocused(tab, '[data-do=source]'), true);
      await tab.locator('#source-text:empty').waitFor({ state: 'attached' });
    }
  });

  it('passages without a card are shown on request', async () => {
    const { sentence } = languages['emoji']!;
    const { tab } = await openSignedIn(stage());
    nextCards([cardFrom(1, sentence(1)), cardFrom(3, sentence(3)), cardFrom(5, sentence(5), [5, 6])]);
    await make(tab, textOf(sentence));
    await phase(tab, 'done');
    await sourceButton(tab, 1).click();
    await marks(tab, 'source').waitFor();
    assert.equal(await marks(tab, 'uncovered').count(), 0);
    const toggle = button(tab, 'Show what has no card');
    await toggle.focus();
    await tab.keyboard.press('Space');
    assert.equal(await toggle.getAttribute('aria-pressed'), 'true');
    const rest = Array.from({ length: COUNT - 6 }, (_, n) => sentence(n + 7)).join(' ');
    assert.deepEqual(await marks(tab, 'uncovered').allTextContents(), [sentence(2), sentence(4), rest]);
    assert.equal(await marks(tab, 'source').textContent(), sentence(3));
    await says(tab, '#source-about', '3 passages without a card are marked.');
    await expectAccessible(tab, 'passages without a card');
    await tab.keyboard.press('Space');
    assert.equal(await marks(tab, 'uncovered').count(), 0);
    await button(tab, 'Close').click();

    await button(tab, 'Show text').click();
    await says(tab, '#source-about', '3 passages without a card are marked.');
    assert.equal(await marks(tab, 'source').count(), 0);
    assert.equal(await isFocused(tab, '#source-text'), true);
  });

  it('a card without a source is labelled and has no button', async () => {
    const { sentence } = languages['Latin letters']!;
    const { tab } = await openSignedIn(stage());
    const named: unknown[] = [[1], [99], null, 'none', undefined];
    nextCards(named.map((source, n) => ({ ...cardFrom(n + 1, sentence(n + 1)), source })));
    await make(tab, textOf(sentence));
    await phase(tab, 'done');
    await cardsAre(tab, named.length);
    for (const n of named.keys()) {
      const label = cards(tab).nth(n).getByText('No source: the model named no passage of your text.');
      assert.equal(await label.isVisible(), n > 0);
      assert.equal(await sourceButton(tab, n).isVisible(), n === 0);
    }
    await expectAccessible(tab, 'cards without a source');
  });

  it('passages without a card are unknown if no card has a source', async () => {
    const { sentence } = languages['Latin letters']!;
    const { tab } = await openSignedIn(stage());
    nextCards([cardFrom(1, sentence(1), [99]), cardFrom(2, sentence(2), null)]);
    await make(tab, textOf(sentence));
    await phase(tab, 'done');
    await button(tab, 'Show text').click();
    await says(tab, '#source-about', 'It is not known which passages have a card: the sources of the cards are unknown.');
    assert.equal(await tab.locator('#source-text').textContent(), textOf(sentence));
    assert.equal(await tab.locator('#source-text mark').count(), 0);
    await expectAccessible(tab, 'a text whose cards have no source');
    await button(tab, 'Show what has no card').click();
    assert.equal(await tab.locator('#source-about').textContent(), '');
  });

  it('invented cards are labelled as without support', async () => {
    const { sentence } = languages['Latin letters']!;
    const { tab } = await openSignedIn(stage());
    stage().service.world.openrouter.next(inventsCards(4));
    await make(tab, textOf(sentence));
    await phase(tab, 'done');
    await cardsAre(tab, 4);
    for (let n = 0; n < 4; n += 1) {
      await cards(tab).nth(n).getByText('No support: the answer is not in the passage that the card comes from. Check this card.').waitFor();
    }
    await expectAccessible(tab, 'invented cards');
    await picture(tab, 'invented-cards');
    await sourceButton(tab, 1).click();
    await says(tab, '#source-about', 'The answer is not in it: check this card.');
    await tab.keyboard.press('Escape');

    // A good model's cards of the same text have no label.
    await make(tab, `${sentence(99)} ${textOf(sentence)}`);
    await phase(tab, 'done');
    await cardsAre(tab, 20);
    assert.equal(await tab.locator('.support:visible').count(), 0);
    for (let n = 0; n < 20; n += 1) assert.equal(await sourceButton(tab, n).isVisible(), true);
  });

  it('a note is shown as advice until the card is edited', async () => {
    const { sentence } = languages['Latin letters']!;
    const { tab } = await openSignedIn(stage());
    nextCards([
      { front: 'Does planet 1 circle its star in exactly 20 days?', back: 'Yes.', prompt: 'Tests it.', source: [1] },
      cardFrom(2, sentence(2)),
    ]);
    await make(tab, textOf(sentence));
    await phase(tab, 'done');
    const advice = cards(tab).nth(0).getByRole('list', { name: 'Advice' });
    await advice.getByText('The answer is only yes or no: ask for the fact itself.').waitFor();
    assert.equal(await cards(tab).nth(1).getByRole('list', { name: 'Advice' }).isVisible(), false);
    await expectAccessible(tab, 'a card with advice');
    const card = cards(tab).nth(0);
    await card.getByRole('button', { name: /^Edit/ }).click();
    await card.getByLabel('Front').fill('In how many days does planet 1 circle its star?');
    await card.getByLabel('Back').fill('20');
    await card.getByRole('button', { name: 'Save' }).click();
    assert.equal(await advice.isVisible(), false);
    assert.equal(await card.locator('.support').isVisible(), false);
    assert.equal(await sourceButton(tab, 0).isVisible(), true);
  });

  it('the passage of a past session is marked in the stored text', async () => {
    const { sentence } = languages['emoji']!;
    const { tab } = await openSignedIn(stage());
    nextCards([cardFrom(4, sentence(4))]);
    await make(tab, textOf(sentence));
    await phase(tab, 'done');
    await tab.reload();
    await phase(tab, 'done');
    await sourceButton(tab, 0).click();
    await marks(tab, 'source').waitFor();
    assert.equal(await marks(tab, 'source').textContent(), sentence(4));
    await tab.keyboard.press('Escape');

    // The database is not reachable.
    await tab.reload();
    await phase(tab, 'done');
    const fault = stage().service.world.gateway.fail('/rest/v1/ai_generation_sessions', { kind: 'answer', status: 500 });
    await sourceButton(tab, 0).click();
    await says(tab, '#source-about', 'The text cannot be loaded.');
    fault.clear();
    await tab.keyboard.press('Escape');
    await sourceButton(tab, 0).click();
    await marks(tab, 'source').waitFor();
  });

  it('the text of the last user is not on the page after a sign-out', async () => {
    const { sentence } = languages['Latin letters']!;
    const { tab } = await openSignedIn(stage());
    nextCards([cardFrom(1, sentence(1))]);
    await make(tab, textOf(sentence));
    await phase(tab, 'done');
    await button(tab, 'Show text').click();
    await says(tab, '#source-text', sentence(1));
    await button(tab, 'Close').click();
    await button(tab, 'Sign out').click();
    await button(tab, 'Sign in').waitFor();
    assert.equal((await tab.content()).includes(sentence(3)), false);
  });

  for (const [size, viewport] of [['phone', { width: 390, height: 844 }], ['desktop', { width: 1280, height: 800 }]] as const) {
    for (const colorScheme of ['light', 'dark'] as const) {
      it(`the text passes axe in ${colorScheme} on a ${size}`, async () => {
        const { sentence } = languages['Arabic']!;
        const { tab } = await openSignedIn(stage(), { viewport, colorScheme });
        nextCards([cardFrom(2, sentence(2)), cardFrom(22, sentence(22), [99])]);
        await make(tab, textOf(sentence));
        await phase(tab, 'done');
        await expectAccessible(tab, 'cards with sources');
        await sourceButton(tab, 0).click();
        await marks(tab, 'source').waitFor();
        await button(tab, 'Show what has no card').click();
        await marks(tab, 'uncovered').first().waitFor();
        await expectAccessible(tab, 'the text');
        const [width, wide] = await tab.evaluate(() => [document.documentElement.clientWidth, document.documentElement.scrollWidth] as const);
        assert.ok(wide <= width, 'it fits the screen');
        assert.equal(await isWithin(tab, '#source'), true);
        await picture(tab, `source-${colorScheme}-${size}`);
      });
    }
  }
});

/** Whether an element is on the screen, in its scrolled parents too. */
const isOnScreen = (tab: Page, selector: string) =>
  tab.locator(selector).evaluate((element) => {
    const { left, top, width } = element.getClientRects()[0] as DOMRect;
    return element.contains(document.elementFromPoint(left + Math.min(width / 2, 20), top + 5));
  });

/** Whether an element fits the screen. */
const isWithin = (tab: Page, selector: string) =>
  tab.locator(selector).evaluate((element) => {
    const { left, right, top, bottom } = element.getBoundingClientRect();
    return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
  });
