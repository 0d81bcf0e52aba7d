// Signing in and out, by supabase-js as it is, and what a page keeps over it.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { lesson } from '../service/service.ts';
import { button, cardsAre, make, modelsLoaded, open, openSignedIn, phase, signIn, staged, textBox } from './stage.ts';

describe('an account on the page', () => {
  const stage = staged();

  it('is made, left and entered again', async () => {
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

  it('says what is wrong with an address or a password', async () => {
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

  it('is signed out in every tab, and the text that was pasted stays', async () => {
    const { tab, user } = await openSignedIn(stage());
    const other = await open(stage(), tab.context());
    await modelsLoaded(other);
    await textBox(tab).fill(lesson());
    await button(other, 'Sign out').click();
    await button(tab, 'Sign in').waitFor();
    await signIn(tab, user);
    assert.equal(await textBox(tab).inputValue(), lesson());
    await button(tab, 'Sign out').click();
    await signIn(tab, await stage().service.world.auth.createUser());
    assert.equal(await textBox(tab).inputValue(), '', 'but not for somebody else');
  });

  it('renews a token that has expired, without a word', async () => {
    const { tab, user } = await openSignedIn(stage());
    const { auth } = stage().service.world;
    const old = auth.token({ id: user.id, email: user.email, anonymous: false }, { expires_in_s: -120 });
    // As if the page had slept: supabase-js takes the token for a good one.
    await tab.evaluate((token) => {
      const name = Object.keys(localStorage).find((key) => key.endsWith('-auth-token')) ?? '';
      localStorage.setItem(name, JSON.stringify({ ...JSON.parse(localStorage.getItem(name) ?? '{}'), access_token: token }));
    }, old);
    await make(tab, lesson());
    await phase(tab, 'done');
    await cardsAre(tab, 20);
  });

  it('shows nobody what somebody else has made', async () => {
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
