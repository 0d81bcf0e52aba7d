/**
 * The service's rule for texts (src/input/sanitize.rs), so that a page counts as the service does. Both are tested with
 * tests/fixtures/texts.json.
 */

export const INPUT_TEXT_MIN = 1000;
export const INPUT_TEXT_MAX = 10_000;

/** Controls (C0, DEL, C1) except tab and newline, the byte order mark, and tag characters, which hide text from a reader. */
const REMOVED = /[\0-\x08\x0b-\x1f\x7f-\x9f\ufeff\u{e0000}-\u{e007f}]/gu;

/**
 * Sanitizes a text as the service does. Half a surrogate pair, which JSON cannot contain, becomes U+FFFD. `trim` removes
 * Unicode white space: the characters in which the two lists differ (U+0085, U+FEFF) are removed before.
 */
export function sanitize(text: string): string {
  return text.toWellFormed().replace(/\r\n?/g, '\n').replace(REMOVED, '').trim();
}

/** Unicode scalar values, as the service and Postgres count: an emoji of one code point is one, whatever `length` says. */
export function countCharacters(text: string): number {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
