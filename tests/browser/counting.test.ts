// The page and the service count the same characters.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { sendRequest, signIn as signInUser } from '../service/service.ts';
import { button, openSignedIn, says, staged, textBox } from './stage.ts';

type Case = { name: string; text: string; clean: string; characters: number };
const cases = JSON.parse(readFileSync(new URL('../fixtures/texts.json', import.meta.url), 'utf8')) as Case[];

describe('the count of characters on the page', () => {
  const stage = staged({ RATE_LIMIT_BURST: '1000/60' });

  it('the count equals that of the service for every text of the table', async () => {
    const { tab } = await openSignedIn(stage());
    const { token } = await signInUser(stage().service);
    for (const { name, text, characters } of cases) {
      const refused = await sendRequest(stage().service, 'POST', '/ai-sessions', { token, body: { input_text: text, model: 'test/first' } });
      const length = refused.body.errors.find((error: { code: string }) => error.code === 'length');
      assert.equal(length.actual, characters, `the service, ${name}`);
      await textBox(tab).fill(text);
      await says(tab, '#count', new RegExp(`^${characters} characters? · `));
    }
  });

  it('the button is enabled from 1000 to 10000 characters of any kind', async () => {
    const { tab } = await openSignedIn(stage());
    const opens = async (text: string) => {
      await textBox(tab).fill(text);
      return (await button(tab, 'Make cards').getAttribute('aria-disabled')) === 'false';
    };
    for (const character of ['x', '🌊', 'é']) {
      assert.equal(await opens(character.repeat(999)), false);
      assert.equal(await opens(` ${character.repeat(1000)}\n`), true);
      assert.equal(await opens(character.repeat(10_000)), true);
      assert.equal(await opens(character.repeat(10_001)), false);
    }
  });
});
