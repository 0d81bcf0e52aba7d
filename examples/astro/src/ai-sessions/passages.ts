/**
 * The passages of a text. The service counts Unicode scalar values, a JavaScript string UTF-16 units: an emoji is one of the first
 * and two of the second.
 */
import type { Source } from './documents.ts';

/** A part of a text; `end` is exclusive, as in a `source`. Both count UTF-16 units, as `slice` does. */
export interface Slice {
  start: number;
  end: number;
}

export interface TextIndex {
  readonly text: string;
  /** The place of a source in the string. Limited to the text. */
  sliceOf(source: Source): Slice;
  /** The parts without any of the sources, without white space around them; none of white space alone. */
  without(sources: readonly Source[]): Slice[];
}

/** `text` is sanitized, as the service stores it. */
export function indexText(text: string): TextIndex {
  const places: number[] = [];
  let units = 0;
  for (const character of text) {
    places.push(units);
    units += character.length;
  }
  const placeOf = (character: number) => places[character] ?? units;
  const sliceOf = ({ start, end }: Source) => ({ start: placeOf(start), end: placeOf(end) });
  return {
    text,
    sliceOf,
    without(sources) {
      const found: Slice[] = [];
      let at = 0;
      const add = (end: number) => {
        const part = text.slice(at, Math.max(at, end));
        const start = at + part.length - part.trimStart().length;
        if (part.trim() !== '') found.push({ start, end: start + part.trim().length });
      };
      for (const slice of sources.map(sliceOf).sort((a, b) => a.start - b.start)) {
        add(slice.start);
        at = Math.max(at, slice.end);
      }
      add(units);
      return found;
    },
  };
}

/** The passage that a candidate is based on. */
export function passageOf(text: string, source: Source): string {
  const { start, end } = indexText(text).sliceOf(source);
  return text.slice(start, end);
}
