// The model server reads a text whose sentences are numbered, and names the numbers in its cards.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type CompletionBody, numberedSentences, textToLearn } from './model_request.ts';

const message = (text: string): CompletionBody => {
  const line = `TEXT ${'0a1b'.repeat(8)}`;
  return { messages: [{ role: 'user', content: `${line}\n${text}\n${line}` }] };
};

it('the numbers of sentences are no part of the text', () => {
  const body = message('1 Water rises.\n2 It cools.\n\n3 2 is a number.\n 4 more\nlines.');
  assert.equal(textToLearn(body), 'Water rises. It cools.\n\n2 is a number.\n 4 more\nlines.');
  assert.deepEqual(numberedSentences(body).map(({ number }) => number), [1, 2, 3]);
});

it('a text without numbers is read as it is', () => {
  for (const text of ['Water rises.\n1 It cools.', '2 It cools.', 'Water rises.']) {
    assert.equal(textToLearn(message(text)), text);
    assert.deepEqual(numberedSentences(message(text)), []);
  }
});
