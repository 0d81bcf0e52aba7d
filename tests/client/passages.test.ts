// The place of a source in a JavaScript string, which counts otherwise than the service.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { indexText, passageOf } from '../../examples/astro/src/ai-sessions/passages.ts';

const TEXTS = ['Water rises. It cools.', '💧 rises 🌊. It 🧊s.', 'يصعد الماء. ثم يبرد.', '𝔸𝔹 x̂ 👩‍👩‍👧 🇵🇱\nzwei\n\ndrei'];

test('a passage is that of the characters that the service counts', () => {
  for (const text of TEXTS) {
    const characters = [...text];
    for (let start = 0; start < characters.length; start += 1) {
      for (let end = start + 1; end <= characters.length; end += 1) {
        assert.equal(passageOf(text, { start, end }), characters.slice(start, end).join(''));
      }
    }
  }
});

test('a passage is limited to the text', () => {
  assert.equal(passageOf('💧a', { start: 1, end: 10_000 }), 'a');
  assert.equal(passageOf('💧a', { start: 7, end: 9 }), '');
});

test('the parts without a card are those between the sources', () => {
  const text = ' 💧 rises.\n\nIt 🧊s.  Then 🌧.';
  const partsOf = (...passages: string[]) => {
    const index = indexText(text);
    const sources = passages.map((passage) => {
      const start = [...text.slice(0, text.indexOf(passage))].length;
      return { start, end: start + [...passage].length };
    });
    return index.without(sources).map(({ start, end }) => text.slice(start, end));
  };
  assert.deepEqual(partsOf(), ['💧 rises.\n\nIt 🧊s.  Then 🌧.']);
  assert.deepEqual(partsOf('It 🧊s.'), ['💧 rises.', 'Then 🌧.']);
  assert.deepEqual(partsOf('Then 🌧.', '💧 rises.'), ['It 🧊s.']);
  assert.deepEqual(partsOf('💧 rises.', 'It 🧊s.', 'Then 🌧.'), []);
  // Overlapping and repeated sources.
  assert.deepEqual(partsOf('💧 rises.\n\nIt 🧊s.', 'It', 'It 🧊s.', 'It 🧊s.'), ['Then 🌧.']);
  assert.deepEqual(partsOf('rises', text.trim()), []);
});

test('the longest text with a hundred sources is indexed at once', () => {
  const text = '🌊'.repeat(10_000);
  const index = indexText(text);
  const sources = Array.from({ length: 100 }, (_, n) => ({ start: n * 100, end: n * 100 + 50 }));
  assert.equal(index.without(sources).length, 100);
  assert.deepEqual(index.sliceOf({ start: 9999, end: 10_000 }), { start: 19_998, end: 20_000 });
});
