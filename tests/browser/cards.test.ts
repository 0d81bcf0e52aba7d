// What a learner does with cards: keep, edit, reject, take away, and find them again.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { create, lesson } from '../service/service.ts';
import { button, cards, make, openSignedIn, phase, says, staged } from './stage.ts';

describe('the cards on the page', () => {
  const stage = staged({ RATE_LIMIT_BURST: '1000/60', MAX_CANDIDATES: '3' });

  it('are kept, edited and rejected, over a reload, and what is kept can be taken away', async () => {
    const { tab } = await openSignedIn(stage());
    await make(tab, lesson());
    await phase(tab, 'done');
    const nth = (n: number, name: RegExp) => cards(tab).nth(n).getByRole('button', { name });
    await nth(0, /^Keep/).click();
    await nth(1, /^Reject/).click();
    await nth(2, /^Edit/).click();
    const editor = cards(tab).nth(2);
    assert.equal(await editor.getByLabel('Front').evaluate((element) => element === document.activeElement), true);
    await editor.getByLabel('Front').fill('x'.repeat(201));
    await editor.getByRole('button', { name: 'Save' }).click();
    await editor.getByText('The front has 201 characters, 200 are allowed.').waitFor();
    await editor.getByLabel('Front').fill(' Who said "water"? ');
    await editor.getByLabel('Back').fill('Everybody.');
    await editor.getByRole('button', { name: 'Save' }).click();
    assert.equal(await nth(2, /^Edit/).evaluate((element) => element === document.activeElement), true);
    await says(tab, '#progress', '3 cards · 2 kept · 1 rejected · 0 open');

    await tab.reload();
    await says(tab, '#progress', '3 cards · 2 kept · 1 rejected · 0 open');
    assert.equal(await nth(1, /^Reject/).getAttribute('aria-pressed'), 'true');
    assert.equal(await cards(tab).nth(2).locator('.front').textContent(), 'Who said "water"?');

    const [download] = await Promise.all([tab.waitForEvent('download'), button(tab, 'Download kept cards').click()]);
    const csv = (await readFile(await download.path(), 'utf8')).split('\r\n');
    assert.equal(csv.length, 3, 'two cards, each with a line end');
    assert.equal(csv[1], '"Who said ""water""?","Everybody."');

    await nth(0, /^Keep/).click();
    await says(tab, '#progress', '1 kept · 1 rejected · 1 open');
  });

  it('are left as they were by Escape', async () => {
    const { tab } = await openSignedIn(stage());
    await make(tab, lesson());
    await phase(tab, 'done');
    const before = await cards(tab).first().locator('.front').textContent();
    await cards(tab).first().getByRole('button', { name: /^Edit/ }).click();
    await tab.keyboard.type('something else');
    await tab.keyboard.press('Escape');
    assert.equal(await cards(tab).first().locator('.front').textContent(), before);
    await says(tab, '#progress', /^3 cards$/);
  });

  it('are found again among the past sessions, page by page', async () => {
    const { tab, user } = await openSignedIn(stage());
    await button(tab, 'Past sessions').click();
    await tab.getByText('None yet').waitFor();
    await tab.keyboard.press('Escape');
    assert.equal(await tab.evaluate(() => document.activeElement?.id), 'open-past', 'the focus is back where it was');

    const token = stage().service.world.auth.token(user);
    for (let n = 1; n <= 11; n += 1) {
      const { status } = await create(stage().service, token, { input_text: `Lesson number ${n}. ${lesson()}`, model: 'test/first' });
      assert.equal(status, 201);
    }
    const past = tab.getByRole('dialog', { name: 'Past sessions' });
    await button(tab, 'Past sessions').click();
    await past.getByRole('link').nth(9).waitFor();
    assert.equal(await past.getByRole('link').count(), 10);
    await past.getByRole('link').first().click();
    await says(tab, '#cards li:first-child .back', /^Lesson number 11\.$/);

    await button(tab, 'Past sessions').click();
    await past.getByRole('button', { name: 'Show older ones' }).click();
    await past.getByRole('link').nth(10).click();
    await says(tab, '#cards li:first-child .back', /^Lesson number 1\.$/);
    await tab.goBack();
    await says(tab, '#cards li:first-child .back', /^Lesson number 11\.$/);
  });
});
