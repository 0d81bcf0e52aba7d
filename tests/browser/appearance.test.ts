// Every state in light and dark, on a phone and on a desktop: axe-core finds nothing, nothing exceeds the screen's width, and
// a picture is saved in test-output/.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import type { Page } from 'playwright-core';
import { createGate } from '../support/gate.ts';
import { answer, httpError } from '../support/model_behaviour.ts';
import { button, cards, cardsAre, expectAccessible, make, open, phase, picture, says, signIn, staged, textBox } from './stage.ts';

const text = readFileSync(new URL('../../examples/sample-text.txt', import.meta.url), 'utf8');
const sizes = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };

describe('the appearance of the page', () => {
  const stage = staged({ ALLOWED_MODELS: 'openai/gpt-4o-mini,google/gemini-2.5-flash', MAX_CANDIDATES: '6', AI_MAX_ATTEMPTS: '1', RATE_LIMIT_GENERATIONS: '50/86400' });

  for (const colorScheme of ['light', 'dark'] as const) {
    for (const [size, viewport] of Object.entries(sizes)) {
      it(`every state passes axe in ${colorScheme} on a ${size}`, async () => {
        const tab = await open(stage(), await stage().person({ colorScheme, viewport }));
        const { openrouter, auth } = stage().service.world;
        const check = async (state: string) => {
          await expectAccessible(tab, state);
          assert.equal(await overflows(tab), false, `${state} fits the screen's width`);
          await picture(tab, `${state}-${colorScheme}-${size}`);
        };
        await button(tab, 'Sign in').waitFor();
        await check('signed-out');
        const user = await auth.createUser({ email: `${colorScheme}-${size}@example.test` });
        await signIn(tab, user);
        await check('empty');
        await textBox(tab).fill(text.slice(0, 800));
        await says(tab, '#count', '800 characters · 200 more to reach 1,000');
        await check('counting');
        await textBox(tab).fill(text.repeat(4));
        await says(tab, '#count', 'over 10,000');
        await check('too-long');

        const gate = createGate();
        openrouter.next(answer({ hold: { gate, after_candidates: 2 } }));
        await make(tab, text);
        await cardsAre(tab, 2);
        await check('generating');
        await tab.context().setOffline(true);
        await says(tab, '#progress', 'Offline');
        await check('offline');
        await tab.context().setOffline(false);
        await says(tab, '#progress', 'Making cards');
        gate.open();
        await phase(tab, 'done');
        await cards(tab).nth(0).getByRole('button', { name: /^Keep/ }).click();
        await cards(tab).nth(1).getByRole('button', { name: /^Reject/ }).click();
        await check('done');
        await cards(tab).nth(2).getByRole('button', { name: /^Edit/ }).click();
        await check('editing');
        await tab.keyboard.press('Escape');
        await button(tab, 'Past sessions').click();
        await tab.getByRole('link').first().waitFor();
        await check('past-sessions');
        await tab.keyboard.press('Escape');

        openrouter.next(answer({ whole_candidates: 2, plus_chars: 20, instead_of_end: 'cut' }));
        await button(tab, 'New cards').click();
        await says(tab, '#progress', 'The answer broke off');
        await check('partial');
        openrouter.next(httpError(503));
        await button(tab, 'New cards').click();
        await phase(tab, 'failed');
        await check('failed');
      });
    }
  }

  it('the keyboard alone suffices from the sign-in to a kept card', async () => {
    const tab = await open(stage(), await stage().person());
    const { email, password } = await stage().service.world.auth.createUser();
    await button(tab, 'Sign in').waitFor();
    const { keyboard } = tab;
    await keyboard.type(email ?? '');
    await keyboard.press('Tab');
    await keyboard.type(password ?? '');
    await keyboard.press('Enter');
    await tab.locator('#model:enabled').waitFor();
    await keyboard.insertText(text);
    await tabTo(tab, 'Make cards');
    await keyboard.press('Enter');
    await phase(tab, 'done');
    // The focus is on the cards' heading; the first card follows the button for new ones.
    await tabTo(tab, /^Keep: /);
    await keyboard.press('Space');
    await says(tab, '#progress', '1 kept');
    await tabTo(tab, /^Edit: /);
    await keyboard.press('Enter');
    await keyboard.press('Escape');
    assert.match((await focused(tab)) ?? '', /^Edit: /);
  });
});

/** Whether the page scrolls sideways. */
const overflows = (tab: Page) => tab.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);

const focused = (tab: Page) => tab.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.textContent?.trim());

/** Far more than the tab stops of this page. */
const STOPS_MAX = 12;

async function tabTo(tab: Page, name: string | RegExp): Promise<void> {
  for (let stops = 0; stops < STOPS_MAX; stops += 1) {
    await tab.keyboard.press('Tab');
    const now = (await focused(tab)) ?? '';
    if (typeof name === 'string' ? now === name : name.test(now)) return;
  }
  assert.fail(`no Tab leads to ${name}`);
}
