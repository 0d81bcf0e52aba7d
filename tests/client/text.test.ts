// The page's rule for texts, with the cases of the service's rule (tests/core/texts.rs).

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { countCharacters, sanitize } from '../../examples/astro/src/ai-sessions/text.ts';

type Case = { name: string; text: string; clean: string; characters: number };
const cases = JSON.parse(readFileSync(new URL('../fixtures/texts.json', import.meta.url), 'utf8')) as Case[];

test('every text is sanitized and counted as by the service', () => {
  for (const { name, text, clean, characters } of cases) {
    assert.equal(sanitize(text), clean, name);
    assert.equal(countCharacters(clean), characters, name);
    assert.equal(sanitize(clean), clean, `${name}, again`);
  }
});

test('half a surrogate pair, which the service refuses, is never sent', () => {
  assert.equal(sanitize('a\ud83d'), 'a\ufffd');
  assert.equal(countCharacters(sanitize('\udc00\ud83d')), 2);
});

test('a long run of white space costs no more than its length', () => {
  const text = `a${' '.repeat(1_000_000)}b`;
  assert.equal(sanitize(text), text);
});
