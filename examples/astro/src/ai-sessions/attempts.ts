/**
 * Which `Idempotency-Key` a text gets, so that the same text is paid for once, in however many tabs it is sent, and can be
 * paid for again on purpose.
 *
 * The key is a hash of user, text (as the service cleans it), model, day and attempt. Day and attempt stand in a storage
 * that the user's tabs share (`localStorage`):
 *   - Two tabs that send the same text make the same key, at the same time or one after the other. The later one gets what
 *     there is already.
 *   - "Make new cards" goes on to the attempt after the one whose cards are on the screen. Two tabs that show the same cards
 *     go on to the same attempt.
 *   - A key holds for 24 h. After that the text starts anew, on another day, so that no old key comes back. A storage that
 *     was emptied on the same day makes the same key again: the worst that happens is that nothing is paid.
 */
import type { NewSession } from './documents.ts';
import { sanitize } from './text.ts';

/** What is needed of `localStorage`. */
export type SharedStorage = Pick<Storage, 'getItem' | 'setItem'>;

export interface Attempt {
  key: string;
  /** 0 for the first. */
  number: number;
  /** This key was taken before, here or in another tab: what it gives was asked for already. */
  known: boolean;
}

type Latest = { day: string; since_ms: number; number: number };
type Records = { [text: string]: Latest };

const ITEM = 'ai-sessions.attempts';
const KEY_LIFE_MS = 86_400_000;

/** The attempt for this text: the latest one that any tab has made, or the one after `after` if that is later. */
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

/** Those whose keys still hold. */
function readRecords(storage: SharedStorage, now_ms: number): Records {
  try {
    const all = JSON.parse(storage.getItem(ITEM) ?? '{}') as Records;
    return Object.fromEntries(Object.entries(all).filter(([, { since_ms }]) => now_ms - since_ms < KEY_LIFE_MS));
  } catch {
    // No storage, or somebody else's words in it: as if there were none.
    return {};
  }
}

function writeRecords(storage: SharedStorage, records: Records): void {
  try {
    storage.setItem(ITEM, JSON.stringify(records));
  } catch {
    // Full or forbidden: the keys of today's first attempts are the same all the same.
  }
}

/** 256 bits, in 43 visible characters. */
async function hash(parts: (string | number)[]): Promise<string> {
  const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(JSON.stringify(parts))));
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
}
