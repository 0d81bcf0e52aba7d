// Reads a completion request for the model server: the text, the number of candidates, and the names in the caller's schema.
// Tolerant: any client of OpenRouter's API gets candidates.

import type { RecordedRequest } from './recorded_requests.ts';

export type ModelRequest = RecordedRequest & {
  /** The parsed body; undefined if it is no JSON. */
  body: CompletionBody | undefined;
  /** Resolves when the exchange is over, to the side that ended it. */
  over: Promise<'answered' | 'client left' | 'server cut'>;
  /** The value of `over`, once known. */
  end?: 'answered' | 'client left' | 'server cut';
};

export type CompletionBody = {
  model?: string;
  models?: string[];
  stream?: boolean;
  messages?: { role: string; content: string | { type: string; text?: string }[] }[];
  response_format?: { type?: string; json_schema?: { schema?: JsonSchema } };
  [member: string]: unknown;
};

type JsonSchema = { type?: string; properties?: Record<string, JsonSchema>; items?: JsonSchema; maxItems?: number };

const CANDIDATES_MAX = 20;

/** The member with the list of candidates, and its maximum length. */
export function wantedList(body: CompletionBody | undefined): { name: string; max: number } {
  const properties = body?.response_format?.json_schema?.schema?.properties ?? {};
  const list = Object.entries(properties).find(([, schema]) => schema.type === 'array');
  return { name: list?.[0] ?? 'candidates', max: list?.[1].maxItems ?? CANDIDATES_MAX };
}

/** A sentence of the text, with the number that the caller gave it. */
export type NumberedSentence = { number: number; text: string };

/** The sentences of a text that has a number and a space before each, on a line of its own; none for any other text. */
export function numberedSentences(body: CompletionBody | undefined): NumberedSentence[] {
  const found: NumberedSentence[] = [];
  for (const line of lastMessage(body).split('\n')) {
    const [, number, text = ''] = line.match(/^(\d+) (.*)$/u) ?? [];
    const last = found.at(-1);
    if (Number(number) === found.length + 1) found.push({ number: found.length + 1, text });
    else if (last !== undefined) last.text += `\n${line}`;
    else return [];
  }
  return found;
}

/** The last message without its delimiters, and without the numbers of its sentences. */
export function textToLearn(body: CompletionBody | undefined): string {
  const sentences = numberedSentences(body);
  if (sentences.length === 0) return lastMessage(body);
  // A blank line is the end of the sentence before it.
  return sentences.map(({ text }) => text).reduce((text, next) => text + (text.endsWith('\n') ? '\n' : ' ') + next);
}

function lastMessage(body: CompletionBody | undefined): string {
  const content = body?.messages?.at(-1)?.content ?? '';
  const message = typeof content === 'string' ? content : content.map((part) => part.text ?? '').join('\n');
  return (betweenTags(message) ?? betweenLines(message) ?? message).trim();
}

/** `<name …> text </name>`: the longest such section. */
function betweenTags(message: string): string | undefined {
  const stretches = [...message.matchAll(/<([\w:-]+)[^<>]*>([\s\S]*?)<\/\1\s*>/gu)].map((match) => match[2] ?? '');
  return longest(stretches);
}

/** The text between a line with a long hexadecimal token, or of punctuation alone, and the last equal line. */
function betweenLines(message: string): string | undefined {
  const lines = message.split('\n');
  for (const [first, line] of lines.entries()) {
    const token = line.match(/[0-9a-f]{8,}|^[^\p{L}\p{N}\s]{3,}$/iu)?.[0];
    if (token === undefined) continue;
    const last = lines.findLastIndex((other) => other.includes(token));
    if (last > first) return lines.slice(first + 1, last).join('\n');
  }
  return undefined;
}

function longest(texts: string[]): string | undefined {
  return texts.toSorted((a, b) => b.length - a.length)[0];
}
