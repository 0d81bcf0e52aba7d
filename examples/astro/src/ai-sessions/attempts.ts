/**
 * The `Idempotency-Key` of a text: the same text is charged once in any number of tabs, and again only on request.
 *
 * The key is a hash of user, text (sanitized as by the service), model, day and attempt. Day and attempt are kept in a storage
 * that the user's tabs share (`localStorage`):
 *   - Two tabs that send the same text have the same key, at the same time or one after the other. The later one receives
 *     the existing candidates.
 *   - "Make new cards" takes the attempt after the one whose cards are shown. Two tabs that show the same cards take the
 *     same attempt.
 *   - A key is valid for 24 h. After that the text starts again, on another day, so that no old key is reused. A storage that
 *     was emptied on the same day makes the same key again, which at worst charges nothing.
 */
import type { NewSession } from './documents.ts';
import { sanitize } from './text.ts';

/** The required part of `localStorage`. */
export type SharedStorage = Pick<Storage, 'getItem' | 'setItem'>;

export interface Attempt {
  key: string;
  /** 0 for the first. */
  number: number;
  /** The key was used before, here or in another tab. */
  known: boolean;
}

type Latest = { day: string; since_ms: number; number: number };
type Records = { [text: string]: Latest };

const ITEM = 'ai-sessions.attempts';
const KEY_LIFE_MS = 86_400_000;

/** The attempt for this text: the latest one of any tab, or the one after `after` if that is later. */
export async function attemptFor(storage: SharedStorage, userId: string, request: NewSession, now_ms: number, after?: Attempt): Promise<Attempt> {
  const text = await hash([userId, request.model, sanitize(request.input_text)]);
  const records = readRecords(storage, now_ms);
  const latest = records[text];
  const record = latest ?? { day: new Date(now_ms).toISOString().slice(0, 10), since_ms: now_ms, number: 0 };
  let known = latest !== undefined;
  if (after !== undefined && (await keyOf(text, { ...record, number: after.number })) === after.key) {
    if (record.number <= after.number) {
      Object.assign(record, { number: after.number + 1, since_ms: now_ms });
      known = false;
    }
  }
  records[text] = record;
  writeRecords(storage, records);
  return { key: await keyOf(text, record), number: record.number, known };
}

const keyOf = (text: string, { day, number }: Latest) => hash([text, day, number]);

/** The attempts with valid keys. */
function readRecords(storage: SharedStorage, now_ms: number): Records {
  try {
    const all = JSON.parse(storage.getItem(ITEM) ?? '{}') as Records;
    return Object.fromEntries(Object.entries(all).filter(([, { since_ms }]) => now_ms - since_ms < KEY_LIFE_MS));
  } catch {
    // No storage, or foreign content: treated as empty.
    return {};
  }
}

function writeRecords(storage: SharedStorage, records: Records): void {
  try {
    storage.setItem(ITEM, JSON.stringify(records));
  } catch {
    // Full or forbidden: the keys of today's first attempts are still the same.
  }
}

/** 256 bits, in 43 visible characters. */
async function hash(parts: (string | number)[]): Promise<string> {
  const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(JSON.stringify(parts))));
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
}
