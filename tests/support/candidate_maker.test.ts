import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { makeCandidates } from './candidate_maker.ts';

describe('the candidate maker', () => {
  const texts: [string, string][] = [
    ['English', 'The mitochondrion is the powerhouse of the cell. It makes adenosine triphosphate. '.repeat(15)],
    ['Polish', 'Fotosynteza zachodzi w chloroplastach. Światło zamienia się w energię chemiczną. '.repeat(15)],
    ['Japanese', '光合成は植物が光を化学エネルギーに変える過程です。葉緑体で行われます。'.repeat(30)],
    ['Arabic', 'التمثيل الضوئي عملية تحول الضوء إلى طاقة كيميائية. تحدث في البلاستيدات الخضراء. '.repeat(15)],
    ['one word without end', 'x'.repeat(10_000)],
    ['emoji', '\u{1F600}'.repeat(10_000)],
    ['digits and lines', Array.from({ length: 300 }, (_, i) => `${i}\n`).join('')],
    ['one sentence without end', 'word and '.repeat(1100)],
  ];
  for (const [name, text] of texts) {
    it(`the candidates of ${name} are within the limits`, () => {
      const candidates = makeCandidates(text, 20);
      assert.ok(candidates.length >= 1 && candidates.length <= 20, `${candidates.length} candidates`);
      for (const candidate of candidates) {
        for (const [field, max] of [['front', 200], ['back', 500], ['prompt', 500]] as const) {
          const length = [...candidate[field]].length;
          assert.ok(length >= 1 && length <= max, `${field} has ${length}`);
          assert.equal(candidate[field], candidate[field].trim());
          assert.ok(candidate[field].isWellFormed());
        }
      }
      assert.equal(new Set(candidates.map(({ front }) => front.toLowerCase())).size, candidates.length);
      assert.deepEqual(makeCandidates(text, 20), candidates);
    });
  }

  it('a candidate is a cloze of a sentence of the text', () => {
    const [candidate] = makeCandidates('Photosynthesis happens in chloroplasts.', 20);
    assert.deepEqual(candidate, {
      front: '____ happens in chloroplasts.',
      back: 'Photosynthesis happens in chloroplasts.',
      prompt: '“Photosynthesis”: Photosynthesis happens in chloroplasts.',
    });
  });

  it('a text of punctuation has a candidate with a word', () => {
    for (const { prompt } of makeCandidates('»"'.repeat(500), 20)) assert.match(prompt, /\p{L}/u);
  });

  it('the requested number of candidates covers the whole text', () => {
    const text = Array.from({ length: 100 }, (_, i) => `Sentence number ${i} speaks of thing${i}.`).join(' ');
    const candidates = makeCandidates(text, 5);
    assert.deepEqual(candidates.map(({ back }) => back.match(/\d+/)?.[0]), ['0', '20', '40', '60', '80']);
  });
});
