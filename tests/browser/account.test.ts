// Signing in and out with an unmodified supabase-js, and the data that the page keeps.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Page } from 'playwright-core';
import { lesson } from '../service/service.ts';
import { button, cards, cardsAre, make, modelsLoaded, open, openSignedIn, phase, signIn, staged, textBox } from './stage.ts';

describe('an account on the page', () => {
  const stage = staged();

  it('an account is created, signed out and signed in again', async () => {
    const person = await stage().person();
    const tab = await open(stage(), person);
    const user = { email: `${crypto.randomUUID()}@example.test`, password: 'a good password' };
    await tab.getByLabel('Email address').fill(user.email);
    await tab.getByLabel('Password').fill(user.password);
    await button(tab, 'Create an account').click();
    await modelsLoaded(tab);
    assert.equal(await tab.locator('#email').textContent(), user.email);
    assert.equal(await tab.evaluate(() => document.activeElement?.id), 'text');
    await button(tab, 'Sign out').click();
    await button(tab, 'Sign in').waitFor();
    assert.equal(await tab.evaluate(() => document.activeElement?.id), 'sign-in-email');
    await signIn(tab, { id: '', anonymous: false, ...user });
    await textBox(tab).waitFor();
  });

  it('the form says what is wrong with an address or a password', async () => {
    const { email } = await stage().service.world.auth.createUser();
    const tab = await open(stage(), await stage().person());
    await tab.getByLabel('Email address').fill(email ?? '');
    await tab.getByLabel('Password').fill('another password');
    await button(tab, 'Sign in').click();
    await tab.getByRole('alert').filter({ hasText: 'do not belong together' }).waitFor();
    await button(tab, 'Create an account').click();
    await tab.getByRole('alert').filter({ hasText: 'sign in instead' }).waitFor();
    stage().service.world.gateway.down();
    try {
      await button(tab, 'Sign in').click();
      await tab.getByRole('alert').filter({ hasText: 'The sign-in cannot be reached.' }).waitFor();
    } finally {
      stage().service.world.gateway.up();
    }
  });

  it('a sign-out ends every tab and clears the browser', async () => {
    const { tab, user } = await openSignedIn(stage());
    const other = await open(stage(), tab.context());
    await modelsLoaded(other);
    await make(other, lesson());
    await phase(other, 'done');
    await cards(other).first().getByRole('button', { name: /^Keep/ }).click();
    await textBox(tab).fill(lesson());
    await tab.evaluate(() => {
      // Of an earlier user of this browser, and of another page.
      localStorage.setItem('cards.decisions.earlier', '{}');
      localStorage.setItem('of-another-page', '1');
    });
    assert.ok((await kept(other)).length >= 4, 'decisions, attempts and limits were kept');

    await button(other, 'Sign out').click();
    for (const each of [tab, other]) {
      await button(each, 'Sign in').waitFor();
      await emptied(each);
      assert.equal(await each.locator('#text').inputValue(), '', 'not in the page either');
    }
    assert.equal(await tab.evaluate(() => localStorage.getItem('of-another-page')), '1');

    for (const next of [user, await stage().service.world.auth.createUser()]) {
      await signIn(tab, next);
      assert.equal(await textBox(tab).inputValue(), '');
      await button(tab, 'Sign out').click();
      await button(tab, 'Sign in').waitFor();
    }
  });

  it('a sign-out clears a tab that was closed meanwhile', async () => {
    const { tab } = await openSignedIn(stage());
    await textBox(tab).fill(lesson());
    const other = await open(stage(), tab.context());
    await modelsLoaded(other);
    // A closed page receives no event.
    await tab.goto(`${stage().pages.url}/favicon.svg`);
    await button(other, 'Sign out').click();
    await button(other, 'Sign in').waitFor();
    await tab.goto(stage().pages.url);
    await button(tab, 'Sign in').waitFor();
    await emptied(tab);
  });

  it('an expired token is renewed silently', async () => {
    const { tab, user } = await openSignedIn(stage());
    const { auth } = stage().service.world;
    const old = auth.token({ id: user.id, email: user.email, anonymous: false }, { expires_in_s: -120 });
    // As after a sleep: supabase-js still considers the token valid.
    await tab.evaluate((token) => {
      const name = Object.keys(localStorage).find((key) => key.endsWith('-auth-token')) ?? '';
      localStorage.setItem(name, JSON.stringify({ ...JSON.parse(localStorage.getItem(name) ?? '{}'), access_token: token }));
    }, old);
    await make(tab, lesson());
    await phase(tab, 'done');
    await cardsAre(tab, 20);
  });

  it('the cards of one user are not shown to another', async () => {
    const { tab } = await openSignedIn(stage());
    await make(tab, lesson());
    await phase(tab, 'done');
    const { hash } = new URL(tab.url());
    const { tab: stranger } = await openSignedIn(stage());
    await stranger.goto(stage().pages.url + hash);
    await stranger.reload();
    await stranger.getByText('There is no such session, or it is not yours.').waitFor();
  });
});

/** The keys in the page's storage, without the mark of the sign-out itself. */
const kept = (tab: Page) => tab.evaluate(namesKept);

function namesKept(): string[] {
  const names = [...Object.keys(localStorage), ...Object.keys(sessionStorage)];
  return names.filter((name) => /^(cards|ai-sessions)\./.test(name) && name !== 'cards.signed-out');
}

/** Waits until the page's storage is empty. */
async function emptied(tab: Page): Promise<void> {
  await tab.waitForFunction(`(${namesKept})().length === 0`).catch(async () => assert.deepEqual(await kept(tab), []));
}
