// Makes candidates from a text without a model: clozes of evenly spaced sentences. Deterministic, for any language that
// Intl.Segmenter can split, and within the service's limits. The local model server answers with these.

/** `source`: the numbers of its sentences, in an answer to a text whose sentences are numbered. */
export type Candidate = { source?: number[]; front: string; back: string; prompt: string };

const FRONT_CHARS = 200;
const BACK_CHARS = 500;
const PROMPT_CHARS = 500;
const BLANK = '____';
/** Shorter ones are headings and exclamations. */
const SENTENCE_CHARS_MIN = 12;

const sentences = new Intl.Segmenter(undefined, { granularity: 'sentence' });
const words = new Intl.Segmenter(undefined, { granularity: 'word' });

/** Makes at most `max` candidates with different fronts, in the order of the text; at least one for a text that is not empty. */
export function makeCandidates(text: string, max: number): Candidate[] {
  const candidates = new Map<string, Candidate>();
  for (const sentence of spread(sentencesOf(text), max)) {
    const candidate = makeCandidate(sentence);
    const key = candidate.front.toLowerCase();
    if (!candidates.has(key)) candidates.set(key, candidate);
  }
  return [...candidates.values()];
}

function makeCandidate(sentence: string): Candidate {
  const term = longestWord(sentence);
  const at = sentence.indexOf(term);
  const before = sentence.slice(0, at);
  const after = sentence.slice(at + term.length);
  // Leave room for the blank and two ellipses.
  const half = Math.floor((FRONT_CHARS - BLANK.length - 2) / 2);
  return {
    front: `${lastChars(before, half)}${BLANK}${firstChars(after, half)}`.trim(),
    back: firstChars(sentence, BACK_CHARS - 1),
    // The service drops a candidate of punctuation alone.
    prompt: firstChars(`${/[\p{L}\p{N}]/u.test(term) ? '' : 'Character '}“${firstChars(term, FRONT_CHARS)}”: ${firstChars(sentence, 120)}`, PROMPT_CHARS - 1),
  };
}

function sentencesOf(text: string): string[] {
  const all = [...sentences.segment(text)].map(({ segment }) => segment.replace(/\s+/gu, ' ').trim());
  const long = all.filter((sentence) => [...sentence].length >= SENTENCE_CHARS_MIN);
  return long.length > 0 ? long : all.filter((sentence) => sentence !== '');
}

/** The longest word, as the likeliest term; of a text without words (emoji, digits of a code) the first character. */
function longestWord(sentence: string): string {
  let longest = '';
  for (const { segment, isWordLike } of words.segment(sentence)) {
    if (isWordLike && segment.length > longest.length) longest = segment;
  }
  return longest === '' ? ([...sentence][0] ?? '') : longest;
}

/** `max` items of the list at even distances, in their order. */
function spread<T>(items: T[], max: number): T[] {
  if (items.length <= max) return items;
  return Array.from({ length: max }, (_, i) => items[Math.floor((i * items.length) / max)] as T);
}

function firstChars(text: string, max: number): string {
  const chars = [...text];
  return chars.length <= max ? text : `${chars.slice(0, max).join('').trimEnd()}…`;
}

function lastChars(text: string, max: number): string {
  const chars = [...text];
  return chars.length <= max ? text : `…${chars.slice(-max).join('').trimStart()}`;
}
